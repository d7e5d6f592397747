"""What may die, hang or fill up under the engine: workers, the server itself, the memory, the disk."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from stub_engine import asked, ended, events_of, ready, ready_again, run, until

from unclip.server.engine import Engine
from unclip.server.jobs import JobRequest, JobState
from unclip.server.store import Store


@pytest.fixture
def serve(tmp_path):
    return partial(run, tmp_path)


def test_a_killed_worker_is_replaced_and_its_slots_are_painted_once(serve):
    async def work(engine: Engine, store: Store) -> None:
        pid = await ready(engine)
        job = await engine.submit("me", asked(n=3, steps=10, seed=1))
        await until(engine, job, "progress")
        os.kill(pid, signal.SIGKILL)
        begun = time.monotonic()
        other = await engine.submit("me", asked(n=1))
        assert await ready_again(engine, pid) - begun < 5
        told = await events_of(engine, job.id)
        done = await ended(engine, job)
        assert (done.state, done.error) == (JobState.DONE, None)
        assert len({id for id in done.images if id}) == 3
        assert len([event for event in told if event.kind == "image"]) == 3
        assert (await ended(engine, other)).state == JobState.DONE
        assert len(list((store.data / "images").rglob("*.png"))) == 4
        assert engine.health()["restarts"] == 1

    serve(work)


def test_a_worker_that_stands_still_is_replaced(serve):
    async def work(engine: Engine, store: Store) -> None:
        pid = await ready(engine)
        job = await engine.submit("me", asked(n=1, steps=10))
        await until(engine, job, "progress")
        os.kill(pid, signal.SIGSTOP)
        assert (await ended(engine, job)).state == JobState.DONE
        assert engine.health()["restarts"] == 1

    serve(work, heartbeat_seconds=1.0)


def test_a_step_that_does_not_end_stops_the_heart(serve):
    """The process lives and beats, for ten beats; then even its cancelled job is let go."""

    async def work(engine: Engine, store: Store) -> None:
        hung = await engine.submit("me", asked("stub: hang", n=1))
        await until(engine, hung, "progress")
        cancelled = await engine.cancel(hung.id)
        assert cancelled is not None
        assert cancelled.state == JobState.CANCELLED
        assert (await ended(engine, await engine.submit("me", asked(n=1, steps=1)))).state == JobState.DONE
        assert engine.health()["restarts"] == 1

    serve(work, heartbeat_seconds=0.4, stub_step_seconds=0.0)


@pytest.mark.parametrize(
    ("prompt", "error", "restarts"),
    [
        ("stub: refuse", "refused", 0),
        ("stub: break", "internal", 0),
        ("stub: no memory", "out_of_memory", 2),
        ("stub: die", "worker_died", 2),
    ],
)
def test_what_goes_wrong_has_a_name_and_takes_nobody_along(serve, prompt, error, restarts):
    async def work(engine: Engine, store: Store) -> None:
        wrong, right = await engine.submit("me", asked(prompt, n=1)), await engine.submit("me", asked(n=3))
        failed = await ended(engine, wrong)
        detail = "the stub was asked to refuse" if error == "refused" else None  # ours; a library's words stay inside
        assert (failed.state, failed.error, failed.detail) == (JobState.FAILED, error, detail)
        told = {"state": "failed", "error": error} | ({"detail": detail} if detail else {})
        assert (await events_of(engine, wrong.id))[-1].data == told
        assert (await ended(engine, right)).state == JobState.DONE
        while not engine.health()["ready"]:
            await asyncio.sleep(0.01)
        assert engine.health()["restarts"] == restarts

    serve(work)


def test_a_picture_that_is_gone_is_told(serve):
    async def work(engine: Engine, store: Store) -> None:
        job = await engine.submit("me", JobRequest(task="variations", images=("gone",), n=1))
        assert (await ended(engine, job)).error == "image_gone"

    serve(work)


def test_a_disk_that_is_full_fails_the_job_and_not_the_server(serve, monkeypatch):
    from unclip.server import store as stores

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    async def work(engine: Engine, store: Store) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(stores, "write_new", full)
            assert (await ended(engine, await engine.submit("me", asked()))).error == "storage"
        assert (await ended(engine, await engine.submit("me", asked()))).state == JobState.DONE

    serve(work)


SERVER = """
import asyncio, sys
from unclip.server.config import ServerConfig
from unclip.server.engine import Engine
from unclip.server.jobs import JobRequest
from unclip.server.store import Store

async def main():
    engine = Engine(ServerConfig(model="stub", stub_step_seconds=0.05, batch=2, device="cpu"), Store(sys.argv[1]))
    await engine.start()
    jobs = [await engine.submit("me", JobRequest(task="generate", prompt="a cat", n=4, steps=8)) for _ in range(2)]
    async for event in engine.subscribe(jobs[0].id):
        if event.kind == "image":
            print(*(job.id for job in jobs), event.data["image"], engine.health()["workers"][0]["pid"], flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_killed_server_loses_nothing_and_goes_on(serve, tmp_path):
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        first, second, image, worker = server.stdout.readline().split()
        os.kill(server.pid, signal.SIGKILL)
    begun = time.monotonic()

    async def work(engine: Engine, store: Store) -> None:
        resumed = await engine.subscribe(first).__anext__()
        assert resumed.data["state"] in ("queued", "running")
        done = await engine.wait(first)
        assert done is not None
        assert (done.state, done.attempts) == (JobState.DONE, 2)
        assert image in done.images  # what was finished was not painted again
        assert None not in done.images
        other = await engine.wait(second)
        assert other is not None
        assert (other.state, other.attempts) == (JobState.DONE, 1)
        assert len(list((store.data / "images").rglob("*.png"))) == 8
        assert [job.id for job in store.jobs("me")] == [second, first]

    async def resumes(engine: Engine, store: Store) -> None:
        await ready(engine)
        while not engine.health()["painting"]:
            await asyncio.sleep(0.01)
        assert time.monotonic() - begun < 3
        await work(engine, store)

    serve(resumes, stub_step_seconds=0.05)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{worker}").exists()  # the worker went with its server
