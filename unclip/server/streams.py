"""Server-sent events: a response that ends when its source does, or as soon as the client leaves."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unclip.server.errors import overloaded
from unclip.server.jobs import Event, Job

if TYPE_CHECKING:
    from unclip.server.engine import Engine

PING_SECONDS = 15.0  # well below the half minute after which proxies give up on a silent connection
_BACKLOG = 1024  # events that a tab may be behind


class Room:
    """How many streams there may be at a time."""

    def __init__(self, most: int):
        self.most, self.open = most, 0

    def check(self) -> None:
        """ApiError 503 when there is no room for another."""
        if self.open >= self.most:
            raise overloaded()


def event(data: Any, *, kind: str | None = None, id: int | None = None) -> bytes:
    """One event; `data` becomes JSON on one line."""
    lines = [f"id: {id}"] if id is not None else []
    lines += [f"event: {kind}"] if kind else []
    return "\n".join([*lines, f"data: {json.dumps(data, separators=(',', ':'))}", "", ""]).encode()


class EventStream(Response):
    """Sends what `source` yields, and a comment when it is silent. Leaving closes `source`, whose `finally` then runs."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes], room: Room, headers: dict[str, str] | None = None):
        super().__init__(headers={"x-accel-buffering": "no", "cache-control": "no-store", **(headers or {})})
        del self.headers["content-length"]
        self._source, self._room = source, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._room.open += 1
        left = asyncio.create_task(_leaving(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._pass_on(left, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._room.open -= 1
            left.cancel()
            await self._source.aclose()

    async def _pass_on(self, left: asyncio.Task[None], send: Send) -> None:
        coming: asyncio.Task[bytes | None] | None = None
        chunk: bytes | None = b": welcome\n\n"
        try:
            while chunk is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                coming = coming or asyncio.create_task(anext(self._source, None))  # type: ignore[arg-type]
                await asyncio.wait({coming, left}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if left.done():
                    return
                if coming.done():
                    chunk, coming = coming.result(), None
                else:
                    chunk = b": ping\n\n"
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})


async def _leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Feed:
    """What happens to all jobs of an owner, for every tab that listens: states and slots that end, not the steps between."""

    def __init__(self, engine: "Engine"):
        self._engine = engine
        self._following: set[asyncio.Task[None]] = set()
        self._listeners: dict[str, set[asyncio.Queue[Event | None]]] = defaultdict(set)
        self._closed = False

    def follow(self, job: Job) -> None:
        """Tells of a job until it has ended."""
        task = asyncio.create_task(self._follow(job))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def listen(self, owner: str) -> AsyncGenerator[bytes]:
        """Events as they are sent; ends with the server, or when the reader is so slow that it had better begin again."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_BACKLOG)
        self._listeners[owner].add(queue)
        try:
            while not self._closed and (told := await queue.get()) is not None:
                yield job_event(told)
        finally:
            self._listeners[owner].discard(queue)

    async def close(self) -> None:
        self._closed = True
        for queues in self._listeners.values():
            for queue in queues:
                _put(queue, None)
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    async def _follow(self, job: Job) -> None:
        async for told in self._engine.subscribe(job.id):
            if told.kind in ("state", "image", "dropped"):
                for queue in self._listeners.get(job.owner, ()):
                    _put(queue, told)


def job_event(told: Event) -> bytes:
    """A job's event as the page reads it."""
    return event({"job": told.job, **told.data}, kind=told.kind, id=told.id)


def _put(queue: "asyncio.Queue[Event | None]", told: Event | None) -> None:
    """To a queue that is full nothing is added but its end: who reads so slowly connects again and asks for the state."""
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        told = None
    queue.put_nowait(told)
