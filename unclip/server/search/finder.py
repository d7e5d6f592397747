"""The asyncio side of searching: asks a process of its own, in which the CLIPs and the indices are (process.py), and waits.

That process starts with the server, which waits until it has opened all that it needs. When it dies it is started again;
whoever waited for it then is told to come again, and who comes meanwhile waits for the new one. What is not answered in
time is given up; and a process that has answered nothing of that kind since is taken for hung and killed. So many may wait,
and no more.

What is sent through its pipe (child.py), as tuples; orders and answers have a number:

    in    ("find", number, Query)   ("look", number, (Place, side))   ("tell", number, (index, ids))
          ("forget", number)   ("leave",)
    out   ("ready", rows by index)   ("unfit", message): something cannot be opened, and it ends
          ("answer", number, Found or bytes)
          ("refused", number, {status, message, code, param})   ("broken", number)
"""

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

from unclip.errors import ConfigError
from unclip.server import errors
from unclip.server.child import Child, Message
from unclip.server.config import ServerConfig
from unclip.server.errors import ApiError
from unclip.server.jobs import Draining, QueueFull
from unclip.server.search.process import run
from unclip.server.search.queries import Found, Place, Query

log = logging.getLogger(__name__)

Kind = Literal["find", "look", "tell"]

LOOKS = 8  # pictures that are asked for at one time; a page of results asks for forty
WATCH_SECONDS = 0.25
SLOWEST = 30.0  # seconds, at most, between the starts of processes that never get ready
NEVER_READY = "the process that searches ended before it was ready: there may be too little memory"
LEAVE = ("leave",)


class _Order(NamedTuple):
    kind: Kind
    since: float
    answer: asyncio.Future[Any]


