"""What slots share is made once: by one of them while the others wait, hear of it, can leave, and take over."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from unclip import tasks
from unclip.diffusion.samplers import Step
from unclip.errors import RequestError
from unclip.images import read_picture
from unclip.pipeline import load
from unclip.request import Options
from unclip.server.batching import Batcher
from unclip.server.jobs import Cancelled, JobRequest
from unclip.server.painting import ModelPainter
from unclip.server.sharing import Shared

NEVER = threading.Event()
SECONDS = 10.0  # after which a test has failed


def step(index: int) -> Step:
    return Step(index, 9, torch.zeros(1), torch.zeros(1))


def quiet(stage: str, step: Step) -> None:
    """Told of steps by who does not care."""


class Making:
    """Something that is made in steps, each when it is let."""

    def __init__(self, made: object = "made"):
        self.made, self.calls = made, 0
        self.begun, self.may = threading.Event(), threading.Semaphore(0)

    def __call__(self, progress):
        self.calls += 1
        self.begun.set()
        for index in range(2):
            assert self.may.acquire(timeout=SECONDS)
            progress("inversion", step(index))
        return self.made


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as made:
        yield made


def test_it_is_made_once_and_all_hear_of_it(pool):
    shared, making = Shared(4), Making()
    heard: list[tuple[int, int]] = []
    all_heard = threading.Semaphore(0)

    def listen(who: int):
        def progress(stage, told):
            heard.append((who, told.index))
            all_heard.release()

        return progress

    answers = [pool.submit(shared.get, "key", making, listen(0))]
    assert making.begun.wait(SECONDS)
    answers += [pool.submit(shared.get, "key", making, listen(who)) for who in (1, 2, 3)]
    making.may.release()
    for _ in range(4):
        assert all_heard.acquire(timeout=SECONDS)
    assert sorted(heard) == [(who, 0) for who in range(4)]
    making.may.release()
    assert [answer.result(SECONDS) for answer in answers] == ["made"] * 4
    assert shared.get("key", making, quiet) == "made"
    assert making.calls == 1


def test_who_waits_can_leave_before_it_is_made(pool):
    shared, making = Shared(4), Making()

    def leave(stage, told):
        raise Cancelled

    maker = pool.submit(shared.get, "key", making, quiet)
    assert making.begun.wait(SECONDS)
    leaver = pool.submit(shared.get, "key", making, leave)
    making.may.release()
    with pytest.raises(Cancelled):
        leaver.result(SECONDS)
    assert not maker.done()
    making.may.release()
    assert maker.result(SECONDS) == "made"


def test_if_the_maker_leaves_another_makes_it(pool):
    shared, first, second = Shared(4), Making("never"), Making("made")

    def leave(stage, told):
        raise Cancelled

    maker = pool.submit(shared.get, "key", first, leave)
    assert first.begun.wait(SECONDS)
    heir = pool.submit(shared.get, "key", second, quiet)
    first.may.release()
    with pytest.raises(Cancelled):
        maker.result(SECONDS)
    assert second.begun.wait(SECONDS)
    second.may.release(2)
    assert heir.result(SECONDS) == "made"


def test_an_error_is_the_makers_own_and_nothing_is_kept():
    shared = Shared(4)

    def fail(progress):
        raise RequestError("no")

    for _ in range(2):
        with pytest.raises(RequestError, match="no"):
            shared.get("key", fail, quiet)
    assert shared.get("key", lambda progress: "made", quiet) == "made"


def test_what_was_not_asked_for_longest_goes_first():
    shared, calls = Shared(2), []

    def ask(key: str) -> str:
        return shared.get(key, lambda progress: calls.append(key) or key, quiet)

    for key in ("a", "b", "a", "c", "a", "b"):
        assert ask(key) == key
    assert calls == ["a", "b", "c", "b"]


@pytest.fixture
def painter(micro_bundle):
    @contextmanager
    def inside():
        with torch.inference_mode():
            yield

    batcher = Batcher(inside, exact=True)
    yield ModelPainter.of(load(micro_bundle, device="cpu", precision="fp32"), batcher)
    batcher.close()


def request(task: str, images: tuple[str, ...], **changes) -> JobRequest:
    return JobRequest.model_validate({"task": task, "images": images, "seed": 4, "size": 256, "steps": 3} | changes)


def inversions(painter: ModelPainter, monkeypatch) -> list[int]:
    """A list that grows with every inversion."""
    real, seen = painter.model.invert, []

    def counted(x0, *rest, **how):
        seen.append(len(x0))
        return real(x0, *rest, **how)

    monkeypatch.setattr(painter.model, "invert", counted)
    return seen


def test_a_jobs_pictures_are_inverted_once_and_its_frames_are_those_of_interpolate(
    painter, two_files, micro_bundle, monkeypatch, pool
):
    seen, asked = inversions(painter, monkeypatch), request("interpolate", ("a", "b"), prompt="a blue disc", frames=4)
    stages: list[list[str]] = [[] for _ in range(4)]

    def slot(number: int):
        return painter.paint(asked, number, two_files, lambda stage, *_: stages[number].append(stage), NEVER)

    made = list(pool.map(slot, range(4)))
    assert seen == [1, 1]
    assert all("decoder" in told for told in stages)
    ends = [*(read_picture(path) for path in two_files), "a blue disc"]
    model = load(micro_bundle, device="cpu", precision="fp32")
    twins = tasks.interpolate(model, ends, frames=4, seed=4, size=256, options=Options(steps=3))
    assert [one.image.tobytes() for one in made] == [twin.tobytes() for twin in twins]
    assert [one.settings for one in made] == [twin.info["unclip"] for twin in twins]


def test_other_jobs_find_the_pair_of_a_picture_but_not_of_other_steps(painter, two_files, monkeypatch):
    seen = inversions(painter, monkeypatch)
    words = {"old": "a red disc", "new": "a blue disc", "theta": (0.1, 0.4)}

    def paint(asked: JobRequest, slot: int = 0, given: list[str] = two_files[:1]) -> None:
        painter.paint(asked, slot, given, lambda *_: None, NEVER)

    for number in range(2):
        paint(request("text_diff", ("a",), **words), number)
        paint(request("variations", ("a",), eta=0.5), number)
    paint(request("interpolate", ("a", "b"), frames=3), given=two_files)
    assert len(seen) == 2
    paint(request("text_diff", ("a",), **words, steps=4))
    assert len(seen) == 3


def test_a_prompt_is_one_more_end():
    assert request("interpolate", ("a",), prompt="a disc").slots == 9
    for images in ((), tuple("abcdefgh")):
        with pytest.raises(ValueError, match=f"interpolate takes 1 to 7 images, not {len(images)}"):
            request("interpolate", images, prompt="a disc")
