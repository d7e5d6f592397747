"""Processes that are killed, stand still or run out of memory, workers (test 9) and the server itself (test 10)."""

import asyncio
import signal
import time
from collections import Counter

from lib.bench import Bench, Row, asked, probing, quantile
from lib.served import Served, gone, painted, send
from lib.wire import Connection

BACK, RESUMED = 5.0, 3.0  # seconds
HEARTBEAT = 1.0  # of the server whose workers stand still; a step that does not end is given ten
_FAULTS = {
    "kill -9": ("a cat", signal.SIGKILL),
    "it stands still": ("a cat", signal.SIGSTOP),
    "a step never ends": ("stub: hang", None),
    "out of memory": ("stub: no memory", None),
}


async def workers(bench: Bench) -> list[Row]:
    """The worker of a running job is lost: who else notices, how soon there is another, what becomes of the job."""
    rows = []
    for name, (prompt, blow) in _FAULTS.items():
        heartbeat = HEARTBEAT if prompt != "stub: hang" else HEARTBEAT / 4
        step = 0.05 if blow else 0.0
        async with bench.served(f"heartbeat_seconds={heartbeat}", f"stub_step_seconds={step}") as server:
            rows += await _lost(server, name, prompt, blow)
    return rows


async def model_workers(bench: Bench) -> list[Row]:
    """The same where a model has to be loaded again."""
    async with bench.served("heartbeat_seconds=10") as server:
        await server.ended((await server.ask("POST", "/api/jobs", asked(steps=2))).json()["id"])
        return await _lost(server, "kill -9", "a cat", signal.SIGKILL)


async def _lost(server: Served, name: str, prompt: str, blow: signal.Signals | None) -> list[Row]:
    worker, stop = server.workers[0], asyncio.Event()
    probes = asyncio.create_task(probing(server.port, "/healthz", stop))
    id = (await server.ask("POST", "/api/jobs", asked(4, prompt, seed=1))).json()["id"]
    watching = asyncio.create_task(_pictures(server, id))
    other = (await server.ask("POST", "/api/jobs", asked(2, seed=9))).json()["id"]
    if blow:
        async with asyncio.timeout(60):
            while (await server.job(id))["state"] != "running":
                await asyncio.sleep(0.005)
        send(worker, blow)
    await gone(worker, within=60)
    began = time.monotonic()
    await server.ready()
    back = time.monotonic() - began
    assert worker not in server.workers
    job, following = await server.ended(id), await server.ended(other)
    stop.set()
    most = 1000 * quantile(await probes, 0.99)
    told = await watching
    kept = [image for image in job["images"] if image]
    twice = sum(count - 1 for count in told.values()) + len(kept) - len(set(kept))
    wrong = (job["state"] != ("done" if blow else "failed")) + (following["state"] != "done")
    return [
        Row("9", f"{name}: until another paints", BACK, back, "s"),
        Row("9", f"{name}: p99 of /healthz meanwhile", 50, most, "ms"),
        Row("9", f"{name}: of two jobs, ended otherwise than they should", 0, wrong),
        Row("9", f"{name}: pictures delivered twice", 0, twice),
    ]


async def _pictures(server: Served, id: str) -> Counter[int]:
    """How often each slot's picture is told of, to the end of the job."""
    told: Counter[int] = Counter()
    async with await Connection.to(server.port) as connection:
        async for kind, data in connection.events("GET", f"/api/jobs/{id}/events"):
            if kind == "image":
                told[data["slot"]] += 1
            elif kind == "state" and data["state"] not in ("queued", "running"):
                break
    return told


async def servers(bench: Bench) -> list[Row]:
    """The server is killed with a job done, one running and two that wait, at different moments of the running one."""
    answering, painting, wrong, left = [], [], 0, 0
    for pause in (0.05, 0.3, 0.55)[: bench.times(3)]:
        server = bench.served("stub_step_seconds=0.1", "batch=1")
        await server.start()
        await server.ready()
        done = await server.ended((await server.ask("POST", "/api/jobs", asked(steps=1))).json()["id"])
        queued = [(await server.ask("POST", "/api/jobs", asked(2, seed=seed))).json()["id"] for seed in range(3)]
        picture = (await server.ask("GET", f"/api/images/{done['images'][0]}")).body
        while (await server.job(queued[0]))["state"] != "running":
            await asyncio.sleep(0.005)
        await asyncio.sleep(pause)
        worker = server.workers[0]
        server.kill()
        left += await _outlives(worker)
        began = time.monotonic()
        await server.start()
        answering.append(time.monotonic() - began)
        await painted(server, queued[0])
        painting.append(time.monotonic() - began)
        ended = [await server.ended(id) for id in queued]
        wrong += await server.job(done["id"]) != done
        wrong += (await server.ask("GET", f"/api/images/{done['images'][0]}")).body != picture
        wrong += sum(job["state"] != "done" or len(set(job["images"]) - {None}) != 2 for job in ended)
        wrong += [job["finished"] for job in ended] != sorted(job["finished"] for job in ended)
        server.stop()
    times = f"the worst of {len(answering)}"
    return [
        Row("10", f"kill -9, from a new server's start until it answers, {times}", RESUMED, max(answering), "s"),
        Row("10", f"until the interrupted job is painted again, {times}", RESUMED, max(painting), "s"),
        Row("10", "jobs and pictures that were lost, changed or out of order", 0, wrong),
        Row("10", "workers that outlive their server", 0, left),
    ]


async def _outlives(worker: int) -> bool:
    try:
        await gone(worker, within=5)
    except TimeoutError:
        return True
    return False
