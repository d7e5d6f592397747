"""An engine with the stub behind it, for tests: started, used by a coroutine, stopped."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unclip.server.config import ServerConfig
from unclip.server.engine import Engine
from unclip.server.jobs import Event, Job, JobRequest
from unclip.server.store import Store

STEP = 0.03  # seconds, of the stub


def asked(prompt: str = "a cat", **changes) -> JobRequest:
    return JobRequest.model_validate({"task": "generate", "prompt": prompt, "n": 2, "size": 256, "steps": 5} | changes)


def run(folder: Path, work: Callable[[Engine, Store], Coroutine[Any, Any, None]], **changes: object) -> None:
    """Runs `work` with an engine over the data in `folder`; `changes` are to its config."""

    async def main() -> None:
        values = {"model": "stub", "stub_step_seconds": STEP, "heartbeat_seconds": 5.0, "device": "cpu"}
        store = Store(folder)
        engine = Engine(ServerConfig.model_validate(values | changes), store)
        await engine.start()
        try:
            await asyncio.wait_for(work(engine, store), 60)
        finally:
            await engine.stop()
            store.close()

    asyncio.run(main())


async def events_of(engine: Engine, job: str, after: int = 0) -> list[Event]:
    return [event async for event in engine.subscribe(job, after)]


async def ended(engine: Engine, job: Job) -> Job:
    done = await engine.wait(job.id)
    assert done is not None
    return done


async def until(engine: Engine, job: Job, kind: str) -> Event:
    async for event in engine.subscribe(job.id):
        if event.kind == kind:
            return event
    raise AssertionError(f"the job ended without {kind}")


async def ready(engine: Engine) -> int:
    """The process id of a worker that takes work."""
    while not engine.health()["ready"]:
        await asyncio.sleep(0.01)
    return engine.health()["workers"][0]["pid"]


async def ready_again(engine: Engine, pid: int) -> float:
    """When there is a worker again that is another."""
    while True:
        health = engine.health()
        if health["ready"] and health["workers"][0]["pid"] != pid:
            return time.monotonic()
        await asyncio.sleep(0.01)


async def all_threads(store: Store, most: int = 4) -> None:
    """Gives the loop so many threads, and each its database, before chance would have had them all at work."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(most))
    together = threading.Barrier(most)

    def look() -> None:
        store.job("none")
        together.wait(20)

    await asyncio.gather(*[asyncio.to_thread(look) for _ in range(most)])
