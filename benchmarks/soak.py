"""Whether a server grows: many jobs through the engine with the stub, and what of memory, threads, files is left behind.

In the first half some jobs are refused or take their worker down, as in life; all the way some are cancelled. A worker that
is replaced begins anew, so drift is measured over the second half, after a warm-up: of resident memory, relative, for the
server's process and its worker's, and of threads and open files, in numbers.

    python benchmarks/soak.py [--pictures 500] [--quick]
"""

import argparse
import asyncio
import os
import tempfile
import threading
from pathlib import Path

from lib.measure import Result, print_results

from unclip.server.config import ServerConfig
from unclip.server.engine import Engine
from unclip.server.jobs import JobRequest, JobState
from unclip.server.store import Store

PAGE = os.sysconf("SC_PAGE_SIZE")
EACH = 4  # pictures a job


def main() -> None:
    parser = argparse.ArgumentParser(description="Drift over many generations with the stub.")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="60 pictures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(soak(Path(folder), 60 if args.quick else args.pictures))
    for result in results:
        print(f"{result.ours:10.2f} {result.unit:8s} {result.what}")
    print_results("soak", results)


async def soak(folder: Path, pictures: int) -> list[Result]:
    store = Store(folder)
    engine = Engine(ServerConfig(model="stub", device="cpu", data=folder), store)
    await engine.start()
    wrong = ("stub: refuse", "stub: no memory", "stub: die")
    half = pictures // EACH // 2
    states = [await paint(engine, wrong[number % 3] if number % 8 == 7 else "a cat", number) for number in range(half)]
    while not engine.health()["ready"]:
        await asyncio.sleep(0.05)
    for number in range(half // 2):  # the worker of the second half warms up
        states.append(await paint(engine, "a cat", number))
    before = measured(engine)
    for number in range(half):
        states.append(await paint(engine, "a cat", number))
    after = measured(engine)
    health = engine.health()
    await engine.stop()
    left = len([path for path in folder.rglob(".*") if path.is_file()])
    store.close()
    assert set(states) == {JobState.DONE, JobState.FAILED, JobState.CANCELLED}, set(states)
    results = [Result("pictures", float(health["pictures"]), None, "", None, None)]
    results.append(Result("workers replaced", float(health["restarts"]), None, "", None, None))
    for name, (old, new) in {name: (before[name], after[name]) for name in before}.items():
        unit = "%" if name.startswith("memory") else "more"
        results.append(Result(name, 100 * (new / old - 1) if unit == "%" else new - old, None, unit, None, None))
    return [*results, Result("temporary files", float(left), None, "left", None, None)]


async def paint(engine: Engine, prompt: str, number: int) -> JobState:
    """One job to its end; every tenth is cancelled on the way."""
    job = await engine.submit("soak", JobRequest(task="generate", prompt=prompt, n=EACH, seed=number, size=256, steps=4))
    if number % 10 == 9:
        async for event in engine.subscribe(job.id):
            if event.kind == "progress":
                break
        ended = await engine.cancel(job.id)
    else:
        ended = await engine.wait(job.id)
    assert ended is not None
    return ended.state


def measured(engine: Engine) -> dict[str, float]:
    """Of this process and of the worker's: resident bytes, threads, open files."""
    worker = engine.health()["workers"][0]["pid"]
    return {
        "memory of the server": resident("self"),
        "memory of the worker": resident(worker),
        "threads of the server": threading.active_count(),
        "threads of the worker": len(os.listdir(f"/proc/{worker}/task")),
        "open files of the server": len(os.listdir("/proc/self/fd")),
        "open files of the worker": len(os.listdir(f"/proc/{worker}/fd")),
    }


def resident(process: int | str) -> float:
    return float(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


if __name__ == "__main__":
    main()
