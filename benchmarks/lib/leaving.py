"""Clients that leave and jobs that are stopped: how soon the painting ends, who gets the place, what stays (test 8).

Painting is one at a time, so that the next job's start says when the place was free. All times are the server's own, as its
jobs tell them; it and we share a clock.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

from lib.bench import GENERATIONS, Bench, Row, asked, call
from lib.served import Served, painted
from lib.wire import Connection, request

STUB_STEP = 0.2
SLACK = 0.2  # beyond a step
_TIMES = 5


async def leaving(bench: Bench) -> list[Row]:
    settings = [f"stub_step_seconds={STUB_STEP}"] if bench.model == "stub" else []
    async with bench.served("batch=1", *settings) as server:
        step = STUB_STEP if bench.model == "stub" else await _longest_step(server)
        rows = []
        for name, stop in _WAYS.items():
            taken = [await _stopped(server, stop) for _ in range(bench.times(_TIMES))]
            for what, values in zip(("ends", "its place is taken"), zip(*taken, strict=True), strict=True):
                told = f"{name}, running, the worst of {len(values)}: {what}, a step being {step:.2f} s"
                rows.append(Row("8", told, step + SLACK, max(values), "s"))
        waiting = [await _left_in_the_queue(server) for _ in range(bench.times(_TIMES))]
        rows.append(Row("8", f"the client leaves, queued, the worst of {len(waiting)}: ends", SLACK, max(waiting), "s"))
        rows.append(Row("8", "the client leaves after the first of 3 pictures: finished ones lost", 0, await _lost(server)))
        rows.append(Row("8", "the client leaves when all is done: pictures lost", 0, await _left_at_the_end(server)))
    return rows


async def _longest_step(server: Served) -> float:
    """Seconds of a real model's longest step, from one report to the next, over an undisturbed picture."""
    id = (await server.ask("POST", "/api/jobs", asked(seed=0))).json()["id"]
    await server.ended(id)  # the first of a model is slower
    id, times = (await server.ask("POST", "/api/jobs", asked(seed=1))).json()["id"], []
    async with await Connection.to(server.port) as connection:
        async for kind, told in connection.events("GET", f"/api/jobs/{id}/events"):
            if kind in ("progress", "image"):
                times.append(time.perf_counter())
            elif kind == "state" and told["state"] == "done":
                break
    return max(late - early for early, late in pairwise(times))


async def _newest(server: Served) -> dict[str, Any]:
    return (await server.ask("GET", "/api/jobs?limit=1")).json()["jobs"][0]


# --- what ends a running job: each begins one, and gives its id and how to end it

Ending = Callable[[], Awaitable[None]]


async def _call(server: Served, body: dict[str, object]) -> tuple[str, Ending]:
    """A call of the Images API, and its client leaving."""
    before = await server.ask("GET", "/api/jobs?limit=1")
    connection = await Connection.to(server.port)
    connection.writer.write(request("POST", GENERATIONS, body))
    while (await server.ask("GET", "/api/jobs?limit=1")).json() == before.json():
        await asyncio.sleep(0.005)

    async def leave() -> None:
        connection.close()

    return (await _newest(server))["id"], leave


async def _plain_call(server: Served) -> tuple[str, Ending]:
    return await _call(server, call(2))


async def _streamed_call(server: Served) -> tuple[str, Ending]:
    return await _call(server, call(2, stream=True, partial_images=1))


async def _pages_job(server: Served, how: str, path: str) -> tuple[str, Ending]:
    id = (await server.ask("POST", "/api/jobs", asked(2))).json()["id"]

    async def stop() -> None:
        await server.ask(how, path.format(id))

    return id, stop


_WAYS: dict[str, Callable[[Served], Awaitable[tuple[str, Ending]]]] = {
    "the client leaves": _plain_call,
    "the client leaves a stream": _streamed_call,
    "cancel": lambda server: _pages_job(server, "POST", "/api/jobs/{}/cancel"),
    "DELETE": lambda server: _pages_job(server, "DELETE", "/api/jobs/{}"),
}


# --- what comes of it


async def _stopped(server: Served, begin: Callable[[Served], Awaitable[tuple[str, Ending]]]) -> tuple[float, float]:
    """Seconds from the end of somebody's interest to the end of the job, and to the start of the next."""
    id, stop = await begin(server)
    await painted(server, id)
    following = (await server.ask("POST", "/api/jobs", asked(steps=1))).json()["id"]
    left = time.time()
    await stop()
    over = time.time()  # of a DELETE, after which there is no job to ask
    following = await server.ended(following)
    job = await server.job(id)
    ended = over if "error" in job and "state" not in job else job["finished"]
    assert job.get("state", "cancelled") == "cancelled", job
    return ended - left, following["started"] - left


async def _left_in_the_queue(server: Served) -> float:
    ahead = (await server.ask("POST", "/api/jobs", asked(2))).json()["id"]
    await painted(server, ahead)
    id, leave = await _plain_call(server)
    left = time.time()
    await leave()
    job = await server.ended(id)
    assert (job["state"], job["started"]) == ("cancelled", None), job
    await server.ask("POST", f"/api/jobs/{ahead}/cancel")
    return job["finished"] - left


async def _lost(server: Served) -> int:
    """Pictures that a stream gave, or that were stored before its client left, and are no longer there."""
    came = 0
    async with await Connection.to(server.port) as connection:
        with suppress(asyncio.CancelledError):
            async for kind, _ in connection.events("POST", GENERATIONS, call(3, stream=True)):
                came += kind.endswith("completed")
                if came:
                    break
    job = await server.ended((await _newest(server))["id"])
    assert job["state"] == "cancelled", job
    return came - await _readable(server, job)


async def _left_at_the_end(server: Served) -> int:
    """A client that leaves with its answer unread."""
    id, leave = await _call(server, call(1, response_format="b64_json", num_inference_steps=2))
    await server.ended(id)
    await leave()
    return 1 - await _readable(server, await server.job(id))


async def _readable(server: Served, job: dict[str, Any]) -> int:
    answers = [await server.ask("GET", f"/api/images/{image}") for image in job["images"] if image]
    return sum(answer.body.startswith(b"\x89PNG") for answer in answers)
