"""What is told of running jobs, to everybody who listens and at everybody's own pace.

A channel keeps the newest event of each kind and slot. A listener is told whatever is newer than what he was told last, so
catching up after a reload and listening live are the same thing, and a slow listener misses steps, never ends: nothing
queues up for him.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Hashable
from typing import Any

from unclip.server.jobs import Event, EventKind, Job, JobState


class Channel:
    """The events of one job. Only the event loop's thread may touch it."""

    def __init__(self, job: str):
        self.job = job
        self._last = 0
        self._newest: OrderedDict[Hashable, Event] = OrderedDict()
        self._news = asyncio.Event()
        self._ended = False

    def tell(self, kind: EventKind, data: dict[str, Any]) -> Event:
        """Adds an event; a state that is terminal is the last."""
        # By the clock, so that ids rise over a restart of the server too.
        self._last = max(self._last + 1, int(time.time() * 1000))
        event = Event(self._last, self.job, kind, data)
        key = (kind, data.get("slot"))
        self._newest.pop(key, None)
        self._newest[key] = event
        if kind in ("image", "dropped"):  # the picture itself is there, or will never be
            self._newest.pop(("preview", data["slot"]), None)
        self._ended |= kind == "state" and JobState(data["state"]).terminal  # a closed one stays so
        self._news.set()
        self._news = asyncio.Event()
        return event

    def close(self) -> None:
        """Lets all listeners go: the server stops, the job does not end here."""
        self._ended = True
        self._news.set()

    async def listen(self, after: int = 0) -> AsyncGenerator[Event]:
        """What is newer than event `after`, in order, to the end of the job."""
        while True:
            news = self._news
            for event in [event for event in self._newest.values() if event.id > after]:
                after = event.id
                yield event
            if self._ended and self._last <= after:
                return
            if news is self._news:
                await news.wait()


def tell_pictures(channel: Channel, job: Job) -> None:
    """Adds the pictures that a job has."""
    for slot, image in enumerate(job.images):
        if image is not None:
            tell_picture(channel, job, slot, image)


def tell_picture(channel: Channel, job: Job, slot: int, image: str) -> None:
    channel.tell("image", {"slot": slot, "image": image, "seed": job.request.seed_of(slot)})


def tell_end(channel: Channel, job: Job) -> None:
    """Adds the state that a job has ended in."""
    failure = {"error": job.error, "detail": job.detail}
    channel.tell("state", {"state": job.state, **{key: value for key, value in failure.items() if value}})


def replay(job: Job) -> Channel:
    """What a job that has ended would have been heard to say."""
    channel = Channel(job.id)
    tell_pictures(channel, job)
    tell_end(channel, job)
    return channel
