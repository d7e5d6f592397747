"""The engine with a real worker process and the stub: what is told, cancelled, refused, drained, and what stays."""

import asyncio
import base64
import io
import os
import threading
import time
from functools import partial

import pytest
from PIL import Image
from stub_engine import all_threads, asked, ended, events_of, ready, run, until

from unclip.errors import RequestError
from unclip.server.engine import Engine
from unclip.server.events import Channel
from unclip.server.jobs import Draining, Job, JobState, QueueFull
from unclip.server.live import Pace
from unclip.server.store import Store


@pytest.fixture
def serve(tmp_path):
    return partial(run, tmp_path)


def test_a_job_from_the_queue_to_the_last_picture(serve):
    async def work(engine: Engine, store: Store) -> None:
        job = await engine.submit("me", asked(n=3, seed=7, steps=30))
        told = await events_of(engine, job.id)
        states = [event.data["state"] for event in told if event.kind == "state"]
        assert states == ["queued", "running", "done"]
        assert told[0].data["position"] == 0
        assert [event.id for event in told] == sorted({event.id for event in told})
        images = {event.data["slot"]: event.data for event in told if event.kind == "image"}
        done = await ended(engine, job)
        assert (done.state, done.progress) == (JobState.DONE, 1.0)
        assert {slot: data["seed"] for slot, data in images.items()} == {0: 7, 1: 8, 2: 9}
        assert [images[slot]["image"] for slot in range(3)] == list(done.images)
        fractions = [event.data["fraction"] for event in told if event.kind == "progress" and event.data["slot"] == 0]
        assert fractions == sorted(fractions)
        assert 0 < fractions[0] < fractions[-1] <= 1
        previews = [event.data for event in told if event.kind == "preview" and event.data["slot"] == 0]
        assert 1 <= len(previews) <= 4  # one in 300 ms at most, of 900
        assert max(Image.open(io.BytesIO(base64.b64decode(previews[0]["png"]))).size) <= 64
        path = store.path(done.images[0] or "")
        assert path is not None
        with Image.open(path) as image:
            assert image.size == (256, 256)
        row = store.image(done.images[1] or "")
        assert row is not None
        assert (row.settings["seed"], row.settings["prompt"]) == (8, "a cat")

    serve(work)


def test_the_same_request_gives_the_same_pictures_and_another_does_not(serve):
    async def work(engine: Engine, store: Store) -> None:
        jobs = [await engine.submit("me", asked(n=2, seed=seed)) for seed in (1, 1, 2)]
        pictures = []
        for job in [await ended(engine, job) for job in jobs]:
            pictures.append([path.read_bytes() for id in job.images if (path := store.path(id or ""))])
        assert pictures[0] == pictures[1]
        assert pictures[0][1] == pictures[2][0]  # seed 1 + 1 is seed 2
        assert len(set(pictures[0] + pictures[2])) == 3

    serve(work, stub_step_seconds=0.0)


def test_who_comes_late_is_told_what_still_matters(serve):
    async def work(engine: Engine, store: Store) -> None:
        job = await engine.submit("me", asked(n=2, steps=25))
        first = await until(engine, job, "preview")
        late = engine.subscribe(job.id, first.id)
        again = await anext(late)
        assert again.id > first.id
        await late.aclose()
        await ended(engine, job)
        replay = await events_of(engine, job.id)
        assert [event.kind for event in replay] == ["image", "image", "state"]
        assert replay[-1].data == {"state": "done"}
        assert replay[0].id > again.id
        assert await events_of(engine, "nobody's") == []
        assert await engine.wait("nobody's") is None

    serve(work)


def test_a_queued_job_is_cancelled_at_once_and_the_next_moves_up(serve):
    async def work(engine: Engine, store: Store) -> None:
        first, second, third = [await engine.submit("me", asked(n=1, steps=20)) for _ in range(3)]
        await until(engine, first, "progress")
        begun = time.monotonic()
        cancelled = await engine.cancel(second.id)
        assert time.monotonic() - begun < 0.2
        assert cancelled is not None
        assert cancelled.state == JobState.CANCELLED
        assert (await ended(engine, third)).state == JobState.DONE
        assert await engine.cancel(second.id) == cancelled
        assert await engine.cancel("nobody's") is None
        positions = [event.data.get("position") for event in await events_of(engine, third.id) if event.kind == "state"]
        assert positions[-1] is None

    serve(work, batch=1)


