"""The ascent in closed form: its canvases, its views, its steps; and what it asks of whom calls it."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from toy_clip import save_clip

from unclip.clip import Clip, load_clip, unit
from unclip.errors import ConfigError, RequestError
from unclip.images import resize, to_tensor
from unclip.optimize.canvas import AXES, Fourier, Pixels, falling, make_canvas
from unclip.optimize.climb import Ascent, Step, ascend, optimize
from unclip.optimize.views import CLOSEST, FURTHEST, TURN, look

FEW = Ascent(steps=6, views=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return load_clip(save_clip(tmp_path_factory.mktemp("clip") / "micro", 3), device="cpu", precision="fp32")


def drawn(side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("basis", ["pixels", "fourier"])
@pytest.mark.parametrize("side", [32, 33])
def test_a_canvas_begins_as_the_picture_it_is_given(basis, side):
    x = drawn(side)
    torch.testing.assert_close(make_canvas(basis, x).picture(), x, atol=1e-5, rtol=0)
    black_and_white = torch.where(x > 0, 1.0, -1.0)
    assert (make_canvas(basis, black_and_white).picture() - black_and_white).abs().max() < 1 / 255 + 1e-4


def test_waves_of_unit_variance_give_pixels_of_unit_variance_and_fall_as_one_over_f():
    canvas = Fourier(torch.zeros(1, 3, 64, 64))
    canvas.values = 0.3 * torch.randn(200, 3, 64, 33, 2, generator=generator())
    before_tanh = torch.atanh(canvas.picture().double())
    assert before_tanh.square().mean().sqrt() == pytest.approx(0.3, rel=0.1)
    weights = falling(64)
    torch.testing.assert_close(weights[0, 1] / weights[0, [2, 4, 8]], torch.tensor([2.0, 4.0, 8.0]))
    assert weights[0, 0] == weights[0, 1] == weights[1, 0] == weights[63, 0]  # the mean counts as the slowest wave


def test_the_axes_of_colour_are_orthonormal_and_the_first_is_light():
    torch.testing.assert_close(torch.tensor(AXES) @ torch.tensor(AXES).T, torch.eye(3), atol=1e-6, rtol=0)
    canvas = Fourier(torch.zeros(1, 3, 8, 8))
    with torch.no_grad():
        canvas.values[:, 0] = torch.randn(8, 5, 2, generator=generator())
    red, green, blue = canvas.picture()[0]
    torch.testing.assert_close(red, green)
    torch.testing.assert_close(red, blue)


def test_pixels_settle_where_a_picture_is():
    canvas = Pixels(drawn(8))
    with torch.no_grad():
        canvas.values *= 5
    canvas.settle()
    assert canvas.picture().abs().max() == 1


def test_views_of_no_strength_are_the_picture_itself():
    x = drawn(32)
    views = look(x, 32, 3, strength=0, generator=generator())
    torch.testing.assert_close(views, x.expand(3, -1, -1, -1), atol=1e-5, rtol=0)
    smaller = look(x, 16, 1, strength=0, generator=generator())
    torch.testing.assert_close(smaller, resize(x, 16, clamped=False), atol=1e-5, rtol=0)


def test_views_lie_on_the_picture_as_they_say():
    """Of a picture that tells in red and green where each pixel is, a view tells the map by which it was laid."""
    side, count = 64, 40
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    x = torch.stack([at.expand(side, -1), at[:, None].expand(-1, side), torch.zeros(side, side)])[None]
    views = look(x, side, count, strength=1, generator=generator())
    middle = slice(side // 2 - 8, side // 2 + 8)
    places = torch.cartesian_prod(at[middle], at[middle]).flip(1)
    design = torch.cat([places, torch.ones(len(places), 1)], dim=1)
    told = views[:, :2, middle, middle].flatten(2).transpose(1, 2)  # (V, places, 2)
    laid = torch.linalg.lstsq(design.expand(count, -1, -1), told).solution[:, :2]
    scales, turns = laid.det().abs().sqrt().log(), torch.atan2(laid[:, 1, 0], laid[:, 0, 0])
    slack = 0.1  # the noise of a view
    assert CLOSEST - slack < scales.min() < -0.35
    assert -0.1 < scales.max() < FURTHEST + slack
    assert 0.5 * TURN < turns.abs().max() < TURN + slack
    assert (views - views.mean(0)).abs().mean() > 0.05


def test_views_are_the_generators_and_their_gradients_reach_the_whole_picture():
    x = drawn(48).requires_grad_()
    one, same, other = (look(x, 16, 12, strength=1, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    one.square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().amax(1) > 0).float().mean() > 0.97


@pytest.mark.parametrize("basis", ["pixels", "fourier"])
def test_an_ascent_finds_the_picture_that_scores_highest(basis):
    target = 0.5 * drawn(16, seed=2)
    canvas = make_canvas(basis, torch.zeros(1, 3, 16, 16))
    how = Ascent(basis=basis, steps=120, views=1, strength=0, rate=0.05)
    scores = list(ascend(canvas, lambda views: -(views - target).square().mean((1, 2, 3)), 16, how, generator()))
    assert scores[0] == pytest.approx(-target.square().mean().item(), rel=1e-3)
    assert scores[-1] > -1e-3
    assert len(scores) == 120


def cosine(clip: Clip, image: Image.Image, prompt: str) -> float:
    return float(unit(clip.images([image]))[0] @ unit(clip.texts([prompt]))[0])


@pytest.mark.parametrize("basis", ["pixels", "fourier"])
def test_the_score_rises_and_a_seed_gives_its_bytes(clip, basis):
    how = Ascent(basis=basis, steps=20, views=4)
    steps = list(optimize(clip, "a red disc", seed=5, how=how))
    assert [step.index for step in steps] == list(range(20))
    assert cosine(clip, steps[-1].image(), "a red disc") > cosine(clip, steps[0].image(), "a red disc") + 0.05
    *_, again = optimize(clip, "a red disc", seed=5, how=how)
    assert again.image().tobytes() == steps[-1].image().tobytes()
    *_, other = optimize(clip, "a red disc", seed=6, how=how)
    assert other.image().tobytes() != steps[-1].image().tobytes()


def test_the_first_steps_of_an_ascent_are_a_shorter_one(clip):
    whole = list(optimize(clip, "a cat", how=FEW))
    *_, short = optimize(clip, "a cat", how=FEW.model_copy(update={"steps": 4}))
    assert short.image().tobytes() == whole[3].image().tobytes()
    assert whole[3].settings == short.settings
    assert [step.index for step in whole if step.filmed] == [0, 5]


def test_an_ascent_begins_with_a_picture(clip):
    picture = Image.new("RGB", (60, 40), (200, 30, 30))
    picture.paste((20, 20, 220), (15, 0, 35, 40))
    how = Ascent(steps=1, views=1, rate=1e-6, size=24)
    (step,) = optimize(clip, "a cat", image=picture, how=how)
    assert step.x.shape == (1, 3, 24, 24)
    square = to_tensor([picture.crop((10, 0, 50, 40)).resize((24, 24), Image.Resampling.BICUBIC)])
    assert (step.x - square).abs().max() < 0.01
    assert step.settings["parents"][1].keys() == {"pixels"}


def test_settings_say_what_was_asked(clip):
    *_, step = optimize(clip, "a cat", seed=3, how=FEW)
    assert isinstance(step, Step)
    settings = {"task": "optimize", "seed": 3, "clip": "micro", "basis": "fourier", "steps": 6, "size": 32, "views": 2}
    assert step.image().info["unclip"] == {**settings, "strength": 1.0, "parents": [{"prompt": "a cat"}]}


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_no_prompt_is_refused(clip, prompt):
    with pytest.raises(RequestError, match="the prompt is empty"):
        next(optimize(clip, prompt))


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"size": 15}, {"size": 1025}, {"views": 0}, {"strength": -1}, {"strength": math.nan}, {"rate": 0}],
)
def test_what_no_ascent_can_be_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^options: {name} = "):
        Ascent.parse(wrong, where="options")


def test_pixels_of_another_kind_than_pictures_are_refused(clip):
    with pytest.raises(RequestError, match="expected 8 to"):
        next(optimize(clip, "a cat", image=Image.fromarray(np.zeros((4, 4, 3), np.uint8))))
