"""Many pictures through one batcher: equal to those painted alone, whoever comes, leaves, or fails beside them."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from unclip import tasks
from unclip.images import read_picture, resize, to_images, to_tensor
from unclip.inpainting import Sides, inpaint, outpaint
from unclip.pipeline import load
from unclip.request import Options
from unclip.server import batching
from unclip.server.batching import Batcher
from unclip.server.jobs import Cancelled, JobRequest
from unclip.server.painting import ModelPainter, sides

NEVER = threading.Event()
PROMPTS = ("a red square at the top left", "a blue disc", "", "a green bar at the bottom right")


@contextmanager
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def batcher():
    made = []

    def make(**settings) -> Batcher:
        made.append(Batcher(inference, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def painter(micro_bundle, batcher):
    """A model whose calls are shared, of its own."""
    return lambda **settings: ModelPainter.of(load(micro_bundle, device="cpu", precision="fp32"), batcher(**settings))


def request(number: int = 0, **changes) -> JobRequest:
    values = {"task": "generate", "prompt": PROMPTS[number % 4], "n": 1, "seed": number, "size": 256}
    return JobRequest.model_validate(values | {"steps": 2 + number % 3, "guidance": (1.0, 1.5, 3.0)[number % 3]} | changes)


def mixed() -> list[JobRequest]:
    return [request(number) for number in range(8)]


def painted(painter: ModelPainter, requests: list[JobRequest], files: list[str] | None = None) -> list[Image.Image]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda asked: painter.paint(asked, 0, files or [], lambda *_: None, NEVER).image, requests))


def alone(model, asked: JobRequest) -> Image.Image:
    options = Options(steps=asked.steps, guidance=asked.guidance)
    return model.generate(asked.prompt, seed=asked.seed, size=asked.size, options=options)[0]


def apart(ours: Image.Image, other: Image.Image) -> int:
    """The largest difference of a byte."""
    assert ours.size == other.size
    return int(np.abs(np.asarray(ours, dtype=int) - np.asarray(other, dtype=int)).max())


@pytest.fixture(scope="module")
def twins(micro_bundle) -> list[Image.Image]:
    model = load(micro_bundle, device="cpu", precision="fp32")
    return [alone(model, asked) for asked in mixed()]


def test_pictures_of_mixed_requests_equal_their_twins(painter, twins):
    own = painter()
    together = painted(own, mixed())
    assert max(map(apart, together, twins)) <= 2
    assert own.batcher.calls < 0.7 * own.batcher.asked  # and they did share calls
    assert len({image.tobytes() for image in together}) == len(together)


def test_in_exact_mode_they_are_the_same_to_the_byte(painter, twins):
    own = painter(exact=True)
    assert [image.tobytes() for image in painted(own, mixed())] == [image.tobytes() for image in twins]
    assert own.batcher.calls == own.batcher.asked


def test_alone_in_a_batcher_is_the_same_to_the_byte(painter, twins):
    own = painter()
    assert painted(own, [mixed()[5]])[0].tobytes() == twins[5].tobytes()


EDITS = {
    "variations": ({}, lambda m, a, b, how: tasks.variations(m, a, n=1, seed=4, **how)[0]),
    "variations with eta": ({"task": "variations", "eta": 0.5}, lambda m, a, b, how: _varied(m, a, how)),
    "image_to_image": (
        {"prompt": "a blue disc", "strength": 0.5},
        lambda m, a, b, how: tasks.image_to_image(m, a, "a blue disc", strength=0.5, seed=4, **how)[0],
    ),
    "text_diff": (
        {"old": "a red square", "new": "a blue disc", "theta": (0.3,)},
        lambda m, a, b, how: tasks.text_diff(m, a, "a red square", "a blue disc", thetas=[0.3], **how)[0],
    ),
    "interpolate": (
        {"images": ("a", "b"), "frames": 3},
        lambda m, a, b, how: tasks.interpolate(m, [a, b], frames=3, seed=4, **how)[0],
    ),
    "interpolate to a prompt": (
        {"task": "interpolate", "images": ("a", "b"), "prompt": "a disc", "frames": 3},
        lambda m, a, b, how: tasks.interpolate(m, [a, b, "a disc"], frames=3, seed=4, **how)[0],
    ),
    "outpaint": (
        {"prompt": "a bar", "left": 8, "size": None},
        lambda m, a, b, how: outpaint(m, a, Sides(left=8), "a bar", seed=4, options=how["options"])[0],
    ),
}


def _varied(model, image, how) -> Image.Image:
    return tasks.variations(model, image, n=1, seed=4, eta=0.5, **how)[0]


@pytest.mark.parametrize("name", EDITS)
def test_every_task_is_what_the_tasks_say(painter, micro_bundle, two_files, name):
    changes, twin = EDITS[name]
    values = {"task": name, "prompt": None, "images": ("a",), "seed": 4, "size": 256, "steps": 3, "guidance": None}
    asked = request(**(values | changes))
    pictures = two_files[: len(asked.images)]
    own = painter(exact=True).paint(asked, 0, pictures, lambda *_: None, NEVER)
    a, b = (read_picture(path) for path in two_files)
    how = {"size": 256, "options": Options(steps=3)}
    expected = twin(load(micro_bundle, device="cpu", precision="fp32"), a, b, how)
    assert own.image.tobytes() == expected.tobytes()
    assert own.settings == expected.info["unclip"]
    parents = [*(f"{end}.png" for end in asked.images), *([asked.prompt] if "to a prompt" in name else [])]
    assert [parent.get("file") or parent["prompt"] for parent in own.settings["parents"]] == parents


def test_an_edit_at_another_size_is_what_inpaint_says(painter, micro_bundle, two_files, tmp_path):
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (8, 8, 24, 9))  # which would be lost, were it made smaller as a picture is
    mask.save(tmp_path / "mask.png")
    read = [read_picture(path) for path in (two_files[0], tmp_path / "mask.png")]
    for side in (512, 256):
        asked = request(task="inpaint", prompt="a disc", images=("a",), mask="m", size=side, steps=2, guidance=None)
        own = painter(exact=True).paint(asked, 0, [two_files[0], str(tmp_path / "mask.png")], lambda *_: None, NEVER)
        model = load(micro_bundle, device="cpu", precision="fp32")
        (twin,) = inpaint(model, *read, "a disc", n=1, seed=asked.seed, size=side, options=Options(steps=2))
        assert own.image.tobytes() == twin.tobytes()
        assert (own.settings, own.settings["size"]) == (twin.info["unclip"], side)
        enlarged = to_images(resize(to_tensor(read[:1]), side))[0]
        assert (np.asarray(own.image)[side // 2 :] == np.asarray(enlarged)[side // 2 :]).all()
        assert apart(own.image, enlarged) > 0


@pytest.mark.parametrize(
    ("sizes", "asked", "expected"),
    [
        ((64, 256, 1024), 512, (1024, 512)),
        ((64, 256), 512, (256, 512)),
        ((64, 256), 1024, (256, 1024)),
        ((64, 256), 256, (256, 256)),
        ((64, 256), None, (256, 256)),
    ],
)
def test_sizes_that_no_network_makes(sizes, asked, expected):
    assert sides(sizes, asked) == expected


def test_a_picture_twice_as_large_says_so(painter):
    own = painter()
    made = own.paint(request(size=512), 0, [], lambda *_: None, NEVER)
    assert (made.image.size, made.settings["size"]) == ((512, 512), 512)


def test_steps_and_previews_are_told(painter):
    told, shown = [], []

    def report(stage, step, steps, preview):
        told.append((stage, step, steps))
        shown.append(preview() if stage == "decoder" else None)

    painter().paint(request(steps=3), 0, [], report, NEVER)
    assert [step for step in told if step[0] == "decoder"] == [("decoder", i, 3) for i in range(3)]
    assert {image.size for image in shown if image} == {(32, 32)}


def test_cancelled_between_two_steps_and_the_others_go_on(painter, twins):
    own, stop, steps = painter(), threading.Event(), []

    def report(stage, step, steps_, preview):
        steps.append((stage, step))
        if (stage, step) == ("decoder", 0):
            stop.set()
            own.batcher.wake()

    def cancelled() -> None:
        with pytest.raises(Cancelled):
            own.paint(request(1, steps=50), 0, [], report, stop)

    with ThreadPoolExecutor(2) as pool:
        lost, kept = pool.submit(cancelled), pool.submit(painted, own, [mixed()[5]])
        lost.result(), kept.result()
    assert steps[-1] == ("decoder", 0)
    assert apart(kept.result()[0], twins[5]) <= 2
    with pytest.raises(Cancelled):
        own.paint(request(), 0, [], lambda *_: None, stop)


def slowly(x: torch.Tensor) -> torch.Tensor:
    time.sleep(0.05)
    return 2 * x


def ask_all(own: Batcher, function: Callable[..., object], rows: list[torch.Tensor]) -> list[object]:
    """Everybody's answer, or what was raised."""

    def ask(x: torch.Tensor) -> object:
        with own.painting(NEVER):
            gate.wait()
            try:
                return own.ask("f", function, (x,))
            except RuntimeError as error:
                return error

    gate = threading.Barrier(len(rows))
    with ThreadPoolExecutor(len(rows)) as pool:
        return list(pool.map(ask, rows))