async def begun(engine: Engine, job: Job) -> None:
    """Waits until a job runs."""
    async for event in engine.subscribe(job.id):
        if event.data.get("state") == "running":
            return


def test_the_queue_is_put_in_another_order_and_everybody_is_told(serve):
    order = []

    async def work(engine: Engine, store: Store) -> None:
        first, *waiting = [await engine.submit("me", asked(n=1, steps=500)) for _ in range(4)]
        await begun(engine, first)
        a, b, c = (job.id for job in waiting)
        listening = engine.subscribe(c)
        assert (await anext(listening)).data["position"] == 2
        assert await engine.move(c, a)
        assert (await anext(listening)).data["position"] == 0
        await listening.aclose()
        assert [engine.place(id)["position"] for id in (a, b, c)] == [1, 2, 0]
        assert await engine.move(a, None)
        assert not await engine.move(a, first.id)  # that one runs
        assert not await engine.move(first.id, a)
        assert not await engine.move("nobody's", None)
        order.extend((first.id, c, b, a))

    async def after(engine: Engine, store: Store) -> None:
        """Over a restart: the one that ran comes first again."""
        for id in order:
            while (job := store.job(id)) is None or job.state == JobState.QUEUED:
                await asyncio.sleep(0.01)
            assert [engine.place(other)["position"] for other in order[order.index(id) + 1 :]] == [
                *range(len(order) - order.index(id) - 1)
            ]
            await engine.cancel(id)

    serve(work, batch=1)
    serve(after, batch=1)


def test_all_that_waits_is_ended_or_all_there_is(serve):
    async def work(engine: Engine, store: Store) -> None:
        running, *mine = [await engine.submit("me", asked(n=1, steps=500)) for _ in range(3)]
        yours = await engine.submit("you", asked(n=1, steps=500))
        await begun(engine, running)
        assert await engine.cancel_all("me", waiting=True) == [job.id for job in mine]
        assert engine.place(yours.id)["position"] == 0
        assert (engine.health()["queued"], engine.health()["running"]) == (1, 1)
        assert await engine.cancel_all("me") == [running.id]
        assert {store.job(job.id).state for job in (running, *mine)} == {JobState.CANCELLED}  # type: ignore[union-attr]
        await begun(engine, yours)
        assert await engine.cancel_all("nobody") == []

    serve(work, batch=1)


def test_a_job_is_taken_back_only_before_it_began(serve):
    async def work(engine: Engine, store: Store) -> None:
        running, waiting = [await engine.submit("me", asked(n=1, steps=500)) for _ in range(2)]
        await begun(engine, running)
        taken = await engine.withdraw(waiting.id)
        assert taken is not None
        assert (taken.state, taken.request) == (JobState.CANCELLED, waiting.request)
        assert [await engine.withdraw(id) for id in (waiting.id, running.id, "nobody's")] == [None] * 3
        assert engine.health()["running"] == 1

    serve(work, batch=1)


def test_a_job_that_waits_is_told_when_it_should_be_done(serve):
    async def work(engine: Engine, store: Store) -> None:
        await ended(engine, await engine.submit("me", asked(n=2, steps=20)))
        first, second, third = [await engine.submit("me", asked(n=n, steps=500)) for n in (1, 2, 3)]
        await begun(engine, first)
        pace = engine.health()["seconds_per_picture"]
        assert pace > 0.5  # twenty steps
        etas = [engine.place(job.id)["eta_seconds"] for job in (second, third)]
        assert etas == pytest.approx([3 * pace, 6 * pace], rel=0.2)
        assert engine.place(first.id) == {"position": None, "eta_seconds": None}
        await engine.drop(second.id, 0)
        await engine.move(third.id, second.id)
        etas = [engine.place(job.id)["eta_seconds"] for job in (third, second)]
        assert etas[1] == pytest.approx(5 / 4 * etas[0], rel=0.1)

    serve(work, batch=1)


