"""uvicorn around the app: announces the address, and stops in the order that loses nothing.

On SIGTERM or SIGINT the server goes on answering, /readyz and new jobs with 503, while running jobs finish for as long as
the config grants; then connections end. A second signal ends it at once. Whatever is left in the queue is there next time.
"""

import asyncio
import math
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from unclip.server.app import drain
from unclip.server.connection import Connection, Connections, probe

_GOODBYE_SECONDS = 3  # for connections that are still open after draining


class Server(uvicorn.Server):
    """Serves `app` on a socket that listens already."""

    def __init__(self, app: FastAPI, listener: socket.socket):
        limits = app.state.serving.config.limits
        settings = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,  # ours has no query, where signatures are
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=math.ceil(limits.head_seconds),
            timeout_graceful_shutdown=_GOODBYE_SECONDS,
        )
        super().__init__(settings)
        self.server_state = Connections(limits)
        probe(listener)
        self._app, self._listener = app, listener
        self._told: Callable[[str], None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it answers, as a browser takes it."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run_until_stopped(self, tell: Callable[[str], None]) -> None:
        """Blocks; `tell` is called with the address once requests are answered. Raises what kept it from starting."""
        self._told = tell
        try:
            self.run(sockets=[self._listener])
        except SystemExit:  # uvicorn's way to say that the app did not start
            raise self._app.state.failure from None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._told:
            self._told(self.address)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second does not wait. Called between any two instructions of the main thread."""
        if self._stopping is None:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(self._stop, loop)
        else:
            self.force_exit = self.should_exit = True

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._stopping is None:
            self._stopping = loop.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await drain(self._app)
        finally:
            self.should_exit = True
