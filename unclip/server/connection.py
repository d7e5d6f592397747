"""A connection that nobody can hold for ever, nor make dear; what uvicorn leaves open around a request is closed here.

- A request's line and headers are whole in `limits.head_seconds` after the connection stands, or after its last answer.
- Each piece that is sent is taken in `limits.send_seconds`, or the connection is cut and what it had not read is let go.
- A peer that vanished without a word is found by the system's own probes, also while it waits for a picture.
- At most `limits.connections` stand: a new one takes the place of the one that has waited longest for its request.
- A body in crumbs is refused: each tiny chunk costs as much work as a large one.
- What is no HTTP is told so in the four keys of every other error.

How long a body may take, and how large it may be, is the guard's (security.py).
"""

import asyncio
import socket
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from unclip.server import errors
from unclip.server.config import Limits
from unclip.server.errors import ApiError

_HEAD_BYTES = 16 << 10  # a request's line and headers
_CRUMBS, _CRUMB_BYTES = 1000, 1024  # chunks of a body that may be tiny; and what all beyond have on average
_PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, number


class Connections(ServerState):
    """What the connections of one server share."""

    def __init__(self, limits: Limits):
        super().__init__()
        self.limits = limits
        self.waiting: dict[Connection, asyncio.TimerHandle] = {}  # for a request; the longest first


class Connection(H11Protocol):
    """uvicorn's, in which everything ends."""

    server_state: Connections

    def __init__(
        self,
        config: Config,
        server_state: Connections,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ):
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Wire()
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that we hear of every byte that is not taken
        if len(self.connections) > self.server_state.limits.connections:
            if not self.server_state.waiting:
                self._refuse(errors.overloaded())
                return
            next(iter(self.server_state.waiting))._hang_up()
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which takes up the next request if it is there already
        if not self._answering and not self.transport.is_closing():
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._all_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.server_state.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._all_read()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "The request is not HTTP that can be read."))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        self._stop_waiting()
        seconds = self.server_state.limits.head_seconds
        self.server_state.waiting[self] = self.loop.call_later(seconds, self._hang_up)

    def _stop_waiting(self) -> None:
        timer = self.server_state.waiting.pop(self, None)
        if timer is not None:
            timer.cancel()

    def _all_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _hang_up(self) -> None:
        self._stop_waiting()
        self.timeout_keep_alive_handler()

    def _refuse(self, error: ApiError) -> None:
        """Answers, if no answer has begun, and hangs up; whoever still works for the request hears that the client left."""
        if self._answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = error.response()
            headers = [*self.server_state.default_headers, *answer.raw_headers, CLOSE_HEADER]
            for event in (
                h11.Response(status_code=error.status, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Wire(h11.Connection):
    """The server's side of HTTP, which measures heads also when they come in one piece, and counts a body's chunks."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, _HEAD_BYTES)
        self._chunks = self._bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > _HEAD_BYTES:
                raise h11.RemoteProtocolError("the head is too long")
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > _CRUMBS + self._bytes // _CRUMB_BYTES:
                raise h11.RemoteProtocolError("the body comes in crumbs")
        return event


def probe(listener: socket.socket) -> None:
    """Has the system look after silent peers of all connections that `listener` takes, where it knows how."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