def test_one_picture_is_dropped_and_the_others_go_on(serve):
    async def work(engine: Engine, store: Store) -> None:
        await ready(engine)
        job = await engine.submit("me", asked(n=4, steps=10))
        await until(engine, job, "progress")
        await engine.drop(job.id, 1)  # is painted now
        await engine.drop(job.id, 3)  # waits
        begun = time.monotonic()
        while any(slot == 1 for worker in engine._workers for _, slot in worker.painting):
            await asyncio.sleep(0.005)
        assert time.monotonic() - begun < 0.1 + 0.2
        done = await ended(engine, job)
        assert (done.state, done.dropped, done.progress) == (JobState.DONE, (1, 3), 1.0)
        assert [bool(image) for image in done.images] == [True, False, True, False]
        assert len(list((store.data / "images").rglob("*.png"))) == 2
        await engine.drop(job.id, 0)
        assert store.job(job.id) == done

    serve(work, stub_step_seconds=0.1, batch=2)


def test_dropping_all_of_a_job_cancels_it_wherever_it_is(serve):
    async def work(engine: Engine, store: Store) -> None:
        running, waiting = [await engine.submit("me", asked(n=2, steps=500)) for _ in range(2)]
        await begun(engine, running)
        for job in (waiting, running):
            told = asyncio.create_task(events_of(engine, job.id))
            for slot in (0, 1, 1):
                await engine.drop(job.id, slot)
            end = await ended(engine, job)
            assert (end.state, end.dropped, end.images) == (JobState.CANCELLED, (0, 1), (None, None))
            assert [event.kind for event in await told if event.kind == "dropped"] == ["dropped"] * 2
        assert engine.health()["queued"] == 0

    serve(work, batch=1)


def test_a_dropped_picture_is_not_painted_after_a_restart_either(serve):
    ids = []

    async def work(engine: Engine, store: Store) -> None:
        job = await engine.submit("me", asked(n=2, steps=20))
        ids.append(job.id)
        await until(engine, job, "progress")
        await engine.drop(job.id, 0)

    async def after(engine: Engine, store: Store) -> None:
        told = await events_of(engine, ids[0])
        assert {event.data["slot"] for event in told if event.kind == "progress"} == {1}
        done = store.job(ids[0])
        assert done is not None
        assert (done.state, done.dropped) == (JobState.DONE, (0,))

    serve(work, batch=1)
    serve(after, batch=1)


@pytest.mark.parametrize("at", ["state", "progress", "preview", "image"])
def test_a_cancel_stops_within_a_step_and_keeps_what_is_finished(serve, at):
    async def work(engine: Engine, store: Store) -> None:
        await ready(engine)
        job = await engine.submit("me", asked(n=4, steps=10))
        await until(engine, job, at)
        begun = time.monotonic()
        cancelled = await engine.cancel(job.id)
        assert time.monotonic() - begun < 0.1 + 0.2
        assert cancelled is not None
        assert cancelled.state == JobState.CANCELLED
        made = [id for id in cancelled.images if id]
        assert bool(made) == (at == "image")
        assert len(made) < 4
        assert all(path and path.exists() for path in map(store.path, made))
        assert engine.health()["painting"] == 0
        assert (await ended(engine, await engine.submit("me", asked()))).state == JobState.DONE

    serve(work, stub_step_seconds=0.1, batch=2)


def test_a_full_queue_says_when_to_come_again(serve):
    async def work(engine: Engine, store: Store) -> None:
        jobs = [await engine.submit("me", asked(steps=20)) for _ in range(2)]
        begun = time.monotonic()
        full = None
        while full is None:
            try:
                jobs.append(await engine.submit("me", asked()))
            except QueueFull as error:
                full = error
        assert len(jobs) <= 4
        assert time.monotonic() - begun < 0.2
        assert 250 <= full.retry_after_ms <= 60_000
        assert {(await ended(engine, job)).state for job in jobs} == {JobState.DONE}
        assert engine.health()["rejected"] == 1
        await engine.submit("me", asked())
        with pytest.raises(RequestError, match="not served here"):
            await engine.submit("me", asked(model="dall-e-9"))

    serve(work, queue=2)


