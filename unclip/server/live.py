"""The jobs that have not ended, as the engine has them: what is left of each, the queue, and how fast pictures come."""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from unclip.server.crew import Hand
from unclip.server.events import Channel
from unclip.server.jobs import Job, JobState
from unclip.server.store import Store

log = logging.getLogger(__name__)

RETRY_MS = (250, 60_000)  # what is told to those for whom there is no room
ETA_SECONDS = 5.0  # between two estimates that a queued job is told without having moved
_RECENT = 60.0  # seconds of work after which what was before counts a third


@dataclass(eq=False)
class LiveJob:
    """Slots move from `waiting`, or `again`, to a worker (`painting`), to the store (`storing`), to `done`.

    A slot that is dropped is done at once, wherever it was.
    """

    job: Job
    channel: Channel
    waiting: deque[int] = field(default_factory=deque)
    again: deque[int] = field(default_factory=deque)
    painting: dict[int, Hand] = field(default_factory=dict)
    storing: int = 0
    done: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    tries: Counter[int] = field(default_factory=Counter)
    fractions: dict[int, float] = field(default_factory=dict)
    noted: float = 0.0  # when its progress went to the store
    cancelled: bool = False
    error: str | None = None
    detail: str | None = None
    ending: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, job: Job, done: Collection[int] = ()) -> "LiveJob":
        """A queued job, of which some slots may be done."""
        live = cls(job, Channel(job.id), done=set(done), dropped=set(job.dropped))
        live.fractions.update(dict.fromkeys(done, 1.0))
        return live

    def begin(self, job: Job) -> None:
        """It was claimed, and is `job` now."""
        self.job, self.noted = job, time.monotonic()
        self.waiting.extend(slot for slot in range(job.request.slots) if slot not in self.done)

    def drop(self, slot: int) -> None:
        """A slot is wanted no more. The worker that paints it, if one does, still has to be told."""
        self.done.add(slot)
        self.dropped.add(slot)
        self.fractions[slot] = 1.0
        for slots in (self.waiting, self.again):
            if slot in slots:
                slots.remove(slot)

    @property
    def left(self) -> int:
        """Slots of a claimed job that are still to be painted."""
        return len(self.waiting) + len(self.again) + len(self.painting)

    @property
    def whole(self) -> bool:
        """Whether all its slots have ended."""
        return len(self.done) == self.job.request.slots

    @property
    def work(self) -> float:
        """What is still to be done, in pictures."""
        return self.job.request.slots - sum(self.fractions.values())

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return round(1 - self.work / self.job.request.slots, 3)


def recovered(store: Store) -> list[LiveJob]:
    """The jobs that an earlier server left, in the queue's order."""
    for job in store.recover():
        log.info("job %s was interrupted: now %s", job.id, job.state)
    jobs = [store.job(id) for id in store.in_state(JobState.QUEUED)]
    return [LiveJob.of(job, store.slots_done(job.id)) for job in jobs if job is not None]


def next_slot(worker: Hand, running: Iterable[LiveJob]) -> tuple[LiveJob, int, bool] | None:
    """What a worker is to paint next, and whether it has to be alone with it; None: nothing, or not yet."""
    again = next((live for live in running if live.again), None)
    if not worker.takes(alone=again is not None):
        return None  # where something is to be tried again, it empties, so that this soon has it alone
    if again is not None:
        return again, again.again.popleft(), True
    live = next((live for live in running if live.waiting), None)
    return None if live is None else (live, live.waiting.popleft(), False)


class Pace:
    """Seconds a picture, of late; the time when there was nothing to paint does not count.

    Parts of pictures count too, so that it soon knows of a job that takes longer than those before it.
    """

    def __init__(self) -> None:
        self._work = self._spent = self._last = 0.0

    def begin(self) -> None:
        """There is something to paint after a rest."""
        self._last = time.monotonic()

    def came_on(self, work: float) -> None:
        """So much of a picture was painted, or so many."""
        now = time.monotonic()
        spent, self._last = now - self._last, now
        kept = math.exp(-spent / _RECENT)
        self._work, self._spent = kept * self._work + work, kept * self._spent + spent

    @property
    def seconds(self) -> float | None:
        """None before there were any."""
        return self._spent / self._work if self._work > 0 else None

    def retry_after_ms(self, left: int) -> int:
        """When so many pictures should be done, within reason."""
        low, high = RETRY_MS
        return round(min(max(1000 * left * (self.seconds or 1.0), low), high))


class Line:
    """The jobs that wait, the next to run first. Each is told where it stands and when it should be done."""

    def __init__(self, pace: Pace):
        self._pace = pace
        self._jobs: dict[str, LiveJob] = {}
        self._told: dict[str, tuple[int, float]] = {}  # the position, and when
        self._places: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[LiveJob]:
        return iter([*self._jobs.values()])

    def get(self, id: str) -> LiveJob | None:
        return self._jobs.get(id)

    def add(self, live: LiveJob) -> None:
        """At the end."""
        self._jobs[live.job.id] = live

    def pop(self, id: str) -> LiveJob | None:
        """Takes a job out, if it is there."""
        self._told.pop(id, None)
        self._places.pop(id, None)
        return self._jobs.pop(id, None)

    def sort(self, order: Iterable[str]) -> None:
        """Puts them in the order of these ids, which are all of them."""
        self._jobs = {id: self._jobs[id] for id in order if id in self._jobs}

    def place(self, id: str) -> dict[str, Any]:
        """`position` and `eta_seconds` of a job as it was last told; both None where it does not wait, or nobody knows."""
        return {"position": None, "eta_seconds": None, **self._places.get(id, {})}

    def tell(self, ahead: float) -> None:
        """Tells those whose place is another, or whose estimate is old. `ahead`: pictures that are still painted before."""
        pace, now = self._pace.seconds, time.monotonic()
        for position, (id, live) in enumerate(self._jobs.items()):
            ahead += live.work
            place = {"position": position} | ({} if pace is None else {"eta_seconds": round(pace * ahead, 1)})
            before, when = self._told.get(id, (None, 0.0))
            if position == before and (place == self._places[id] or now - when < ETA_SECONDS):
                continue
            self._places[id], self._told[id] = place, (position, now)
            live.channel.tell("state", {"state": JobState.QUEUED, **place})
