"""The asyncio side of painting: takes queued jobs, has workers paint their slots, tells what happens, cancels, supervises.

The store owns the truth, and the engine alone changes jobs. Slots are handed out in the order in which their jobs stand in
the queue, as many at a time as a worker takes. A worker that dies, or is silent, is replaced; its slots are tried once more,
each alone in its worker, so that one that kills workers takes none of the others with it. A picture is stored before it is
told of, and a slot that has one takes no other: however often it was painted, it is delivered once.

Everything here runs in one event loop; only the store's work is sent to threads.
"""

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from unclip.errors import RequestError
from unclip.server.chores import Chores
from unclip.server.config import ServerConfig
from unclip.server.crew import ENDS, Crew, Hand, Message, Order, hire
from unclip.server.events import replay, tell_end, tell_picture, tell_pictures
from unclip.server.jobs import Draining, Event, Job, JobRequest, JobState, QueueFull
from unclip.server.live import Line, LiveJob, Pace, next_slot, recovered
from unclip.server.store import Store

log = logging.getLogger(__name__)

TRIES = 2  # of a slot whose worker dies
NOTE_SECONDS = 1.0  # between two notes of a job's progress in the store


class Engine:
    """Call `start` once, from the event loop in which everything else is called; `stop` ends it."""

    def __init__(self, config: ServerConfig, store: Store):
        self._config, self._store = config, store
        self._pace = Pace()
        self._queue = Line(self._pace)
        self._running: dict[str, LiveJob] = {}
        self._crew: Crew | None = None
        self._chores = Chores()  # needed are those that have something for the store
        self._state = "stopped"
        self._counts: Counter[str] = Counter(dict.fromkeys(("pictures", "done", "failed", "cancelled", "rejected"), 0))
        self._kick, self._turn = asyncio.Event(), asyncio.Lock()

    async def start(self) -> None:
        """Takes up what an earlier server left, and starts the workers, which load their model in their own time.

        ConfigError for workers that cannot be started.
        """
        assert self._state == "stopped"
        self._state = "running"
        for live in await asyncio.to_thread(recovered, self._store):
            self._queue.add(live)
        self._tell_positions()
        self._crew = hire(self._config, self._hear)
        await self._crew.open()
        self._chores.do(self._hand_out())

    async def stop(self, grace: float = 0.0) -> None:
        """Takes no more jobs, lets the running ones finish for `grace` seconds, and puts the rest back in the queue."""
        if self._state == "stopped":
            return
        async with self._turn:  # not in the middle of a claim
            self._state = "draining"
        ends = [asyncio.ensure_future(live.ended.wait()) for live in self._running.values()]
        if ends:
            await asyncio.wait(ends, timeout=grace)
        for end in ends:
            end.cancel()
        self._state = "stopped"
        assert self._crew is not None
        await self._crew.close()
        await self._chores.finish()
        for live in [*self._running.values(), *self._queue]:
            await asyncio.to_thread(self._store.release, live.job.id)
            live.channel.close()
            live.ended.set()
        await self._chores.close()
        self._running.clear()
        self._queue = Line(self._pace)

    async def submit(self, owner: str, request: JobRequest) -> Job:
        """Queues a job. QueueFull without room, Draining while the server stops, RequestError for an unknown model."""
        if request.model not in self._config.served:
            raise RequestError(f"the model {request.model!r} is not served here")
        self._check_room()  # whom there is no room for need not wait for those who are let in
        async with self._turn:
            self._check_room()
            job = await asyncio.to_thread(self._store.add_job, owner, request)
            self._queue.add(LiveJob.of(job))
        self._tell_positions()
        self._kick.set()
        return job

    def _check_room(self) -> None:
        if self._state != "running":
            raise Draining
        if len(self._queue) >= self._config.queue:
            self._counts["rejected"] += 1
            raise QueueFull(self._pace.retry_after_ms(min((live.left for live in self._running.values()), default=1)))

    async def move(self, job_id: str, before: str | None) -> bool:
        """Puts a queued job before another of its owner's, or behind them all; False where either does not wait."""
        async with self._turn:
            moved = await asyncio.to_thread(self._store.move, job_id, before)
            self._queue.sort(await asyncio.to_thread(self._store.in_state, JobState.QUEUED))
        self._tell_positions()
        return moved

    def place(self, job_id: str) -> dict[str, Any]:
        """Where a job stands in the queue: `position`, 0 is next, and `eta_seconds`; None where that cannot be said."""
        return self._queue.place(job_id)

    async def withdraw(self, job_id: str) -> Job | None:
        """Ends a job if it waits, so that it is certain that it did not begin; None if it does not."""
        async with self._turn:
            live = self._queue.pop(job_id)
            if live is not None:
                await self._end(live)
        self._tell_positions()
        return live and live.job

    async def cancel(self, job_id: str) -> Job | None:
        """Ends a job and waits for that, a step at most; finished slots stay. Gives the job, None where there is none."""
        withdrawn, live = await self.withdraw(job_id), self._running.get(job_id)
        if live is None or self._state == "stopped":  # then it may be back in the queue of the store
            return withdrawn or await asyncio.to_thread(self._store.update, job_id, state=JobState.CANCELLED)
        self._call_back(live)
        await live.ended.wait()
        return live.job

    async def cancel_all(self, owner: str, *, waiting: bool = False) -> list[str]:
        """Ends all jobs of an owner, or, with `waiting`, those in the queue, before one of them can begin; their ids."""
        async with self._turn:
            queued = [live for live in self._queue if live.job.owner == owner]
            running = [live for live in self._running.values() if live.job.owner == owner and not waiting]
            for live in queued:
                self._queue.pop(live.job.id)
            for live in queued:
                await self._end(live)
        self._tell_positions()
        for live in running:
            self._call_back(live)
        for live in running:
            await live.ended.wait()
        return [live.job.id for live in (*running, *queued)]

    async def drop(self, job_id: str, slot: int) -> None:
        """Leaves a picture of a job out for good, the others go on; nothing happens to one that is there already."""
        async with self._turn:  # it is not claimed meanwhile
            live = self._live(job_id)
            if live is None or slot in live.done or not await asyncio.to_thread(self._store.drop_slot, job_id, slot):
                return
            live.drop(slot)
            live.channel.tell("dropped", {"slot": slot})
            if live.whole and self._queue.pop(job_id):
                await self._end(live)
        if slot in live.painting:
            live.painting[slot].cancel(job_id, slot)
        if job_id in self._running:
            self._settle(live)
        self._tell_positions()
        self._kick.set()

    async def subscribe(self, job_id: str, after: int = 0) -> AsyncGenerator[Event]:
        """What happened to a job after that event, as far as it still matters, and then what happens, to its end."""
        live = self._live(job_id)
        if live is not None:
            async for event in live.channel.listen(after):
                yield event
            return
        job = await asyncio.to_thread(self._store.job, job_id)
        if job is None or not job.state.terminal:
            return
        async for event in replay(job).listen():
            yield event

    async def wait(self, job_id: str) -> Job | None:
        """The job once it has ended, None where there is none; Draining if the server stops before."""
        live = self._live(job_id)
        if live is not None:
            await live.ended.wait()
        job = live.job if live is not None else await asyncio.to_thread(self._store.job, job_id)
        if job is not None and not job.state.terminal:
            raise Draining
        return job

    def health(self) -> dict[str, Any]:
        """Whether there is somebody to paint, and counts since the start."""
        ready = self._state == "running" and any(one.room for one in self._workers)
        return {
            "state": "ready" if ready else "starting" if self._state == "running" else self._state,
            "ready": ready,
            "workers": [worker.health() for worker in self._workers],
            "restarts": self._crew.restarts if self._crew else 0,
            "queued": len(self._queue),
            "running": len(self._running),
            "painting": sum(len(one.painting) for one in self._workers),
            "seconds_per_picture": self._pace.seconds or 0.0,
            **self._counts,
        }

    # --- handing out

    @property
    def _workers(self) -> Sequence[Hand]:
        return self._crew.hands if self._crew else []

    async def _hand_out(self) -> None:
        """Gives slots to workers, and claims jobs when there are no more, whenever something has changed."""
        while True:
            await self._kick.wait()
            self._kick.clear()
            try:
                while self._give_slots() or await self._claim():
                    pass
            except sqlite3.Error as error:  # a full disk: the queue waits
                log.error("cannot claim a job: %s", error)
                await asyncio.sleep(1.0)
                self._kick.set()

    def _give_slots(self) -> bool:
        """Whether a slot found a worker."""
        for worker in self._workers:
            found = next_slot(worker, self._running.values())
            if found is not None:
                self._give(worker, *found)
                return True
        return False

    def _give(self, worker: Hand, live: LiveJob, slot: int, alone: bool) -> None:
        if not any(one.painting for one in self._workers):
            self._pace.begin()
        request = live.job.request
        ids = (*request.images, *([request.mask] if request.mask else []))
        files = tuple(str(self._store.path(id) or id) for id in ids)  # a path that is not there is found out by the worker
        live.painting[slot] = worker
        worker.paint(Order(live.job.id, slot, request, self._config.served[request.model], files), alone=alone)

    async def _claim(self) -> bool:
        """Whether a job was taken from the queue, since a worker has room for it."""
        if any(live.again for live in self._running.values()):
            return False
        if not any(worker.takes(alone=False) for worker in self._workers):
            return False
        async with self._turn:
            if not self._queue or self._state != "running":
                return False
            job = await asyncio.to_thread(self._store.claim)
            assert job is not None, "what is queued here is queued in the store"
            live = self._queue.pop(job.id)
            assert live is not None, "what is queued in the store is queued here"
            live.begin(job)
            self._running[job.id] = live
        live.channel.tell("state", {"state": JobState.RUNNING})
        tell_pictures(live.channel, job)
        self._tell_positions()
        if job.request.model not in self._config.served:  # it was, before a restart
            self._fail(live, "model")
        else:
            self._settle(live)
        return True

    # --- what workers say

    def _hear(self, worker: Hand, message: Message) -> None:
        kind, *rest = message
        if kind == "ready":
            self._kick.set()
            return
        job, slot, *told = rest
        live = self._running.get(job)
        if live is None or live.painting.get(slot) is not worker or (slot in live.dropped and kind not in ENDS):
            return
        if kind == "progress":
            stage, step, steps, fraction = told
            self._came_on(live, slot, fraction)
            live.channel.tell("progress", {"slot": slot, "stage": stage, "step": step, "steps": steps, "fraction": fraction})
            self._note_progress(live)
        elif kind == "preview":
            live.channel.tell("preview", {"slot": slot, "png": told[0]})
        else:
            self._answered(live, slot, kind, told)

    def _answered(self, live: LiveJob, slot: int, kind: str, told: list[Any]) -> None:
        del live.painting[slot]
        if kind == "done":
            live.storing += 1
            self._chores.do(self._deliver(live, slot, *told), needed=True)
        elif kind == "lost":
            self._try_again(live, slot, told[0])
        elif kind == "failed" and slot not in live.dropped:
            self._fail(live, *told)
        self._settle(live)
        self._kick.set()

    async def _deliver(self, live: LiveJob, slot: int, png: bytes, settings: dict[str, Any]) -> None:
        job = live.job
        try:
            image, ended = await asyncio.to_thread(self._store.finish_slot, job.id, slot, png, settings)
        except (OSError, sqlite3.Error) as error:
            log.error("cannot store a picture: %s", error)
            self._fail(live, "storage")
        else:
            live.done.add(slot)
            live.job = ended or live.job
            if image is not None:
                self._counts["pictures"] += 1
                self._came_on(live, slot, 1.0)
                tell_picture(live.channel, job, slot, image)
                self._tell_positions()
        finally:
            live.storing -= 1
            self._settle(live)

    # --- ends

    def _try_again(self, live: LiveJob, slot: int, error: str) -> None:
        if live.cancelled or live.error or slot in live.dropped:
            return
        live.tries[slot] += 1
        live.fractions[slot] = 0.0
        if live.tries[slot] < TRIES:
            live.again.append(slot)
        else:
            self._fail(live, error)

    def _fail(self, live: LiveJob, error: str, detail: str | None = None) -> None:
        """The job ends with what is finished; slots on their way are called back."""
        if live.error is None:
            live.error, live.detail = error, detail
        self._let_go(live)
        self._settle(live)

    def _call_back(self, live: LiveJob) -> None:
        """A running job is wanted no more."""
        live.cancelled = True
        self._let_go(live)
        self._settle(live)

    def _let_go(self, live: LiveJob) -> None:
        live.waiting.clear()
        live.again.clear()
        for worker in set(live.painting.values()):
            worker.cancel(live.job.id)

    def _settle(self, live: LiveJob) -> None:
        """Ends a job of which nothing is left to do or on its way."""
        if not live.ending and not live.left and not live.storing:
            self._chores.do(self._end(live), needed=True)

    async def _end(self, live: LiveJob) -> None:
        if live.ending:
            return
        live.ending = True
        live.job = replace(live.job, dropped=tuple(sorted(live.dropped)))
        ends: dict[str, Any] = {"state": JobState.FAILED if live.error else JobState.CANCELLED}
        ends |= {"error": live.error, "detail": live.detail}
        if live.whole:  # a cancel can come too late
            ends = {"state": live.job.whole, "progress": 1.0}
        try:
            if not live.job.state.terminal:  # which its last picture may have made it
                live.job = await asyncio.to_thread(partial(self._store.update, live.job.id, **ends)) or live.job
        except sqlite3.Error as fault:  # a full disk: after a restart it will be taken up again
            log.error("cannot note the end of a job: %s", fault)
            live.job = replace(live.job, **ends)
        self._counts[live.job.state] += 1
        self._running.pop(live.job.id, None)
        tell_end(live.channel, live.job)
        live.ended.set()
        self._kick.set()

    # --- numbers

    def _came_on(self, live: LiveJob, slot: int, fraction: float) -> None:
        self._pace.came_on(max(0.0, fraction - live.fractions.get(slot, 0.0)))
        live.fractions[slot] = fraction

    def _live(self, job_id: str) -> LiveJob | None:
        return self._running.get(job_id) or self._queue.get(job_id)

    def _note_progress(self, live: LiveJob) -> None:
        now = time.monotonic()
        if now - live.noted > NOTE_SECONDS:
            live.noted = now
            self._chores.do(self._note(live.job.id, live.progress), needed=True)
            self._tell_positions()

    async def _note(self, id: str, progress: float) -> None:
        with suppress(sqlite3.Error):  # the next may fit on the disk
            await asyncio.to_thread(self._store.update, id, progress=progress)

    def _tell_positions(self) -> None:
        self._queue.tell(sum(live.work for live in self._running.values()))
