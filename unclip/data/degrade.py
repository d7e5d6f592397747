"""What training does to an upsampler's small image, so that the upsampler forgives what a decoder gives it.

Only the condition is degraded and only in training ("conditioning augmentation", 2106.15282); targets stay clean, and
sampling leaves the small image as it is. unCLIP blurs it for the first upsampler and applies "a more diverse BSR
degradation" to the second (2204.06125, section 2.1).

- `blur`: a 3 x 3 Gaussian, as SR3 (2104.07636); half of the examples and sigma from 0.4 to 0.6, as CDM (2106.15282). unCLIP
  says sigma 0.6 and not how often.
- `bsr`: blur, resize, sensor noise and JPEG in random order (BSRGAN, 2103.14006, section 3), about as far as latent
  diffusion's lighter variant goes (2112.10752). It differs in three ways. BSRGAN goes from the large image to the small one
  and shrinks on the way; here the image is small already, so its resize goes down a little and back. Its camera pipeline,
  measured on photographs, is shot noise here. And half of the examples stay clean, as with the blur: without them a network
  learns to soften clean pictures too, and loses to the bicubic enlargement there.

Images are (B, 3, h, w) in [-1, 1], float32. All dice are rolled at once from the generator, a row of them for each image:
what happens to one image does not depend on the others beside it.
"""

import io
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.images import from_pixels, to_pixels

KERNEL = 7  # side of BSR's blur kernels: three sigmas either side of the widest
BLUR_SIGMA = 0.8  # pixels of the small image; BSRGAN-light: 0.7 isotropic, up to 1.4 along one axis
SMALLEST = 0.6  # the resize's lower end, as a share of the side
NOISE = 8 / 255  # standard deviation as a share of the range
SHOT_NOISE = 8 / 255  # the same at full brightness
JPEG_BEST, JPEG_WORST = 95, 80
STEP_HAPPENS = 0.7  # the probability of each step
FILTERS: tuple[Literal["area", "bilinear", "bicubic"], ...] = ("area", "bilinear", "bicubic")

Dice = list[float]  # uniform in [0, 1)
Step = Callable[[Tensor, Dice, Tensor, float], Tensor]


def blur(
    x: Tensor, generator: torch.Generator, *, probability: float = 0.5, sigma: tuple[float, float] = (0.4, 0.6)
) -> Tensor:
    """Each image, with this probability, blurred by a 3 x 3 Gaussian; sigma, in pixels, is uniform between the two."""
    dice = torch.rand(len(x), 2, generator=generator, device=x.device)
    width = sigma[0] + (sigma[1] - sigma[0]) * dice[:, 0]
    blurred = _filter(x, gaussian_kernels(width, width, torch.zeros_like(width), side=3))
    return torch.where((dice[:, 1] < probability)[:, None, None, None], blurred, x)


def bsr(x: Tensor, generator: torch.Generator, *, strength: float = 1.0, probability: float = 0.5) -> Tensor:
    """Each image, with this probability, through BSR's steps in an order of its own.

    `strength` scales how far each step may go: 0 changes nothing, 1 is about latent diffusion's light variant, 2 comes near
    BSRGAN's own ranges for photographs. Clean artwork wants less than 1.
    """
    if strength == 0:
        return x
    degraded = (torch.rand(len(x), generator=generator, device=x.device) < probability).tolist()
    dice = torch.rand(len(x), len(STEPS), 5, generator=generator, device=x.device).tolist()
    noise = torch.randn(len(x), len(STEPS), *x.shape[1:], generator=generator, device=x.device)
    images = [_bsr(x[i : i + 1], dice[i], noise[i], strength) if degraded[i] else x[i : i + 1] for i in range(len(x))]
    return torch.cat(images)


def _bsr(x: Tensor, dice: list[Dice], noise: Tensor, strength: float) -> Tensor:
    for index in sorted(range(len(STEPS)), key=lambda step: dice[step][0]):
        _, happens, *rest = dice[index]
        if happens < STEP_HAPPENS:
            x = STEPS[index](x, rest, noise[index], strength).clamp(-1, 1)
    return x


