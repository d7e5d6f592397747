"""The life of the search process: what waits is answered together in one thread, pictures are drawn in two others."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from unclip.errors import UnclipError
from unclip.server.child import Message
from unclip.server.config import ServerConfig
from unclip.server.errors import ApiError
from unclip.server.search.queries import Found, Query

if TYPE_CHECKING:
    from unclip.server.search.seeker import Seeker

log = logging.getLogger(__name__)

BATCH = 8  # queries that are answered together, so few that each answer is news of the process
DRAWERS = 2  # threads
OUT_OF_MEMORY = 75  # the exit status of a process that has to go

Send = Callable[[Message], None]


def run(connection: Connection, config: ServerConfig) -> None:
    """Answers what comes through the pipe, as finder.py has it, until there is nobody at its other end."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # the server's to act on
        signal.signal(stop, signal.SIG_IGN)
    import torch  # here, since the server imports this module too

    from unclip.server.search.seeker import Seeker

    # Who paints has the other half: threads of a product wait for each other, the longer the more of them have no core.
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    sending = threading.Lock()

    def send(message: Message) -> None:
        try:
            with sending:
                connection.send(message)
        except OSError:
            os._exit(0)

    try:
        seeker = Seeker(config)
    except UnclipError as error:
        send(("unfit", str(error)))
        return
    send(("ready", seeker.rows))
    waiting = _Waiting()
    threading.Thread(target=_listen, args=(connection, send, seeker, waiting), name="ear", daemon=True).start()
    while True:
        queries = waiting.take()
        for number, answer in zip(queries, seeker.find(list(queries.values())), strict=True):
            send(_told(number, answer))


class _Waiting:
    """The queries that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._queries: dict[int, Query] = {}
        self._changed = threading.Condition()

    def add(self, number: int, query: Query) -> None:
        with self._changed:
            self._queries[number] = query
            self._changed.notify()

    def forget(self, number: int) -> None:
        with self._changed:
            self._queries.pop(number, None)

    def take(self) -> dict[int, Query]:
        """The next ones, as many as are answered together; waits until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._queries)
            return {number: self._queries.pop(number) for number in [*self._queries][:BATCH]}


def _listen(connection: Connection, send: Send, seeker: "Seeker", waiting: _Waiting) -> None:
    drawers = ThreadPoolExecutor(DRAWERS, "drawer")
    while True:
        try:
            kind, *rest = connection.recv()
        except (EOFError, OSError):
            os._exit(0)  # nobody is left to search for
        if kind == "find":
            waiting.add(*rest)
        elif kind in ("look", "tell"):
            drawers.submit(_answer, send, getattr(seeker, kind), *rest)
        elif kind == "forget":
            waiting.forget(*rest)
        else:
            os._exit(0)


def _answer(send: Send, ask: Callable[..., Found | bytes], number: int, what: tuple[Any, ...]) -> None:
    try:
        answer: Found | bytes | Exception = ask(*what)
    except Exception as error:
        answer = error
    send(_told(number, answer))


def _told(number: int, answer: Found | bytes | Exception) -> Message:
    """An answer as it goes through the pipe. No text of a library, nor one that names a folder, gets out."""
    if isinstance(answer, ApiError):
        told = {"status": answer.status, "message": answer.message, "code": answer.code, "param": answer.param}
        return "refused", number, told
    if not isinstance(answer, Exception):
        return "answer", number, answer
    log.error("a search failed: %s", answer, exc_info=None if isinstance(answer, UnclipError) else answer)
    if isinstance(answer, MemoryError) or type(answer).__name__ == "OutOfMemoryError" or "not enough memory" in str(answer):
        os._exit(OUT_OF_MEMORY)  # what is left of the memory is not to be trusted
    return "broken", number
