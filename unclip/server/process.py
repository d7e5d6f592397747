"""A crew of worker processes on this machine, one for each device: started, spoken to, listened to, watched, replaced.

What is sent through its pipe (child.py), as tuples:

    in    ("paint", Order)   ("cancel", (job, slot or None for all of them))   ("leave", "")
    out   ("ready", slots at once)   ("beat",)   and what crew.py says that is heard of orders

It beats as long as all is well: a step that does not end stops the heart, as does a process that stands still.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from unclip.server.child import BEAT, Child
from unclip.server.config import ServerConfig
from unclip.server.crew import ENDS, Hear, Message, Order
from unclip.server.worker import Worker

log = logging.getLogger(__name__)

STARTING = 30.0  # seconds until a new process has to beat: Python starts, nothing more
WATCH_SECONDS = 0.25
SLOWEST = 30.0  # seconds, at most, between the starts of workers that never get ready
OUT_OF_MEMORY = 75  # the exit status of a process that has to go


class WorkerProcess:
    """One process. `hear(self, message)` and, at its end, `lost(self)` are called in the event loop that made it."""

    def __init__(self, config: ServerConfig, device: str, hear: Hear, lost: Callable[["WorkerProcess"], None]):
        self.device = device
        self.room = 0
        self.painting: dict[tuple[str, int], Order] = {}
        self.served = False
        """It was ready once."""
        self._alone = False  # what it paints may have ended another process, and gets nothing beside it
        self._hear, self._lost = hear, lost
        self._child = Child(run, (config, device), name="unclip worker", hear=self._take, lost=self._end)
        self._child.heard += max(0.0, STARTING - config.heartbeat_seconds)
        self.pid = self._child.pid

    @property
    def silent(self) -> float:
        """Seconds since it was last heard of."""
        return max(0.0, time.monotonic() - self._child.heard)

    def health(self) -> dict[str, Any]:
        return {"pid": self.pid, "ready": self.room > 0, "painting": len(self.painting), "silent": round(self.silent, 2)}

    def excuse(self) -> None:
        """Counts as a beat: it was us who did not listen."""
        self._child.heard = max(self._child.heard, time.monotonic())

    def takes(self, *, alone: bool) -> bool:
        return len(self.painting) < (min(self.room, 1) if alone or self._alone else self.room)

    def paint(self, order: Order, *, alone: bool) -> None:
        self.painting[order.key] = order
        self._alone = alone
        self._child.send(("paint", order))

    def cancel(self, job: str, slot: int | None = None) -> None:
        self._child.send(("cancel", (job, slot)))

    def kill(self) -> None:
        """Ends it at once; `lost` follows."""
        self._child.kill()

    def leave(self) -> None:
        """Ends it, without a word to the engine. Blocks, two seconds at most."""
        self._child.leave(None if self.painting else ("leave", ""))

    def _take(self, message: Message) -> None:
        kind, *rest = message
        if kind == "ready":
            self.room, self.served = rest[0], True
            message = ("ready",)
        elif kind in ENDS:
            del self.painting[rest[0], rest[1]]
            if kind == "lost":
                self.room = 0  # it is about to go
        self._hear(self, message)

    def _end(self) -> None:
        self.room = 0
        self._lost(self)


class Processes:
    """The crew: a worker for each device, as long as it is open."""

    def __init__(self, config: ServerConfig, hear: Hear):
        self.restarts = 0
        self.hands: list[WorkerProcess] = []
        self._config, self._hear = config, hear
        self._stillborn = 0
        self._open = True
        self._replacing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self.hands = [self._started(device.strip()) for device in self._config.device.split(",")]
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        self._open = False
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*self._replacing)
        await asyncio.gather(*(asyncio.to_thread(worker.leave) for worker in self.hands))
        self.hands = []

    def _started(self, device: str) -> WorkerProcess:
        return WorkerProcess(self._config, device, self._hear, self._lost)

    def _lost(self, worker: WorkerProcess) -> None:
        log.warning("worker %s ended with %d slots in hand", worker.pid, len(worker.painting))
        self.hands.remove(worker)
        for key in [*worker.painting]:
            del worker.painting[key]
            self._hear(worker, ("lost", *key, "worker_died"))
        task = asyncio.create_task(self._replace(worker))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self, worker: WorkerProcess) -> None:
        """At once for one that died in the middle of its work, later and later for those that never get ready."""
        await asyncio.to_thread(worker.leave)
        self._stillborn = 0 if worker.served else self._stillborn + 1
        pause = min(SLOWEST, 2.0 ** (self._stillborn - 2)) if self._stillborn else 0.0
        until = time.monotonic() + pause
        while self._open and time.monotonic() < until:
            await asyncio.sleep(WATCH_SECONDS)
        if self._open:
            self.restarts += 1
            self.hands.append(self._started(worker.device))

    async def _watch(self) -> None:
        """Kills workers that are silent: they stand still, or a step of theirs does not end."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(WATCH_SECONDS)
            late = time.monotonic() - before > 4 * WATCH_SECONDS  # the machine slept, or we did
            for worker in self.hands:
                if late:
                    worker.excuse()
                elif worker.silent > self._config.heartbeat_seconds:
                    log.warning("worker %s is silent for %.1f s: killed", worker.pid, worker.silent)
                    worker.kill()


def run(connection: Connection, config: ServerConfig, device: str) -> None:
    """The life of a worker process."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # the server's to act on: it lets us finish, then closes the pipe
        signal.signal(stop, signal.SIG_IGN)
    sending = threading.Lock()

    def send(message: Message) -> None:
        try:
            with sending:
                connection.send(message)
        except OSError:
            os._exit(0)
        if message[0] == "lost":
            os._exit(OUT_OF_MEMORY)

    worker = Worker(config, device, send)
    beat = min(0.5, config.heartbeat_seconds / 4)
    threading.Thread(target=_beat, args=(worker, send, beat), name="heart", daemon=True).start()
    send(("ready", worker.prepare()))
    while True:
        try:
            kind, what = connection.recv()
        except (EOFError, OSError):
            os._exit(0)  # nobody is left to paint for
        if kind == "paint":
            worker.paint(what)
        elif kind == "cancel":
            worker.cancel(*what)
        else:
            os._exit(0)


def _beat(worker: Worker, send: Callable[[Message], None], seconds: float) -> None:
    while True:
        if not worker.stuck:
            send(BEAT)
        time.sleep(seconds)
