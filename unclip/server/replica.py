"""What runs on a Ray cluster: a worker that answers orders as streams of messages.

An order brings its pictures with it; they are files only while it is painted, and only on the replica's machine.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from unclip.server.config import ServerConfig
from unclip.server.crew import ENDS, Message, Order
from unclip.server.worker import Worker

BEGUN: Message = ("begun",)
LAST_WORDS = 0.2  # seconds in which a replica that has to go still sends what it said
OUT_OF_MEMORY = 75  # its exit status

Pictures = list[tuple[str, bytes]]  # names and contents of an order's files
Told = tuple[str, list[Message]]  # which replica says it: its machine's address and its process id


class Replica:
    """A worker on the cluster: Ray Serve makes it, calls `paint` for each order, and replaces it when it is not well."""

    def __init__(self, config: ServerConfig, device: str):
        import ray

        self._place = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        self._heard: dict[tuple[str, int], Callable[[Message], object]] = {}  # where each order's messages go
        self._worker = Worker(config, device, self._pass_on)
        self._worker.prepare()
        self._door, self._empty, self._inside = asyncio.Lock(), asyncio.Event(), 0
        self._empty.set()

    def check_health(self) -> None:
        """Raises when a step does not end."""
        if self._worker.stuck:
            raise RuntimeError("a step does not end")

    async def paint(self, order: Order, pictures: Pictures, alone: bool) -> AsyncIterator[Told]:
        """What is heard of an order until its answer, as it comes. When the call is cancelled, so is the slot.

        The first word is that the order is here, the second, once it is its turn, that it is begun.
        """
        yield self._place, []
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[Message]()
        async with self._among(alone):
            yield self._place, [BEGUN]
            with tempfile.TemporaryDirectory() as folder:
                files = await asyncio.to_thread(_write, Path(folder), pictures)
                self._heard[order.key] = partial(loop.call_soon_threadsafe, heard.put_nowait)
                self._worker.paint(replace(order, files=files))
                last = ""
                try:
                    while last not in ENDS:
                        messages = [await heard.get()]
                        while not heard.empty():
                            messages.append(heard.get_nowait())
                        last = messages[-1][0]
                        if last == "lost":
                            loop.call_later(LAST_WORDS, os._exit, OUT_OF_MEMORY)
                        yield self._place, messages
                        if last == "lost":  # it counts once we are gone, so that it is not tried again here
                            await asyncio.Event().wait()
                finally:
                    self._worker.cancel(*order.key)
                    while last not in ENDS:
                        last = (await heard.get())[0]
                    del self._heard[order.key]

    def _pass_on(self, message: Message) -> None:
        """From one of the worker's threads."""
        self._heard[message[1], message[2]](message)

    @asynccontextmanager
    async def _among(self, alone: bool) -> AsyncIterator[None]:
        """Beside the others; or alone: waits at the door until they are out, and lets nobody in."""
        async with self._door:
            if alone:
                await self._empty.wait()
                yield
                return
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()


def _write(folder: Path, pictures: Pictures) -> tuple[str, ...]:
    """Each in a folder of its own, so that it keeps its name whatever the others are called."""
    files = [folder / str(number) / name for number, (name, _) in enumerate(pictures)]
    for file, (_, content) in zip(files, pictures, strict=True):
        file.parent.mkdir()
        file.write_bytes(content)
    return tuple(map(str, files))
