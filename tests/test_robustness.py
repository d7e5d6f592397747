"""Corruptions by what they must do to pictures that are known, and a network that is taught labels until it knows them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import COLOURS

from unclip.evaluate.corruptions import CORRUPTIONS, blurred, coarse, grey, inverted, noisy, outline, turned
from unclip.evaluate.supervised import Labelled, LabelObjective, linear_probe, scores
from unclip.images import from_pixels
from unclip.models.clip import SIZES
from unclip.train.config import TrainConfig
from unclip.train.loop import train
from unclip.train.state import load_weights

FLAT = torch.tensor([0.4, -0.7, 0.1]).view(1, 3, 1, 1).expand(2, 3, 64, 64)


@pytest.fixture(scope="module")
def x(squares):
    return from_pixels(np.stack([squares.sample(position, 64).image for position in range(6)]))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_keeps_shape_and_range_and_does_the_same_again(name, x):
    made = CORRUPTIONS[name](x)
    assert (made.shape, made.dtype) == (x.shape, x.dtype)
    assert made.abs().max() <= 1 + 1e-6
    assert torch.equal(made, CORRUPTIONS[name](x))
    assert torch.equal(made, x) == (name == "as it is")


def test_an_outline_is_black_where_colours_step_and_blank_where_nothing_does():
    torch.testing.assert_close(outline(FLAT), torch.ones_like(FLAT))
    halves = FLAT.clone()
    halves[:, 2, :, 32:] = 0.9  # one channel alone, luma hardly changes
    drawn = outline(halves)
    assert (drawn[..., 31:33] == -1).all()
    assert (drawn[..., :31] > 0.999).all()
    assert (drawn[..., 33:] > 0.999).all()
    torch.testing.assert_close(outline(halves.transpose(2, 3)), drawn.transpose(2, 3))


def test_grey_has_equal_channels_and_leaves_grey_as_it_is(x):
    made = grey(x)
    assert torch.equal(made[:, 0], made[:, 1])
    assert torch.equal(made[:, 0], made[:, 2])
    torch.testing.assert_close(grey(made), made)
    torch.testing.assert_close(grey(torch.ones(1, 3, 8, 8)), torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize("soften", [blurred, coarse])
def test_a_picture_without_detail_has_none_to_lose(soften, x):
    torch.testing.assert_close(soften(FLAT), FLAT)
    assert soften(x).var() < x.var()


def test_the_blur_spreads_a_point_to_a_gaussian():
    point = torch.full((1, 3, 64, 64), -1.0)
    point[..., 32, 32] = 1
    spread = (blurred(point)[0, 0] + 1) / 2
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        spread[32, 34] / spread[32, 32], torch.tensor(0.5).neg().exp(), atol=1e-4, rtol=0
    )  # two pixels are one sigma


def test_turning_by_nothing_is_nothing_and_by_quarters_is_exact(x):
    assert torch.equal(turned(x, 0), x)
    assert torch.equal(turned(turned(x, 90), 270), x)
    assert torch.equal(turned(x, 90)[0, 0], x[0, 0].T.flip(0))
    torch.testing.assert_close(turned(x, 1e-4), x, atol=1e-3, rtol=0)
    torch.testing.assert_close(turned(FLAT, 15), FLAT)


def test_turning_by_an_angle_goes_the_way_that_quarters_go():
    dot = -torch.ones(1, 3, 64, 64)
    dot[..., 30:34, 54:58] = 1  # at three o'clock
    for degrees in (15, 90):
        light = (turned(dot, degrees)[0, 0] + 1).clamp(min=0)
        rows, columns = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
        angle = torch.atan2(-(light * rows).sum(), (light * columns).sum()).rad2deg()
        assert abs(float(angle) - degrees) < 0.5


def test_inverting_twice_is_nothing_and_noise_has_its_strength(x):
    assert torch.equal(inverted(inverted(x)), x)
    added = noisy(torch.zeros(4, 3, 64, 64))
    assert abs(float(added.std()) - 0.36) < 0.01
    assert not torch.equal(added[0], added[1])


@pytest.fixture(scope="module")
def coloured(squares):
    """Squares with their colour as label; of those in one corner nothing is said."""
    samples = [squares.sample(position, 32) for position in range(48)]
    colours = [next(colour for colour in COLOURS if colour in sample.caption) for sample in samples]
    labels = [None if "top left" in s.caption else colour for s, colour in zip(samples, colours, strict=True)]
    return Labelled(np.stack([sample.image for sample in samples]), labels), Labelled(
        np.stack([sample.image for sample in samples]), colours
    )


def test_a_batch_holds_what_has_a_label_each_once_an_epoch(coloured):
    taught, every = coloured
    torch.manual_seed(0)
    objective = LabelObjective(SIZES["micro"], taught, every)
    assert objective.classes == sorted(COLOURS)
    assert len(taught.rows) == 36
    batch = objective.batch(range(36))
    assert torch.bincount(batch["label"]).tolist() == [9, 9, 9, 9]
    assert len({picture.numpy().tobytes() for picture in batch["images"]}) == 36
    loss, _ = objective.loss(batch, torch.Generator())
    assert abs(loss.item() - np.log(4)) < 1.5


def test_a_network_learns_the_labels_of_squares(coloured, tmp_path):
    taught, every = coloured
    torch.manual_seed(0)
    objective = LabelObjective(SIZES["micro"], taught, every)
    cfg = TrainConfig(steps=60, batch=36, lr=3e-3, warmup=5, ema=0.9, evaluate_every=60, precision="fp32", threads=1)
    before = objective.evaluate(objective.module.eval())
    train(objective, cfg, tmp_path / "run")
    load_weights(tmp_path / "run", objective.module)
    after = objective.evaluate(objective.module.eval())
    assert before["top1"] < 0.6
    assert after["top1"] == 1.0  # also in the corner that it was not taught
    given = scores(objective.module, from_pixels(every.pixels))
    assert [objective.classes[place] for place in given.argmax(1)] == every.labels


def test_a_probe_is_the_logistic_regression_of_the_features_as_they_are():
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(300) % 3
    centres = torch.tensor([[3.0, 0.0, 100.0], [0.0, 3.0, 100.0], [-3.0, -3.0, 100.0]])
    z = centres[label] + torch.randn(300, 3, generator=generator) * torch.tensor([1.0, 1.0, 20.0])
    probe = linear_probe(z, label, 3, decay=1e-2)
    assert (probe(z).argmax(1) == label).float().mean() > 0.95
    # At the minimum the loss's gradient in the weights of standardised features is the decay's, that of the bias 0.
    std = z.std(0)
    probe.requires_grad_()
    loss = F.cross_entropy(probe(z), label) + 1e-2 / 2 * (probe.weight * std).square().sum()
    loss.backward()
    assert probe.bias.grad.abs().max() < 1e-3
    standardised = (probe.weight.grad - probe.bias.grad[:, None] * z.mean(0)) / std
    assert standardised.abs().max() < 1e-3