def test_draining_finishes_what_runs_and_keeps_what_waits(serve, tmp_path):
    ids = []

    async def work(engine: Engine, store: Store) -> None:
        running, waiting = [await engine.submit("me", asked(n=1, steps=10)) for _ in range(2)]
        ids.extend((running.id, waiting.id))
        await until(engine, running, "progress")
        stopping = asyncio.create_task(engine.stop(grace=20))
        listening = asyncio.create_task(events_of(engine, waiting.id))
        await asyncio.sleep(0.01)
        assert engine.health()["state"] == "draining"
        with pytest.raises(Draining):
            await engine.submit("me", asked())
        await stopping
        assert [event.data["state"] for event in await listening] == ["queued"]
        states = [job.state for id in ids if (job := store.job(id))]
        assert states == [JobState.DONE, JobState.QUEUED]

    async def after(engine: Engine, store: Store) -> None:
        assert await engine.wait(ids[1]) == store.job(ids[1])
        assert [job.state for id in ids if (job := store.job(id))] == [JobState.DONE, JobState.DONE]

    serve(work, batch=1)
    serve(after)


def test_who_does_not_finish_in_time_is_put_back(serve):
    async def work(engine: Engine, store: Store) -> None:
        job = await engine.submit("me", asked(n=2, steps=500))
        await until(engine, job, "progress")
        begun = time.monotonic()
        await engine.stop(grace=0.1)
        assert time.monotonic() - begun < 2
        kept = store.job(job.id)
        assert kept is not None
        assert (kept.state, kept.attempts) == (JobState.QUEUED, 0)
        with pytest.raises(Draining):
            await engine.wait("gone") or await engine.submit("me", asked())

    serve(work)


def test_nothing_grows(serve):
    """Neither threads nor open files nor temporary ones over many jobs; memory over more is benchmarks/soak.py's."""

    async def work(engine: Engine, store: Store) -> None:
        pid = await ready(engine)
        await all_threads(store)
        counts = []
        for _ in range(3):
            for _ in range(2):
                await asyncio.gather(*[ended(engine, await engine.submit("me", asked(n=4, steps=2))) for _ in range(4)])
            counts.append((threading.active_count(), *(len(os.listdir(f"/proc/{id}/fd")) for id in ("self", pid))))
            counts[-1] += (len(os.listdir(f"/proc/{pid}/task")),)
        assert counts[-1] == counts[-2]
        assert engine.health()["pictures"] == 96
        assert [path for path in store.data.rglob(".*") if path.is_file()] == []

    serve(work, stub_step_seconds=0.0)


def test_a_slow_listener_misses_steps_and_never_ends():
    async def work() -> None:
        channel = Channel("job")
        channel.tell("state", {"state": "running"})
        listening = channel.listen()
        seen = [await anext(listening)]
        for step in range(1000):
            channel.tell("progress", {"slot": step % 2, "step": step})
            channel.tell("preview", {"slot": step % 2, "png": str(step)})
        channel.tell("image", {"slot": 0, "image": "a"})
        channel.tell("state", {"state": "done"})
        seen += [event async for event in listening]
        assert [(event.kind, event.data.get("slot")) for event in seen] == [
            ("state", None),
            ("progress", 0),
            ("progress", 1),
            ("preview", 1),
            ("image", 0),
            ("state", None),
        ]
        assert seen[1].data["step"] == 998
        assert [event.data for event in seen[2:4]] == [{"slot": 1, "step": 999}, {"slot": 1, "png": "999"}]
        assert [event.id for event in seen] == sorted({event.id for event in seen})

    asyncio.run(work())


def test_the_pace_is_that_of_work_and_says_when_to_come_again(monkeypatch):
    clock = iter([1000.0, 1002.0, 1003.0, 90_000.0, 90_001.0, 90_500.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    pace = Pace()
    assert (pace.seconds, pace.retry_after_ms(3)) == (None, 3000)
    for works in ((0.5, 1.0), (0.5,)):
        pace.begin()
        for work in works:
            pace.came_on(work)
    assert pace.seconds == pytest.approx(2.0, rel=0.02)  # the rest between does not count
    assert [pace.retry_after_ms(left) for left in (0, 10**6)] == [250, 60_000]
    pace.came_on(1.0)
    assert pace.seconds == pytest.approx(499, rel=0.02)  # what comes now takes longer