def _blur(x: Tensor, dice: Dice, noise: Tensor, strength: float) -> Tensor:
    """An isotropic Gaussian or one that is wider along a random direction."""
    along, across, angle = dice
    wide, narrow = (max(0.05, BLUR_SIGMA * strength * u) for u in (along, across))
    if angle < 0.5:
        kernels = gaussian_kernels(x.new_tensor([wide]), x.new_tensor([wide]), x.new_zeros(1), side=KERNEL)
    else:
        turn = x.new_tensor([2 * math.pi * angle])
        kernels = gaussian_kernels(x.new_tensor([wide]), x.new_tensor([narrow]), turn, side=KERNEL)
    return _filter(x, kernels)


def _resize(x: Tensor, dice: Dice, noise: Tensor, strength: float) -> Tensor:
    """A little smaller and back, each way by a filter of its own."""
    share = 1 - (1 - SMALLEST) * min(strength, 2.0) * dice[0]
    height, width = x.shape[-2:]
    small = (max(1, round(height * share)), max(1, round(width * share)))
    return _interpolate(_interpolate(x, small, dice[1]), (height, width), dice[2])


def _noise(x: Tensor, dice: Dice, noise: Tensor, strength: float) -> Tensor:
    """Gaussian noise, of each channel or the same in all three."""
    field = noise if dice[1] < 0.5 else noise[:1]
    return x + 2 * NOISE * strength * dice[0] * field


def _shot_noise(x: Tensor, dice: Dice, noise: Tensor, strength: float) -> Tensor:
    """A sensor's noise: its standard deviation grows with the square root of the brightness."""
    brightness = ((x + 1) / 2).sqrt()
    return x + 2 * SHOT_NOISE * strength * dice[0] * brightness * noise


def _jpeg(x: Tensor, dice: Dice, noise: Tensor, strength: float) -> Tensor:
    """There and back through a JPEG file of random quality."""
    quality = max(10, round(JPEG_BEST - (JPEG_BEST - JPEG_WORST) * strength * dice[0]))
    file = io.BytesIO()
    Image.fromarray(to_pixels(x)[0]).save(file, format="JPEG", quality=quality)
    with Image.open(file) as image:
        return from_pixels(np.asarray(image.convert("RGB")))[None].to(x.device)


STEPS: tuple[Step, ...] = (_blur, _blur, _resize, _noise, _shot_noise, _jpeg)


def gaussian_kernels(wide: Tensor, narrow: Tensor, angle: Tensor, *, side: int) -> Tensor:
    """Gaussians (B, side, side) that sum to one: sigma `wide` along `angle` (radians), `narrow` across it, each (B,)."""
    axis = torch.arange(side, dtype=wide.dtype, device=wide.device) - (side - 1) / 2
    y, x = axis[:, None], axis[None, :]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = cos * x + sin * y, cos * y - sin * x
    exponent = (along / wide[:, None, None]).square() + (across / narrow[:, None, None]).square()
    kernels = (-0.5 * exponent).exp()
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)


def _filter(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image (B, 3, h, w) filtered by its kernel (B, k, k); the border repeats outwards."""
    batch, channels = x.shape[:2]
    side = kernels.shape[-1]
    padded = F.pad(x, (side // 2,) * 4, mode="replicate").flatten(0, 1)[None]
    weight = kernels.repeat_interleave(channels, dim=0)[:, None]
    with torch.autocast(x.device.type, enabled=False):  # training's bf16 would be coarser than the pixels
        return F.conv2d(padded, weight, groups=batch * channels)[0].unflatten(0, (batch, channels))


def _interpolate(x: Tensor, size: tuple[int, int], die: float) -> Tensor:
    mode = FILTERS[int(die * len(FILTERS))]
    if mode == "area":
        return F.interpolate(x, size=size, mode="area")
    return F.interpolate(x, size=size, mode=mode, antialias=True, align_corners=False)
