"""What all tests of a served server share: the rows of the table, a server with a folder of its own, load, and times."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.served import Served
from lib.wire import Answer, Connection

from unclip.server.jobs import JobRequest
from unclip.server.painting import encode_png
from unclip.server.stub import Stub

SIDE = 256  # px of the pictures
GENERATIONS = "/v1/images/generations"


@dataclass(frozen=True)
class Row:
    """A line of the table: of which test, what was measured, the most that it may be, and what was seen, in `unit`."""

    test: str
    what: str
    target: float
    seen: float
    unit: str = ""

    @property
    def ok(self) -> bool:
        return self.seen <= self.target


@dataclass
class Bench:
    """`folder` takes the servers' data; `model` is what they serve; `quick`: as little as shows that it runs."""

    folder: Path
    model: str = "stub"
    quick: bool = False
    _servers: list[Served] = field(default_factory=list)

    def served(self, *settings: str, through: Sequence[str] = ()) -> Served:
        """A server with an empty data folder; see Served."""
        more = {"through": through} if through else {}
        self._servers.append(Served(self.folder / f"data-{len(self._servers)}", *settings, model=self.model, **more))
        return self._servers[-1]

    def times(self, usual: int, least: int = 1) -> int:
        """How often something is done."""
        return least if self.quick else usual


def asked(n: int = 1, prompt: str = "a cat", **fields: object) -> dict[str, object]:
    """The body of a job of the page."""
    return {"task": "generate", "prompt": prompt, "n": n, "size": SIDE, **fields}


def call(n: int = 1, prompt: str = "a cat", **fields: object) -> dict[str, object]:
    """The body of a call of the Images API."""
    return {"prompt": prompt, "n": n, "size": f"{SIDE}x{SIDE}", **fields}


def quantile(taken: Sequence[float], share: float) -> float:
    """The smallest value that is not below this share of them."""
    return sorted(taken)[min(len(taken) - 1, int(share * len(taken)))]


def engine_seconds() -> float:
    """What a picture costs whoever does nothing but paint it, one every 20 ms: the stub's and its PNG, the median of 100."""
    taken, never = [], threading.Event()
    for seed in range(100):
        time.sleep(0.02)
        request = JobRequest(task="generate", prompt="a cat", n=1, seed=seed, size=SIDE)
        began = time.perf_counter()
        encode_png(Stub().paint(request, 0, [], lambda *_: None, never).image)
        taken.append(time.perf_counter() - began)
    return quantile(taken, 0.5)


Work = Callable[[Connection, int], Awaitable[Answer]]


async def paced(port: int, work: Work, *, rate: float, count: int) -> list[tuple[Answer, float]]:
    """Begins `work` at so many a second, evenly, whether or not earlier ones have ended: the answers, and seconds of each.

    They are counted from when it was due, so that what keeps us from sending counts against the server.
    """
    idle: list[Connection] = []

    async def one(number: int, due: float) -> tuple[Answer, float]:
        connection = idle.pop() if idle else await Connection.to(port)
        answer = await work(connection, number)
        idle.append(connection)
        return answer, time.perf_counter() - due

    tasks, due = [], time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number, due)))
        due += 1 / rate
    taken = await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return taken


async def crowd(port: int, work: Work, *, clients: int, seconds: float) -> list[Answer]:
    """So many clients, each of which asks again as soon as it is answered."""
    until = time.perf_counter() + seconds

    async def client(first: int) -> list[Answer]:
        answers = []
        async with await Connection.to(port) as connection:
            while time.perf_counter() < until:
                answers.append(await work(connection, first + clients * len(answers)))
        return answers

    return [answer for answers in await asyncio.gather(*map(client, range(clients))) for answer in answers]


async def probing(port: int, path: str, stop: asyncio.Event, every: float = 0.02) -> list[float]:
    """Seconds that each answer to a GET takes until told to stop; ConnectionError when one is not 200."""
    taken = []
    async with await Connection.to(port) as connection:
        while not stop.is_set():
            answer = await connection.ask("GET", path)
            if answer.status != 200:
                raise ConnectionError(f"{path} answered {answer.status}")
            taken.append(answer.seconds)
            await asyncio.sleep(every)
    return taken
