"""The asyncio side of painting: takes queued jobs, has workers paint their slots, tells what happens, cancels, supervises.

The store owns the truth, and the engine alone changes jobs. Slots are handed out in the order in which their jobs came, as
many at a time as a worker takes. A worker that dies, or is silent, is replaced; its slots are tried once more, each alone in
its worker, so that one that kills workers takes none of the others with it. A picture is stored before it is told of, and a
slot that has one takes no other: however often it was painted, it is delivered once.

Everything here runs in one event loop; only the store's work is sent to threads.
"""

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any

from unclip.errors import RequestError
from unclip.server.config import ServerConfig
from unclip.server.events import Channel
from unclip.server.jobs import Draining, Event, Job, JobRequest, JobState, QueueFull
from unclip.server.live import LiveJob, Pace
from unclip.server.process import Crew, WorkerProcess
from unclip.server.store import Store
from unclip.server.worker import Order

log = logging.getLogger(__name__)

TRIES = 2  # of a slot whose worker dies
STORING = "storing"  # the name of tasks that have something for the store
NOTE_SECONDS = 1.0  # between two notes of a job's progress in the store


class Engine:
    """Call `start` once, from the event loop in which everything else is called; `stop` ends it."""

    def __init__(self, config: ServerConfig, store: Store):
        self._config, self._store = config, store
        self._queue: dict[str, LiveJob] = {}  # oldest first
        self._running: dict[str, LiveJob] = {}
        self._crew: Crew | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._state = "stopped"
        self._counts: Counter[str] = Counter(dict.fromkeys(("pictures", "done", "failed", "cancelled", "rejected"), 0))
        self._pace = Pace()
        self._kick, self._turn = asyncio.Event(), asyncio.Lock()

    async def start(self) -> None:
        """Takes up what an earlier server left, and starts the workers, which load their model in their own time."""
        assert self._state == "stopped"
        self._state = "running"
        for job in await asyncio.to_thread(self._recovered):
            self._queue[job.id] = LiveJob(job, Channel(job.id))
        self._tell_positions()
        self._crew = Crew(self._config, self._hear, self._lost)
        self._do(self._hand_out())

    def _recovered(self) -> list[Job]:
        for job in self._store.recover():
            log.info("job %s was interrupted: now %s", job.id, job.state)
        jobs = [self._store.job(id) for id in self._store.in_state(JobState.QUEUED)]
        return [job for job in jobs if job is not None]

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
        while storing := [task for task in self._tasks if task.get_name() == STORING]:
            await asyncio.wait(storing)
        for live in [*self._running.values(), *self._queue.values()]:
            await asyncio.to_thread(self._store.release, live.job.id)
            live.channel.close()
            live.ended.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._running.clear()
        self._queue.clear()

    async def submit(self, owner: str, request: JobRequest) -> Job:
        """Queues a job. QueueFull without room, Draining while the server stops, RequestError for an unknown model."""
        if request.model not in self._config.served:
            raise RequestError(f"the model {request.model!r} is not served here")
        async with self._turn:
            if self._state != "running":
                raise Draining
            if len(self._queue) >= self._config.queue:
                self._counts["rejected"] += 1
                raise QueueFull(self._pace.retry_after_ms(min((live.left for live in self._running.values()), default=1)))
            job = await asyncio.to_thread(self._store.add_job, owner, request)
            self._queue[job.id] = LiveJob(job, Channel(job.id))
        self._tell_positions()
        self._kick.set()
        return job

    async def cancel(self, job_id: str) -> Job | None:
        """Ends a job and waits for that, a step at most; finished slots stay. Gives the job, None where there is none."""
        async with self._turn:
            live = self._queue.pop(job_id, None)
            if live is not None:
                live.cancelled = True
                await self._end(live)
                self._tell_positions()
        live = live or self._running.get(job_id)
        if live is None:
            return await asyncio.to_thread(self._store.job, job_id)
        self._let_go(live)
        live.cancelled = True
        self._settle(live)
        await live.ended.wait()
        return live.job

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
        channel = Channel(job_id)
        for slot, image in enumerate(job.images):
            if image is not None:
                channel.tell("image", _picture(job, slot, image))
        channel.tell("state", _ended(job))
        async for event in channel.listen():
            yield event

    async def wait(self, job_id: str) -> Job | None:
        """The job once it has ended, None where there is none; Draining if the server stops before."""
        async for event in self.subscribe(job_id):
            if event.kind == "state" and JobState(event.data["state"]).terminal:
                break
        job = await asyncio.to_thread(self._store.job, job_id)
        if job is not None and not job.state.terminal:
            raise Draining
        return job

    def health(self) -> dict[str, Any]:
        """Whether there is somebody to paint, and counts since the start."""
        workers = [
            {"pid": one.pid, "ready": one.room > 0, "painting": len(one.painting), "silent": round(one.silent, 2)}
            for one in self._workers
        ]
        ready = self._state == "running" and any(one.room for one in self._workers)
        return {
            "state": "ready" if ready else "starting" if self._state == "running" else self._state,
            "ready": ready,
            "workers": workers,
            "restarts": self._crew.restarts if self._crew else 0,
            "queued": len(self._queue),
            "running": len(self._running),
            "painting": sum(len(one.painting) for one in self._workers),
            "seconds_per_picture": self._pace.seconds or 0.0,
            **self._counts,
        }

    # --- handing out

    @property
    def _workers(self) -> list[WorkerProcess]:
        return self._crew.workers if self._crew else []

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
            again = next((live for live in self._running.values() if live.again), None)
            if worker.room and not worker.painting and again is not None:
                self._give(worker, again, again.again.popleft(), alone=True)
                return True
            if again is not None or worker.alone or len(worker.painting) >= worker.room:
                continue  # it empties, so that what is tried again soon has it alone
            live = next((live for live in self._running.values() if live.waiting), None)
            if live is not None:
                self._give(worker, live, live.waiting.popleft(), alone=False)
                return True
        return False

    def _give(self, worker: WorkerProcess, live: LiveJob, slot: int, *, alone: bool) -> None:
        request = live.job.request
        ids = (*request.images, *([request.mask] if request.mask else []))
        files = tuple(str(self._store.path(id) or id) for id in ids)  # a path that is not there is found out by the worker
        live.painting[slot] = worker
        worker.paint(Order(live.job.id, slot, request, self._config.served[request.model], files), alone=alone)

    async def _claim(self) -> bool:
        """Whether a job was taken from the queue, since a worker has room for it."""
        if any(live.again for live in self._running.values()):
            return False
        if not any(not worker.alone and len(worker.painting) < worker.room for worker in self._workers):
            return False
        async with self._turn:
            if not self._queue or self._state != "running":
                return False
            job = await asyncio.to_thread(self._store.claim)
            assert job is not None, "what is queued here is queued in the store"
            live = self._queue.pop(job.id)
            done = await asyncio.to_thread(self._store.slots_done, job.id)
            live.job, live.done, live.fractions = job, done, dict.fromkeys(done, 1.0)
            live.waiting.extend(slot for slot in range(job.request.slots) if slot not in done)
            self._running[job.id] = live
        live.channel.tell("state", {"state": JobState.RUNNING})
        for slot, image in enumerate(job.images):
            if image is not None:
                live.channel.tell("image", _picture(job, slot, image))
        self._tell_positions()
        if job.request.model not in self._config.served:  # it was, before a restart
            self._fail(live, "model")
        else:
            self._settle(live)
        return True

    # --- what workers say

    def _hear(self, worker: WorkerProcess, message: tuple[Any, ...]) -> None:
        kind, *rest = message
        if kind == "ready":
            worker.room, worker.served = rest[0], True
            self._kick.set()
            return
        job, slot, *told = rest
        live = self._running.get(job)
        if live is None or live.painting.get(slot) is not worker:
            return
        if kind == "progress":
            stage, step, steps, fraction = told
            live.fractions[slot] = fraction
            live.channel.tell("progress", {"slot": slot, "stage": stage, "step": step, "steps": steps, "fraction": fraction})
            self._note_progress(live)
        elif kind == "preview":
            live.channel.tell("preview", {"slot": slot, "png": told[0]})
        else:
            self._answered(worker, live, slot, kind, told)

    def _answered(self, worker: WorkerProcess, live: LiveJob, slot: int, kind: str, told: list[Any]) -> None:
        del worker.painting[live.job.id, slot], live.painting[slot]
        worker.alone = False
        if kind == "done":
            live.storing += 1
            self._do(self._deliver(live, slot, *told), name=STORING)
        elif kind == "failed" and told[0] == "out_of_memory":
            worker.room = 0  # it is about to go
            self._try_again(live, slot, "out_of_memory")
        elif kind == "failed":
            self._fail(live, told[0])
        self._settle(live)
        self._kick.set()

    async def _deliver(self, live: LiveJob, slot: int, png: bytes, settings: dict[str, Any]) -> None:
        job = live.job
        try:
            image = await asyncio.to_thread(self._store.finish_slot, job.id, slot, png, settings)
        except (OSError, sqlite3.Error) as error:
            log.error("cannot store a picture: %s", error)
            self._fail(live, "storage")
        else:
            live.done.add(slot)
            if image is not None:
                self._counts["pictures"] += 1
                live.fractions[slot] = 1.0
                self._pace.picture()
                live.channel.tell("image", _picture(job, slot, image))
        finally:
            live.storing -= 1
            self._settle(live)

    def _lost(self, worker: WorkerProcess) -> None:
        """A worker's process has ended."""
        for job, slot in worker.painting:
            live = self._running.get(job)
            if live is not None and live.painting.pop(slot, None) is not None:
                self._try_again(live, slot, "worker_died")
                self._settle(live)
        self._kick.set()

    # --- ends

    def _try_again(self, live: LiveJob, slot: int, error: str) -> None:
        live.tries[slot] += 1
        live.fractions[slot] = 0.0
        if live.cancelled or live.error:
            return
        if live.tries[slot] < TRIES:
            live.again.append(slot)
        else:
            self._fail(live, error)

    def _fail(self, live: LiveJob, error: str) -> None:
        """The job ends with what is finished; slots on their way are called back."""
        live.error = live.error or error
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
            self._do(self._end(live), name=STORING)

    async def _end(self, live: LiveJob) -> None:
        if live.ending:
            return
        live.ending = True
        whole = len(live.done) == live.job.request.slots  # a cancel can come too late
        state = JobState.DONE if whole else JobState.FAILED if live.error else JobState.CANCELLED
        id, error, progress = live.job.id, None if whole else live.error, 1.0 if whole else None
        try:
            job = await asyncio.to_thread(self._store.update, id, state=state, error=error, progress=progress)
            live.job = job or live.job
        except sqlite3.Error as fault:  # a full disk: after a restart it will be taken up again
            log.error("cannot note the end of a job: %s", fault)
        self._counts[state] += 1
        self._running.pop(id, None)
        live.channel.tell("state", {"state": state, **({"error": error} if error else {})})
        live.ended.set()
        self._kick.set()

    # --- numbers

    def _live(self, job_id: str) -> LiveJob | None:
        return self._running.get(job_id) or self._queue.get(job_id)

    def _note_progress(self, live: LiveJob) -> None:
        now = time.monotonic()
        if now - live.noted > NOTE_SECONDS:
            live.noted = now
            self._do(self._note(live.job.id, live.progress), name=STORING)

    async def _note(self, id: str, progress: float) -> None:
        with suppress(sqlite3.Error):  # the next may fit on the disk
            await asyncio.to_thread(self._store.update, id, progress=progress)

    def _tell_positions(self) -> None:
        """Tells those whose place in the queue has changed."""
        pace, ahead = self._pace.seconds, sum(live.left for live in self._running.values())
        for position, live in enumerate(self._queue.values()):
            ahead += live.job.request.slots
            if live.position != position:
                live.position = position
                eta = {} if pace is None else {"eta_seconds": round(pace * ahead, 1)}
                live.channel.tell("state", {"state": JobState.QUEUED, "position": position, **eta})

    def _do(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the engine stumbled", exc_info=task.exception())


def _picture(job: Job, slot: int, image: str) -> dict[str, Any]:
    return {"slot": slot, "image": image, "seed": job.request.seed_of(slot)}


def _ended(job: Job) -> dict[str, Any]:
    return {"state": job.state, **({"error": job.error} if job.error else {})}