class Finder:
    """Call `open` and `ready` once, from the event loop in which everything else is called; `close` ends it.

    Without indices it is there, and has nothing to find anything in.
    """

    def __init__(self, config: ServerConfig):
        self.sizes: dict[str, int] = dict.fromkeys(config.indices, 0)
        """How many each index has, by its name."""
        self._config, self._limits = config, config.limits
        self._child: Child | None = None
        self._is_ready = asyncio.Event()
        self._first: asyncio.Future[None] | None = None  # done when the first process was ready
        self._unfit: str | None = None  # why the process ended by itself
        self._stillborn = 0
        self._state: Literal["closed", "open", "closing"] = "closed"
        self._numbers = itertools.count()
        self._orders: dict[int, _Order] = {}
        self._finding = 0
        self._looks = asyncio.Semaphore(LOOKS)
        self._answered: dict[Kind, float] = dict.fromkeys(get_args(Kind), 0.0)
        self._replacing: asyncio.Task[None] | None = None
        self._counts: Counter[str] = Counter(dict.fromkeys(("found", "looked", "rejected", "late", "restarts"), 0))
        self._pace = 0.1  # seconds until a search is answered, of late

    def open(self) -> None:
        """Starts the process, which gets ready in its own time."""
        self._state = "open"
        if self._config.indices:
            self._first = asyncio.get_running_loop().create_future()
            self._start()

    async def ready(self) -> None:
        """Waits until the process is; ConfigError for an index or a CLIP that cannot be opened."""
        if self._first is not None:
            await self._first

    async def close(self, grace: float = 0.0) -> None:
        """Takes no more, lets what is asked be answered for `grace` seconds, and ends the process; safe to call again."""
        if self._state != "open":
            return
        self._state = "closing"
        self._is_ready.set()  # who waits for that goes
        if self._orders:
            await asyncio.wait([order.answer for order in self._orders.values()], timeout=grace)
        self._give_up_all(Draining)
        if self._replacing is not None:
            await self._replacing
        if self._child is not None:
            await asyncio.to_thread(self._child.leave, LEAVE)
        self._state = "closed"

    async def find(self, query: Query) -> Found:
        """What a query finds. ApiError for what cannot be sought or is not answered in time, QueueFull, Draining."""
        if self._finding >= self._limits.searches:
            self._counts["rejected"] += 1
            raise QueueFull(round(1000 * self._pace))
        self._finding += 1
        began = time.monotonic()
        try:
            found = await self._asked("find", query)
        finally:
            self._finding -= 1
        self._pace += 0.1 * (time.monotonic() - began - self._pace)
        self._counts["found"] += 1
        self.sizes[query.index] = found.total
        return found

    async def tell(self, index: str, ids: Sequence[int]) -> Found:
        """What is told of some rows; ApiError where there is no such row, Draining."""
        return await self._asked("tell", (index, ids))

    async def look(self, place: Place, side: int) -> bytes:
        """A row's picture as a JPEG, no side longer than `side` px; ApiError, Draining."""
        async with self._looks:
            picture = await self._asked("look", (place, side))
        self._counts["looked"] += 1
        return picture

    def health(self) -> dict[str, Any]:
        """Counts since the start, and how it is now."""
        return {
            "ready": self._is_ready.is_set(),
            "rows": sum(self.sizes.values()),
            "waiting": self._finding,
            "seconds_per_search": round(self._pace, 4),
            **self._counts,
        }

    async def _asked(self, kind: Kind, what: Any) -> Any:
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._limits.search_seconds):
                child = await self._ready_child()
                self._orders[number] = _Order(kind, time.monotonic(), answer)
                child.send((kind, number, what))
                return await answer
        except TimeoutError:
            self._late(number)
            raise errors.overloaded() from None
        finally:
            self._orders.pop(number, None)

    async def _ready_child(self) -> Child:
        while self._state == "open":
            await self._is_ready.wait()
            if self._child is not None and self._is_ready.is_set():
                return self._child
        raise Draining

    def _late(self, number: int) -> None:
        """Has the process leave an order alone, or ends it if it has not answered any like it since."""
        self._counts["late"] += 1
        order, child = self._orders.get(number), self._child
        if order is None or child is None or not self._is_ready.is_set():
            return
        if self._answered[order.kind] < order.since:
            log.warning("the search process %s does not answer: killed", child.pid)
            self._is_ready.clear()
            child.kill()
        else:
            child.send(("forget", number))

    # --- the process

    def _start(self) -> None:
        self._child = Child(run, (self._config,), name="unclip search", hear=self._hear, lost=self._lost)

    def _hear(self, message: Message) -> None:
        kind, *rest = message
        if kind == "ready":
            self.sizes, self._stillborn, self._unfit = rest[0], 0, None
            self._is_ready.set()
            if self._first is not None and not self._first.done():
                self._first.set_result(None)
        elif kind == "unfit":
            self._unfit = rest[0]
        elif rest[0] in self._orders:
            order = self._orders[rest[0]]
            self._answered[order.kind] = time.monotonic()
            if order.answer.done():
                return
            if kind == "answer":
                order.answer.set_result(rest[1])
            else:
                order.answer.set_exception(ApiError(**rest[1]) if kind == "refused" else errors.fault())

    def _lost(self) -> None:
        """For whoever waits it is over; a process that ends before one was ever ready is the end of the server's start."""
        assert self._child is not None
        child, self._child = self._child, None
        why = self._unfit or "it died"
        self._is_ready.clear()
        self._give_up_all(errors.overloaded)
        if self._first is not None and not self._first.done():
            self._first.set_exception(ConfigError(why if self._unfit else NEVER_READY))
        else:
            log.warning("the search process %s ended: %s", child.pid, why)
        self._replacing = asyncio.create_task(self._replace(child))

    async def _replace(self, child: Child) -> None:
        """At once one that died in the middle of its work, later and later those that never get ready."""
        await asyncio.to_thread(child.leave)
        until = time.monotonic() + (min(SLOWEST, 2.0 ** (self._stillborn - 1)) if self._stillborn else 0.0)
        self._stillborn += 1
        while self._state == "open" and time.monotonic() < until:
            await asyncio.sleep(WATCH_SECONDS)
        if self._state == "open" and self._first is not None and self._first.exception() is None:
            self._counts["restarts"] += 1
            self._start()

    def _give_up_all(self, why: Callable[[], Exception]) -> None:
        for order in self._orders.values():
            if not order.answer.done():
                order.answer.set_exception(why())
