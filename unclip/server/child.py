"""A process of the server's own at the other end of a pipe: started, spoken to, listened to, ended.

The pipe is all that joins it to the server, so whichever dies, the other notices: there its end is the end of the process,
here of the child. Two threads wait on it, one for what comes and one for what goes, so that neither a child that says
nothing nor one that does not listen holds up the event loop.
"""

import asyncio
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

Message = tuple[Any, ...]

FAREWELL = 2.0  # seconds until one that was told to go is killed
BEAT = ("beat",)


class Child:
    """Runs `target(connection, *arguments)`. `hear(message)`, for all but beats, and at its end `lost()` are called in the
    event loop that made it; not `lost` when it was told to leave."""

    def __init__(
        self,
        target: Callable[..., None],
        arguments: tuple[Any, ...],
        *,
        name: str,
        hear: Callable[[Message], None],
        lost: Callable[[], None],
    ):
        self.heard = time.monotonic()
        """When it last said anything."""
        self.gone = False
        self._hear, self._lost = hear, lost
        self._loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), name=name, daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, args=(self._connection,), name=f"{name}'s {what}", daemon=True)
            for work, what in ((self._read, "reader"), (self._write, "writer"))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: Message) -> None:
        """Says something in its turn; to one that is gone nothing, and `lost` is on its way."""
        self._outbox.put(message)

    def kill(self) -> None:
        """Ends it at once; `lost` follows."""
        if not self.gone:
            self._process.kill()

    def leave(self, farewell: Message | None = None) -> None:
        """Ends it, without `lost`. With a `farewell`, which it should go at, it has two seconds. Blocks so long at most."""
        self._lost = lambda: None
        if farewell is not None:
            self.send(farewell)
            self._process.join(FAREWELL)
        self._process.kill()
        self._process.join()
        self._outbox.put(None)
        for thread in self._threads:
            thread.join()
        self._connection.close()
        self._process.close()

    def _write(self, connection: Connection) -> None:
        with suppress(OSError):
            while (message := self._outbox.get()) is not None:
                connection.send(message)

    def _read(self, connection: Connection) -> None:
        try:
            while True:
                message = connection.recv()
                self.heard = time.monotonic()
                if message != BEAT:
                    self._loop.call_soon_threadsafe(self._hear, message)
        except (EOFError, OSError):
            pass
        except RuntimeError:  # the loop was closed before us
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.gone = True
        self._lost()
