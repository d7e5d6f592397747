"""A job that has not ended, as the engine has it; and how fast pictures come."""

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from unclip.server.events import Channel
from unclip.server.jobs import Job
from unclip.server.process import WorkerProcess

RETRY_MS = (250, 60_000)  # what is told to those for whom there is no room
_RECENT = 32  # pictures whose pace counts
_PAUSE = 60.0  # seconds without a picture that say nothing of the pace


@dataclass(eq=False)
class LiveJob:
    """Slots move from `waiting`, or `again`, to a worker (`painting`), to the store (`storing`), to `done`."""

    job: Job
    channel: Channel
    waiting: deque[int] = field(default_factory=deque)
    again: deque[int] = field(default_factory=deque)
    painting: dict[int, WorkerProcess] = field(default_factory=dict)
    storing: int = 0
    done: set[int] = field(default_factory=set)
    tries: Counter[int] = field(default_factory=Counter)
    fractions: dict[int, float] = field(default_factory=dict)
    noted: float = 0.0  # when its progress went to the store
    position: int | None = None  # in the queue, as last told
    cancelled: bool = False
    error: str | None = None
    ending: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def left(self) -> int:
        """Slots that are still to be painted."""
        return len(self.waiting) + len(self.again) + len(self.painting)

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return round(sum(self.fractions.values()) / self.job.request.slots, 3)


class Pace:
    """Seconds a picture, of late."""

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_RECENT)
        self._last = 0.0

    def picture(self) -> None:
        """One is done."""
        now = time.monotonic()
        if now - self._last < _PAUSE:
            self._intervals.append(now - self._last)
        self._last = now

    @property
    def seconds(self) -> float | None:
        """None before there were any."""
        return sum(self._intervals) / len(self._intervals) if self._intervals else None

    def retry_after_ms(self, left: int) -> int:
        """When so many pictures should be done, within reason."""
        low, high = RETRY_MS
        return round(min(max(1000 * left * (self.seconds or 1.0), low), high))
