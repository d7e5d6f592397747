"""Upsamplers: the residual to the bicubic image, crops, training on a toy pool, cost of the shipped sizes."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from unclip.data.pool import Pool, build
from unclip.data.source import Sample
from unclip.diffusion.process import DiffusionConfig, interpret, q_sample
from unclip.errors import ConfigError
from unclip.images import from_pixels, resize
from unclip.models.upsampler import SIZES, Upsampler, UpsamplerConfig
from unclip.train.objectives.upsampler import UpsamplerData, UpsamplerObjective, psnr

X0 = DiffusionConfig(prediction="x0")
MICRO = SIZES["micro"][64]


class Discs:
    """Sharp discs of random colour, place and size on white."""

    def sample(self, position: int, size: int) -> Sample:
        rng = np.random.default_rng(position)
        x, y, radius = (*rng.uniform(0.3, 0.7, 2), rng.uniform(0.15, 0.3))
        axis = (np.arange(size) + 0.5) / size
        inside = (axis[None] - x) ** 2 + (axis[:, None] - y) ** 2 < radius**2
        image = np.where(inside[..., None], rng.integers(0, 200, 3), 255).astype(np.uint8)
        return Sample(f"disc {position}", image, f"disc {position}")


class Coordinates:
    """Red is the row, green the column."""

    def sample(self, position: int, size: int) -> Sample:
        image = np.zeros((size, size, 3), np.uint8)
        image[..., 0], image[..., 1] = np.arange(size)[:, None], np.arange(size)[None]
        return Sample(str(position), image, "coordinates")


class MostlyEmpty:
    """White, but for noise in the lower right quarter."""

    def sample(self, position: int, size: int) -> Sample:
        image = np.full((size, size, 3), 255, np.uint8)
        image[size // 2 :, size // 2 :] = np.random.default_rng(position).integers(0, 255, (size // 2, size // 2, 3))
        return Sample(str(position), image, "noise")


def _pool(folder, source, *, samples=4, size=64):
    build(source, folder, samples=samples, size=size, name="test", threads=1)
    return folder


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return _pool(tmp_path_factory.mktemp("pools") / "discs", Discs(), samples=8)


def _random(cfg: UpsamplerConfig) -> Upsampler:
    """An upsampler without a single zero-initialised layer."""
    torch.manual_seed(0)
    module = Upsampler(cfg).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return module


# The network


def test_untrained_with_residual_the_network_is_the_bicubic_enlargement():
    module = Upsampler(MICRO)
    assert module.cfg.residual
    low, x_t = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 3, 32, 32)
    enlarged = module.enlarge(low)
    torch.testing.assert_close(module(x_t, torch.tensor([3, 999]), enlarged), enlarged)


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_untrained_without_residual_it_sees_grey_or_the_scaled_noisy_image(prediction):
    module = Upsampler(MICRO.model_copy(update={"residual": False}))
    diffusion = DiffusionConfig(prediction=prediction)
    schedule, t = diffusion.noise_schedule(), torch.tensor([100, 900])
    x0, noise = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 3, 32, 32)
    x_t = q_sample(schedule, x0, t, noise)
    answer = interpret(diffusion, schedule, module(x_t, t, x0), x_t, t).x0
    expected = torch.zeros_like(x0) if prediction == "x0" else schedule.at("signal", t, x_t) * x_t
    torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (96, 32)])
def test_one_network_enlarges_any_shape(shape):
    module = _random(MICRO)
    enlarged = module.enlarge(torch.rand(1, 3, shape[0] // 2, shape[1] // 2))
    assert module(torch.randn(1, 3, *shape), torch.tensor([5]), enlarged).shape == (1, 3, *shape)


def test_far_from_its_border_a_crop_is_painted_as_the_whole_is():
    module = _random(MICRO)
    generator = torch.Generator().manual_seed(1)
    x_t, low = (torch.randn(1, 3, 192, 192, generator=generator) for _ in range(2))
    t = torch.tensor([300])
    with torch.no_grad():
        whole = module(x_t, t, low)[..., 16:176, 16:176]
        crop = module(x_t[..., 16:176, 16:176], t, low[..., 16:176, 16:176])
    torch.testing.assert_close(crop[..., 72:88, 72:88], whole[..., 72:88, 72:88], rtol=1e-4, atol=1e-4)
    assert (crop - whole).abs().max() > 1e-2  # at its border it is not


@pytest.mark.parametrize(
    ("change", "message"), [({"low": 48}, "multiple"), ({"high": 128}, "image_size"), ({"residual": True}, "out_channels")]
)
def test_an_impossible_shape_is_refused(change, message):
    values = MICRO.model_dump() | {"residual": False} | change
    if change.get("residual"):
        values["unet"]["out_channels"] = 6
    with pytest.raises(ValidationError, match=message):
        UpsamplerConfig.model_validate(values)


@pytest.mark.parametrize(("high", "gigaflops", "millions"), [(64, 1, 1), (256, 6.1, 1.1), (1024, 97, 1.1)])
def test_the_shipped_sizes_are_cheap(high, gigaflops, millions):
    """Forward, a picture and a step; measured on a quarter of the side, since a network of convolutions scales."""
    cfg = SIZES["icons"][high]
    module, side = Upsampler(cfg), high // 4
    x = torch.zeros(1, 3, side, side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x, torch.zeros(1), x)
    assert counter.get_total_flops() * 16 < gigaflops * 1e9
    assert sum(parameter.numel() for parameter in module.parameters()) < millions * 1e6


def test_the_shipped_1024_can_start_from_the_256():
    shapes = [
        {name: tensor.shape for name, tensor in Upsampler(SIZES["icons"][high]).state_dict().items()} for high in (256, 1024)
    ]
    assert shapes[0] == shapes[1]


# Crops


def test_crops_begin_on_a_pixel_of_the_small_image_and_are_a_function_of_the_position(tmp_path):
    pool = _pool(tmp_path / "pool", Coordinates(), size=256)
    cfg = SIZES["micro"][256]
    objective = UpsamplerObjective(cfg, X0, UpsamplerData(pool=pool, seed=5))
    crops = objective.batch(range(40))["crops"]
    assert crops.shape == (40, 64, 64, 3)
    assert crops.dtype == torch.uint8
    corners = crops[:, 0, 0, :2].long()
    assert (corners % 4 == 0).all()
    assert corners.min() < 64 < 128 < corners.max()
    assert len(corners.unique(dim=0)) > 30
    assert torch.equal(objective.batch([7, 31])["crops"], crops[[7, 31]])
    other = UpsamplerObjective(cfg, X0, UpsamplerData(pool=pool, seed=6)).batch(range(40))["crops"]
    assert not torch.equal(other, crops)


def test_of_two_crops_the_busier_is_taken(tmp_path):
    pool = _pool(tmp_path / "pool", MostlyEmpty())
    objective = UpsamplerObjective(MICRO, X0, UpsamplerData(pool=pool, crop=16))
    crops = objective.batch(range(400))["crops"]
    busy = (crops.flatten(1).amin(1) < 255).float().mean()
    # A crop of 16 px meets the quarter, from 32 on, if both its offsets, of 0, 2, ... 48, are past 16.
    by_chance = (16 / 25) ** 2
    assert by_chance + 0.1 < busy <= 1 - (1 - by_chance) ** 2 + 0.08


def test_a_crop_as_large_as_the_picture_is_the_picture(discs):
    objective = UpsamplerObjective(MICRO, X0, UpsamplerData(pool=discs, crop=64))
    rows = [objective.order(position) for position in range(4)]
    assert torch.equal(objective.batch(range(4))["crops"], Pool(discs).pixels(rows))


# Training


@pytest.mark.parametrize("corruption", ["none", "blur", "bsr"])
def test_training_on_discs_lowers_the_loss(discs, corruption):
    torch.manual_seed(0)
    objective = UpsamplerObjective(MICRO, X0, UpsamplerData(pool=discs, crop=16, corruption=corruption))
    optimizer = torch.optim.Adam(objective.module.parameters(), lr=3e-3)
    batch = objective.batch(range(4))
    losses = []
    for _ in range(30):
        loss, metrics = objective.loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
    assert float(metrics["gain_db"]) > 1


def test_the_generator_decides_the_loss(discs):
    objective = UpsamplerObjective(MICRO, X0, UpsamplerData(pool=discs, crop=32, corruption="bsr"))
    batch = objective.batch(range(4))
    values = [float(objective.loss(batch, torch.Generator().manual_seed(seed))[0].detach()) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_untrained_its_figures_are_those_of_the_bicubic_enlargement(discs):
    objective = UpsamplerObjective(MICRO, X0, UpsamplerData(pool=discs, valid=discs))
    with torch.no_grad():
        figures = objective.evaluate(objective.module.eval())
    truth = Pool(discs).tensor(range(8))
    bicubic = resize(resize(truth, 32), 64)
    expected = float(10 * (4 / (bicubic - truth).square().mean(dim=(1, 2, 3))).log10().mean())
    assert figures["psnr"] == pytest.approx(expected, abs=1e-3) == figures["psnr_bicubic"]
    assert figures["gain_db"] == pytest.approx(0, abs=1e-4)
    assert 0 < figures["sharpness"] == pytest.approx(figures["sharpness_bicubic"], rel=1e-3)
    assert figures["sharpness"] < 1


def test_the_preview_shows_small_bicubic_ours_and_truth(discs):
    objective = UpsamplerObjective(MICRO, X0, UpsamplerData(pool=discs, valid=discs))
    with torch.no_grad():
        sheet = objective.preview(objective.module.eval())
    assert sheet is not None
    assert sheet.width == 4 * (64 + 6) + 6
    first = from_pixels(np.asarray(sheet)[6 : 6 + 64, 6 + 3 * 70 : 6 + 3 * 70 + 64])
    assert psnr(first[None], Pool(discs).tensor([0]))[0] > 60


def test_without_a_validation_pool_there_are_no_figures(discs):
    objective = UpsamplerObjective(MICRO, X0, UpsamplerData(pool=discs))
    assert objective.evaluate(objective.module) == {}
    assert objective.preview(objective.module) is None


@pytest.mark.parametrize(
    ("cfg", "diffusion", "data", "message"),
    [
        (MICRO, DiffusionConfig(prediction="v"), {}, "diffusion.prediction is v"),
        (MICRO, X0, {"crop": 18}, "data.crop is 18"),
        (MICRO, X0, {"crop": 128}, "at most 64"),
        (SIZES["micro"][256], X0, {}, "is 64 px, but model.high is 256"),
        (MICRO.model_copy(update={"residual": False}), DiffusionConfig(learn_sigma=True), {}, "out_channels"),
    ],
)
def test_what_does_not_go_together_is_refused(discs, cfg, diffusion, data, message):
    with pytest.raises(ConfigError, match=message):
        UpsamplerObjective(cfg, diffusion, UpsamplerData(pool=discs, **data))
