"""Training an upsampler: crops of a pool, made small and degraded, and the diffusion loss beside them.

unCLIP trains on crops of a quarter of the side and applies the network at full size (2204.06125, section 2.1). A crop is
shrunk by itself: at its border the filter sees less of the picture than it would at full size. Of two crops of a picture the
busier one is taken, since an empty corner teaches nothing.

The figures are of samples in few steps. The first step answers from pure noise, hence is close to the best guess in mean
squared error; further steps settle what that guess leaves blurred.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from unclip.config import Config
from unclip.data import degrade
from unclip.data.order import Order
from unclip.data.pool import Pool
from unclip.diffusion.process import DiffusionConfig, draw_timesteps, interpret, q_sample, training_losses
from unclip.errors import ConfigError
from unclip.images import grid, psnr, resize, to_images
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.rng import Rng
from unclip.seeds import mix
from unclip.stages import SamplingConfig, sample_upsampler

CROP_STREAM = 0xC409  # keeps the crops' dice apart from the order's
EVALUATED = 32  # pictures of the validation pool
SHOWN = 6  # pictures in the preview
SHOWN_SIDE = 512  # of the preview's pictures at most: their middle
AT_ONCE = 4  # pictures sampled together
SAMPLING = SamplingConfig(sampler="ddim", steps=4, eta=0.0)


class UpsamplerData(Config):
    pool: Path  # of pictures of the high side
    valid: Path | None = None
    seed: int = 0
    crop: int | None = None  # side of the training crops; a quarter of the high side if none is given
    corruption: Literal["none", "blur", "bsr"] = "blur"
    strength: float = Field(default=1.0, ge=0)  # of bsr: see data/degrade.py


class UpsamplerObjective:
    """Trains an upsampler of `model`'s shape on crops of `data.pool`; `sampling` is for its figures and previews."""

    def __init__(
        self, model: UpsamplerConfig, diffusion: DiffusionConfig, data: UpsamplerData, sampling: SamplingConfig = SAMPLING
    ):
        self.factor = model.high // model.low
        self.crop = model.high // 4 if data.crop is None else data.crop
        self.pool = _pool(data.pool, model.high)
        self.valid = None if data.valid is None else _pool(data.valid, model.high)
        _check(model, diffusion, self.crop)
        self.diffusion, self.data, self.sampling = diffusion, data, sampling
        self.schedule = diffusion.noise_schedule()
        self.module = Upsampler(model)
        self.order = Order(len(self.pool), data.seed)

    def prepare(self, say: Callable[[str], object]) -> None:
        return None

    def batch(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """uint8 crops (B, S, S, 3)."""
        return {"crops": torch.from_numpy(np.stack([self._crop(position) for position in positions]))}

    def _crop(self, position: int) -> np.ndarray:
        """The busier of two crops of the position's picture, each beginning on a pixel of the small image."""
        picture = self.pool.images[self.order(position)]
        places = (self.pool.size - self.crop) // self.factor + 1
        dice = mix(self.data.seed ^ CROP_STREAM, position)
        crops = []
        for _ in range(2):
            dice, row = divmod(dice, places)
            dice, column = divmod(dice, places)
            top, left = row * self.factor, column * self.factor
            crops.append(picture[top : top + self.crop, left : left + self.crop])
        return max(crops, key=lambda crop: crop[::4, ::4].std(axis=(0, 1)).sum())

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        x0 = batch["crops"].movedim(-1, 1).float() / 127.5 - 1
        low = self._corrupt(resize(x0, self.crop // self.factor), generator)
        enlarged = self.module.enlarge(low)
        t = draw_timesteps(self.schedule, len(x0), generator, x0.device)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        x_t = q_sample(self.schedule, x0, t, noise)
        output = self.module(x_t, t, enlarged)
        loss = training_losses(self.diffusion, self.schedule, output, x0, x_t, noise, t).mean()
        with torch.no_grad():
            answer = interpret(self.diffusion, self.schedule, output, x_t, t)
            gain = decibels((enlarged - x0).square().mean() / (answer.x0.clamp(-1, 1) - x0).square().mean())
        return loss, {"gain_db": gain}

    def _corrupt(self, low: Tensor, generator: torch.Generator) -> Tensor:
        if self.data.corruption == "blur":
            return degrade.blur(low, generator)
        return degrade.bsr(low, generator, strength=self.data.strength) if self.data.corruption == "bsr" else low

    def evaluate(self, module: Upsampler) -> dict[str, float]:
        """On held-out pictures: PSNR of ours and of the bicubic enlargement in dB, the difference, both's sharpness.

        Sharpness is the energy of the Laplacian over that of the true picture: 1 = as sharp as the truth.
        """
        if self.valid is None:
            return {}
        figures: list[Tensor] = []
        count = min(EVALUATED, len(self.valid))
        for start in range(0, count, AT_ONCE):
            rows = range(start, min(start + AT_ONCE, count))
            truth = self.valid.tensor(rows).to(next(module.parameters()).device)
            low = resize(truth, module.cfg.low)
            ours, bicubic = self._enlarge(module, low, rows), module.enlarge(low)
            columns = [
                psnr(ours, truth),
                psnr(bicubic, truth),
                _edges(ours) / _edges(truth),
                _edges(bicubic) / _edges(truth),
            ]
            figures.append(torch.stack(columns, dim=1).cpu())
        ours, bicubic, sharpness, bicubic_sharpness = torch.cat(figures).mean(0).tolist()
        return {
            "psnr": ours,
            "psnr_bicubic": bicubic,
            "gain_db": ours - bicubic,
            "sharpness": sharpness,
            "sharpness_bicubic": bicubic_sharpness,
        }

    def preview(self, module: Upsampler) -> Image.Image | None:
        """A row a picture: the small image, its bicubic enlargement, ours, the truth."""
        if self.valid is None:
            return None
        step = max(1, len(self.valid) // SHOWN)
        rows = range(0, len(self.valid), step)[:SHOWN]
        side = min(module.cfg.high, SHOWN_SIDE)
        start = (module.cfg.high - side) // 2 // self.factor * self.factor
        pictures, captions = [], []
        for row in rows:
            truth = self.valid.tensor([row])[..., start : start + side, start : start + side]
            low = resize(truth, side // self.factor)
            pixels = F.interpolate(low, size=(side, side), mode="nearest")
            low = low.to(next(module.parameters()).device)
            ours = self._enlarge(module, low, [row])
            pictures += [to_images(x)[0] for x in (pixels, module.enlarge(low), ours, truth)]
            captions += [
                f"{side // self.factor} px: {self.valid.captions[row]}",
                "bicubic",
                f"{self.sampling.steps} steps",
                "truth",
            ]
        return grid(pictures, 4, captions)

    def _enlarge(self, module: Upsampler, low: Tensor, seeds: Sequence[int]) -> Tensor:
        return sample_upsampler(lambda last: module, self.diffusion, self.sampling, low, Rng(seeds, device=low.device))


def decibels(ratio: Tensor) -> Tensor:
    return 10 * ratio.log10()


def _edges(x: Tensor) -> Tensor:
    """The mean square of each image's Laplacian (B,)."""
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (around - 4 * x[..., 1:-1, 1:-1]).square().flatten(1).mean(1)


def _pool(path: Path, side: int) -> Pool:
    pool = Pool(path)
    if pool.size != side:
        raise ConfigError(f"the pool {path} is {pool.size} px, but model.high is {side}")
    return pool


def _check(model: UpsamplerConfig, diffusion: DiffusionConfig, crop: int) -> None:
    """ConfigError where network, diffusion and crops do not go together."""
    grain = model.unet.fold * 2 ** (len(model.unet.mult) - 1)
    if not 0 < crop <= model.high or crop % grain or crop % (model.high // model.low):
        raise ConfigError(
            f"data.crop is {crop}: expected a multiple of {grain} (fold and levels) and of {model.high // model.low} "
            f"(high / low), at most {model.high}"
        )
    if model.residual and diffusion.prediction != "x0":
        raise ConfigError(
            f"model.residual adds the enlarged image to a predicted x0, but diffusion.prediction is {diffusion.prediction}"
        )
    if model.unet.out_channels != 3 * (1 + diffusion.learn_sigma):
        raise ConfigError(
            f"model.unet.out_channels is {model.unet.out_channels}, but diffusion.learn_sigma = {diffusion.learn_sigma} "
            f"needs {3 * (1 + diffusion.learn_sigma)}"
        )
