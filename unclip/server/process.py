"""Worker processes as the engine has them: started, spoken to, listened to, watched, replaced."""

import asyncio
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from unclip.server.config import ServerConfig
from unclip.server.worker import Order, run

log = logging.getLogger(__name__)

STARTING = 30.0  # seconds until a new process has to beat: Python starts, nothing more
FAREWELL = 2.0  # seconds until one that was told to go is killed
WATCH_SECONDS = 0.25
SLOWEST = 30.0  # seconds, at most, between the starts of workers that never get ready


class WorkerProcess:
    """One process. `hear(self, message)` and, at its end, `lost(self)` are called in the event loop that made it.

    `painting` is what it was told to paint and has not answered; `room` is how many slots it takes at once, 0 until it is
    ready and when it is gone.
    """

    def __init__(
        self,
        config: ServerConfig,
        device: str,
        hear: Callable[["WorkerProcess", tuple[Any, ...]], None],
        lost: Callable[["WorkerProcess"], None],
    ):
        self.device = device
        self.room = 0
        self.painting: dict[tuple[str, int], Order] = {}
        self.alone = False
        """It paints something that may have ended another process, and gets nothing beside it."""
        self.gone = False
        self.served = False
        """It was ready once."""
        self._beat = time.monotonic() + max(0.0, STARTING - config.heartbeat_seconds)
        self._hear, self._lost = hear, lost
        self._loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(theirs, config, device), name="unclip worker", daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, args=(self._connection,), name="worker reader", daemon=True)
        self._reader.start()

    @property
    def silent(self) -> float:
        """Seconds since it was last heard of."""
        return max(0.0, time.monotonic() - self._beat)

    def excuse(self) -> None:
        """Counts as a beat: it was us who did not listen."""
        self._beat = max(self._beat, time.monotonic())

    def paint(self, order: Order, *, alone: bool) -> None:
        self.painting[order.job, order.slot] = order
        self.alone = alone
        self._send("paint", order)

    def cancel(self, job: str) -> None:
        """Has it leave off what it paints of a job; it answers for each slot."""
        self._send("cancel", job)

    def kill(self) -> None:
        """Ends it at once; `lost` follows."""
        if not self.gone:
            self._process.kill()

    def leave(self) -> None:
        """Ends it, without a word to the engine. Blocks, two seconds at most."""
        self._lost = lambda _: None
        if not self.painting:
            self._send("leave", "")
            self._process.join(FAREWELL)
        self._process.kill()
        self._process.join()
        self._reader.join()
        self._connection.close()
        self._process.close()

    def _send(self, kind: str, what: Any) -> None:
        with suppress(OSError):  # it is gone, and `lost` is on its way
            self._connection.send((kind, what))

    def _read(self, connection: Connection) -> None:
        try:
            while True:
                message = connection.recv()
                self._beat = time.monotonic()
                if message[0] != "beat":
                    self._loop.call_soon_threadsafe(self._hear, self, message)
        except (EOFError, OSError):
            pass
        except RuntimeError:  # the loop was closed before us
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.gone, self.room = True, 0
        self._lost(self)


class Crew:
    """A worker for each device, as long as it is open. `hear` and `lost` are as WorkerProcess has them."""

    def __init__(
        self,
        config: ServerConfig,
        hear: Callable[[WorkerProcess, tuple[Any, ...]], None],
        lost: Callable[[WorkerProcess], None],
    ):
        self.restarts = 0
        self._config, self._hear, self._told_lost = config, hear, lost
        self._stillborn = 0
        self._open = True
        self._replacing: set[asyncio.Task[None]] = set()
        self.workers = [self._started(device.strip()) for device in config.device.split(",")]
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Ends them all."""
        self._open = False
        self._watching.cancel()
        await asyncio.gather(*self._replacing)
        await asyncio.gather(*(asyncio.to_thread(worker.leave) for worker in self.workers))
        self.workers = []

    def _started(self, device: str) -> WorkerProcess:
        return WorkerProcess(self._config, device, self._hear, self._lost)

    def _lost(self, worker: WorkerProcess) -> None:
        log.warning("worker %s ended with %d slots in hand", worker.pid, len(worker.painting))
        self.workers.remove(worker)
        self._told_lost(worker)
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
            self.workers.append(self._started(worker.device))

    async def _watch(self) -> None:
        """Kills workers that are silent: they stand still, or a step of theirs does not end."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(WATCH_SECONDS)
            late = time.monotonic() - before > 4 * WATCH_SECONDS  # the machine slept, or we did
            for worker in self.workers:
                if late:
                    worker.excuse()
                elif worker.silent > self._config.heartbeat_seconds:
                    log.warning("worker %s is silent for %.1f s: killed", worker.pid, worker.silent)
                    worker.kill()