def test_everybody_gets_his_own_rows(batcher):
    sizes = []

    def doubled(x: torch.Tensor) -> SimpleNamespace | tuple[torch.Tensor, list[torch.Tensor]]:
        sizes.append(len(x))
        return 2 * x, [x + 1]

    own = batcher()
    given = [torch.full((rows, 3), float(rows)) for rows in (1, 2, 3)]
    for x, answer in zip(given, ask_all(own, doubled, given), strict=True):
        assert isinstance(answer, tuple)
        torch.testing.assert_close(answer[0], 2 * x)
        torch.testing.assert_close(answer[1][0], x + 1)
    assert sizes == [6]


def test_one_that_fails_fails_alone(batcher):
    def fragile(x: torch.Tensor) -> torch.Tensor:
        if (x < 0).any():
            raise RuntimeError("negative")
        return x

    good, bad = torch.ones(1, 2), -torch.ones(1, 2)
    answers = ask_all(batcher(), fragile, [good, bad, good])
    assert isinstance(answers[1], RuntimeError)
    assert all(isinstance(answers[i], torch.Tensor) for i in (0, 2))


def test_calls_are_no_larger_than_they_may_be(batcher, monkeypatch):
    sizes: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x

    monkeypatch.setattr(batching, "PATIENCE", 1.0)
    ask_all(batcher(rows=4), counted, [torch.ones(1, 2)] * 6)
    assert sorted(sizes) == [2, 4]
    sizes.clear()
    ask_all(batcher(pixels=3 * 64), counted, [torch.ones(1, 3, 8, 8)] * 4 + [torch.ones(4, 3, 8, 8)])
    assert sorted(sizes) == [1, 3, 4]  # one caller's rows are never divided


def test_other_shapes_types_and_networks_do_not_mix(batcher):
    own = batcher()
    given = [torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 2).double()]
    for x, answer in zip(given, ask_all(own, slowly, given), strict=True):
        assert isinstance(answer, torch.Tensor)
        assert (answer.shape, answer.dtype) == (x.shape, x.dtype)
    assert own.calls == 3


def test_closing_lets_everybody_go(batcher):
    own = batcher()
    with ThreadPoolExecutor(1) as pool, own.painting(NEVER):
        waits = pool.submit(own.ask, "f", slowly, (torch.ones(1, 2),))
        own.close()
        with pytest.raises(Cancelled):
            own.ask("f", slowly, (torch.ones(1, 2),))
        with suppress(Cancelled):  # it may have been computed before
            waits.result(timeout=5)


def test_the_batchers_thread_has_no_gradients(batcher):
    network = torch.nn.Linear(2, 2)
    answer = batcher().ask("f", network, (torch.ones(1, 2),))
    assert not answer.requires_grad
