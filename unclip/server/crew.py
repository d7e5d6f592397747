"""Who paints slots, as the engine sees them: processes on this machine (process.py), or replicas on a cluster (cluster.py).

What is heard of them are tuples. For each order, in this order:

    ("progress", job, slot, stage, step, steps, fraction)   ("preview", job, slot, png in base64)
    and once, as the last, one of
    ("done", job, slot, png, settings)      ("cancelled", job, slot)
    ("failed", job, slot, error, detail or None)
    ("lost", job, slot, error): whoever painted it is no more; it can be tried once more, by another

and ("ready",) whenever there is room, or more of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unclip.server.config import ServerConfig
from unclip.server.jobs import JobRequest

Message = tuple[Any, ...]

ENDS = ("done", "failed", "cancelled", "lost")
"""The kinds of messages after which nothing more is heard of an order."""


@dataclass(frozen=True)
class Order:
    """A slot to paint. `files`: the paths of the request's images, then of its mask; `where`: which model."""

    job: str
    slot: int
    request: JobRequest
    where: str
    files: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.job, self.slot


class Hand(Protocol):
    """Takes orders. `painting`: those that it has not answered; an answer takes its order out before it is heard of.

    `room` is how many it takes at once, 0 while it takes none.
    """

    room: int
    painting: dict[tuple[str, int], Order]

    def takes(self, *, alone: bool) -> bool:
        """Whether it takes another order now; `alone`: one that has ended somebody before, and gets nobody beside it."""
        ...

    def paint(self, order: Order, *, alone: bool) -> None: ...

    def cancel(self, job: str, slot: int | None = None) -> None:
        """Has it leave off what it paints of a job, or one slot of it; it answers for each slot."""
        ...

    def health(self) -> dict[str, Any]:
        """What can be said of it: whether it is `ready`, how many slots it is `painting`, and more."""
        ...


Hear = Callable[[Hand, Message], None]


class Crew(Protocol):
    """All hands, and their keeper. It belongs to the event loop in which it is opened, and tells what it hears in it."""

    restarts: int
    """Processes that ended unasked, as far as that was noticed."""

    @property
    def hands(self) -> Sequence[Hand]: ...

    async def open(self) -> None:
        """Starts whatever has to be started, which gets ready in its own time; ConfigError for what cannot be."""
        ...

    async def close(self) -> None:
        """Ends them all; nothing is heard of them from then on."""
        ...


def hire(config: ServerConfig, hear: Hear) -> Crew:
    """The crew that the config asks for. ConfigError where replicas are asked for and Ray is not installed."""
    if config.replicas is None:
        from unclip.server.process import Processes

        return Processes(config, hear)
    from unclip.server.cluster import Cluster

    return Cluster(config, hear)
