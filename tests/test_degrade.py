"""What is done to an upsampler's small image: reproducible from the generator, image by image, and never out of range."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.data import degrade
from unclip.images import from_pixels, to_pixels


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _drawings(count, side=24):
    """Coloured discs on white, smooth at their rims."""
    axis = torch.arange(side) - (side - 1) / 2
    radius = (axis[:, None].square() + axis[None].square()).sqrt()
    inside = torch.sigmoid(side / 3 - radius)
    colors = torch.rand(count, 3, 1, 1, generator=_generator(9)) * 2 - 1
    return inside * colors + (1 - inside)


@pytest.mark.parametrize("corrupt", [degrade.blur, degrade.bsr])
def test_the_generator_decides_everything(corrupt):
    x = _drawings(6)
    first, again, other = corrupt(x, _generator(1)), corrupt(x, _generator(1)), corrupt(x, _generator(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == x.shape
    assert first.dtype == x.dtype


@pytest.mark.parametrize("corrupt", [degrade.blur, degrade.bsr])
def test_what_happens_to_an_image_does_not_depend_on_the_others(corrupt):
    x = _drawings(6)
    changed = x.clone()
    changed[2] = -1
    difference = (corrupt(x, _generator(1)) - corrupt(changed, _generator(1))).abs().amax(dim=(1, 2, 3))
    assert difference[2] > 0
    assert difference[[0, 1, 3, 4, 5]].max() < 1e-6


@pytest.mark.parametrize("corrupt", [degrade.blur, degrade.bsr])
def test_autocast_does_not_coarsen_it(corrupt):
    x = _drawings(6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = corrupt(x, _generator(1))
    assert torch.equal(inside, corrupt(x, _generator(1)))


@pytest.mark.parametrize("corrupt", [degrade.blur, degrade.bsr])
def test_at_probability_0_nothing_happens(corrupt):
    x = _drawings(6)
    assert torch.equal(corrupt(x, _generator(), probability=0.0), x)


def test_bsr_of_strength_0_is_the_identity():
    x = _drawings(6)
    assert torch.equal(degrade.bsr(x, _generator(), strength=0.0), x)


@pytest.mark.parametrize("strength", [1.0, 2.0, 5.0])
def test_bsr_stays_in_range(strength):
    x = torch.cat([_drawings(6), torch.ones(2, 3, 24, 24), -torch.ones(2, 3, 24, 24)])
    degraded = degrade.bsr(x, _generator(), strength=strength, probability=1.0)
    assert degraded.isfinite().all()
    assert degraded.abs().max() <= 1


def test_more_strength_does_more_harm():
    x = _drawings(32)
    harm = [float((degrade.bsr(x, _generator(), strength=strength) - x).square().mean()) for strength in (0.3, 1.0, 2.0)]
    assert 0 < harm[0] < harm[1] < harm[2]


def test_blur_falls_on_half_of_the_images_and_keeps_their_mean():
    x = _drawings(200, side=12)
    touched = (degrade.blur(x, _generator(3)) != x).flatten(1).any(1)
    assert abs(float(touched.float().mean()) - 0.5) < 4 * math.sqrt(0.25 / 200)
    flat = torch.full((4, 3, 8, 8), 0.3)
    torch.testing.assert_close(degrade.blur(flat, _generator(), probability=1.0), flat)


def test_blur_is_a_gaussian_of_the_given_sigma():
    dot = torch.zeros(1, 3, 9, 9)
    dot[..., 4, 4] = 1
    blurred = degrade.blur(dot, _generator(), probability=1.0, sigma=(0.6, 0.6))[0, 0]
    assert blurred.count_nonzero() == 9
    ratio = math.exp(-1 / (2 * 0.6**2))
    expected = torch.tensor([blurred[4, 4] * ratio, blurred[4, 4] * ratio**2])
    torch.testing.assert_close(torch.stack([blurred[4, 5], blurred[5, 5]]), expected)


def test_an_anisotropic_kernel_has_the_covariance_it_was_asked_for():
    wide, narrow, angle = 1.1, 0.7, 0.5
    kernel = degrade.gaussian_kernels(*(torch.tensor([v], dtype=torch.float64) for v in (wide, narrow, angle)), side=15)[0]
    axis = torch.arange(15, dtype=torch.float64) - 7
    x, y = axis[None].expand(15, 15), axis[:, None].expand(15, 15)
    points = torch.stack([x, y]).flatten(1)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    expected = turn @ torch.diag(torch.tensor([wide**2, narrow**2], dtype=torch.float64)) @ turn.T
    torch.testing.assert_close((points * kernel.flatten()) @ points.T, expected, rtol=2e-3, atol=2e-3)
    assert float(kernel.sum()) == pytest.approx(1)


def test_the_jpeg_step_is_pillows():
    x = _drawings(1)
    file = io.BytesIO()
    Image.fromarray(to_pixels(x)[0]).save(file, format="JPEG", quality=degrade.JPEG_WORST)
    expected = from_pixels(np.asarray(Image.open(file)))
    torch.testing.assert_close(degrade._jpeg(x, [1.0, 0.0, 0.0], x[0], 1.0)[0], expected)
