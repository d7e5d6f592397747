"""What the server adds to a picture's own time, what it does when far too many want one, and whether it grows (5, 6, 7)."""

import asyncio

from lib.bench import GENERATIONS, Bench, Row, asked, call, crowd, engine_seconds, paced, probing, quantile
from lib.served import Served, counts, resident
from lib.wire import Answer, Connection

RATE = 50  # requests a second
TOGETHER, QUEUE = 8, 16  # pictures at a time, and jobs that wait, of the server that is overloaded
STEP, STEPS = 0.05, 10  # its seconds a step, steps a picture
EACH = 4  # pictures a job of the soak
_WRONG = ("stub: refuse", "stub: no memory", "stub: die")


async def overhead(bench: Bench) -> list[Row]:
    """50 requests a second for 20 seconds: what an answer takes beyond painting, with urls and with the pictures inside."""
    engine = engine_seconds()
    rows = []
    async with bench.served() as server:
        for form in ("url", "b64_json"):

            async def paint(connection: Connection, number: int, form: str = form) -> Answer:
                return await connection.ask("POST", GENERATIONS, call(seed=number, response_format=form))

            await paced(server.port, paint, rate=RATE, count=bench.times(100, 10))  # warms up
            taken = await paced(server.port, paint, rate=RATE, count=bench.times(1000, 50))
            over = [1000 * (seconds - engine) for _, seconds in taken]
            wrong = sum(answer.status != 200 for answer, _ in taken)
            told = f"{form}, {RATE} requests/s, over the {1000 * engine:.1f} ms of an undisturbed stub"
            for share, most in ((0.5, 8), (0.99, 30)):
                rows.append(Row("5", f"{told}: p{100 * share:.0f}", most, quantile(over, share), "ms"))
            rows.append(Row("5", f"{form}: answers other than 200", 0, wrong))
    return rows


async def overload(bench: Bench) -> list[Row]:
    """Ten times as many requests as it can serve, against as many clients as it has places for, who overload nothing."""

    async def paint(connection: Connection, number: int) -> Answer:
        return await connection.ask("POST", GENERATIONS, call(seed=number))

    async with bench.served(f"stub_step_seconds={STEP}", f"batch={TOGETHER}", f"queue={QUEUE}") as server:
        seconds = bench.times(12, 3)
        calm = await crowd(server.port, paint, clients=TOGETHER + QUEUE, seconds=seconds)
        calm = [answer for answer in calm if answer.status == 200]
        capacity = TOGETHER / (STEP * STEPS)
        stop = asyncio.Event()
        probes = asyncio.create_task(probing(server.port, "/healthz", stop))
        taken = await paced(server.port, paint, rate=10 * capacity, count=int(10 * capacity * seconds))
        stop.set()
        healthz = await probes
    accepted = [seconds for answer, seconds in taken if answer.status == 200]
    refused = [(answer, seconds) for answer, seconds in taken if answer.status == 429]
    usual = quantile([answer.seconds for answer in calm], 0.99)
    most = quantile([seconds for _, seconds in refused], 0.99)
    silent = sum("retry-after-ms" not in answer.headers for answer, _ in refused)
    load = f"{10 * capacity:.0f} requests/s where {capacity:.0f} can be served"
    told = f"p99 of {len(accepted)} accepted, over the {usual:.2f} s without overload"
    return [
        Row("6", f"{load}: p99 of {len(refused)} answers 429", 50, 1000 * most, "ms"),
        Row("6", "429 without retry-after-ms", 0, silent),
        Row("6", "other answers than 200 and 429", 0, len(taken) - len(accepted) - len(refused)),
        Row("6", told, 1.2, quantile(accepted, 0.99) / usual, "x"),
        Row("6", f"p99 of {len(healthz)} /healthz meanwhile", 50, 1000 * quantile(healthz, 0.99), "ms"),
    ]


async def soak(bench: Bench) -> list[Row]:
    """2,000 pictures. Drift is measured over the second half: in the first, workers die and are replaced, as in life."""
    half = bench.times(2000, 80) // 2 // EACH
    async with bench.served() as server:
        states = await _paint(server, half, wrong=True)
        await server.ready()
        states += await _paint(server, bench.times(60, 20))  # the worker of the second half warms up
        before, worker = await _measured(server), server.workers
        states += await _paint(server, half)
        after = await _measured(server)
        assert worker == server.workers, "no worker is replaced in the second half"
        left = len([path for path in server.data.rglob(".*") if path.is_file()])
    assert set(states) == {"done", "failed", "cancelled"}, set(states)
    pictures = EACH * states.count("done")
    rows = []
    for (name, old), new in zip(before.items(), after.values(), strict=True):
        drift = 100 * (new / old - 1) if name.startswith("memory") else new - old
        target, unit = (5, "%") if name.startswith("memory") else (0, "more")
        rows.append(Row("7", f"{name}, growth over half of {pictures} pictures", target, drift, unit))
    return [*rows, Row("7", "temporary files left", 0, left)]


async def _paint(server: Served, jobs: int, *, wrong: bool = False) -> list[str]:
    """The states in which jobs end, four at a time; every tenth is cancelled on its way, every eighth may go wrong."""
    room = asyncio.Semaphore(4)

    async def one(number: int) -> str:
        prompt = _WRONG[number // 8 % 3] if wrong and number % 8 == 7 else "a cat"
        async with room, await Connection.to(server.port) as connection:
            answer = await connection.ask("POST", "/api/jobs", asked(EACH, prompt, seed=number, steps=4))
            id = answer.json()["id"]
            if number % 10 == 9:
                return (await connection.ask("POST", f"/api/jobs/{id}/cancel")).json()["state"]
            async for kind, told in connection.events("GET", f"/api/jobs/{id}/events"):
                if kind == "state" and told["state"] not in ("queued", "running"):
                    return told["state"]
        raise ConnectionError("a job's events ended before it did")

    return await asyncio.gather(*map(one, range(jobs)))


async def _measured(server: Served) -> dict[str, float]:
    await asyncio.sleep(0.5)  # until it has noticed that our connections are closed
    told: dict[str, float] = {}
    for name, pid in (("server", server.pid), ("worker", server.workers[0])):
        threads, files = counts(pid)
        told |= {
            f"memory of the {name}": resident(pid),
            f"threads of the {name}": threads,
            f"open files of the {name}": files,
        }
    return told
