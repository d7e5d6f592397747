"""Training the decoder (2204.06125, section 2.1): paint a pool's pictures from z and caption, each dropped at times."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from unclip.config import Config
from unclip.data.order import Order
from unclip.data.pool import NULL_ROW, Embedded, Pool
from unclip.diffusion.guidance import GuidanceConfig
from unclip.diffusion.process import DiffusionConfig, draw_timesteps, q_sample, training_losses
from unclip.errors import ConfigError
from unclip.images import grid, resize, to_images
from unclip.models.clip import Text
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.rng import Rng
from unclip.stages import SamplingConfig, sample_decoder

SHOWN = 16  # pictures in the preview, half of them from the validation pool


class DecoderData(Config):
    pool: Path
    valid: Path | None = None
    clip: str | None = None  # the fingerprint that both pools must have been embedded with
    seed: int = 0
    drop_z: float = Field(default=0.1, ge=0, le=1)
    drop_text: float = Field(default=0.5, ge=0, le=1)


class DecoderObjective:
    """Trains a decoder of `model`'s shape on the embedded pool `data.pool`."""

    def __init__(self, model: DecoderConfig, diffusion: DiffusionConfig, data: DecoderData):
        self.pool, self.embedded = _open(data.pool, data.clip, model)
        self.valid = None if data.valid is None else _open(data.valid, self.embedded.clip, model)
        channels = 3 * (1 + diffusion.learn_sigma)
        if model.unet.out_channels != channels:
            raise ConfigError(
                f"model.unet.out_channels is {model.unet.out_channels}, but diffusion.learn_sigma = {diffusion.learn_sigma} "
                f"needs {channels}"
            )
        self.data = data
        self.side = model.unet.image_size
        self.diffusion = diffusion
        self.schedule = diffusion.noise_schedule()
        self.module = Decoder(model)
        self.order = Order(len(self.pool), data.seed)

    def batch(self, positions: Sequence[int]) -> dict[str, Tensor]:
        rows = [self.order(position) for position in positions]
        caption = self.embedded.caption[rows]
        return {
            "images": self.pool.pixels(rows),
            "z": self.embedded.z[rows],
            "pooled": self.embedded.pooled[caption],
            "states": self.embedded.states[caption],
            "mask": self.embedded.mask[caption],
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        x0 = resize(batch["images"].movedim(-1, 1).float() / 127.5 - 1, self.side)
        count, device = len(x0), x0.device
        t = draw_timesteps(self.schedule, count, generator, device)
        noise = torch.randn(x0.shape, generator=generator, device=device)
        # Two independent coins per sample (section 2.1): .45 both kept, .45 z only, .05 caption only, .05 neither.
        drop_z = torch.rand(count, generator=generator, device=device) < self.data.drop_z
        drop_text = torch.rand(count, generator=generator, device=device) < self.data.drop_text
        text = _drop(Text(batch["pooled"], batch["states"].float(), batch["mask"]), self._null(device), drop_text)
        x_t = q_sample(self.schedule, x0, t, noise).contiguous(memory_format=torch.channels_last)
        output = self.module(x_t, t, batch["z"], text, drop_z)
        losses = training_losses(self.diffusion, self.schedule, output, x0, x_t, noise, t)
        noisy = t >= len(self.schedule) // 2
        return losses.mean(), {
            "loss_noisy": (losses * noisy).sum().detach() / noisy.sum().clamp(min=1),
            "loss_clean": (losses * ~noisy).sum().detach() / (~noisy).sum().clamp(min=1),
        }

    def preview(self, module: Decoder) -> Image.Image:
        """Truth above sample, at fixed noise: pictures known from training first, then held-out ones."""
        pairs = [(self.pool, self.embedded), *([] if self.valid is None else [self.valid])]
        count = SHOWN // len(pairs)
        sheets: list[Image.Image] = []
        captions: list[str] = []
        for pool, embedded in pairs:
            rows = [index * (len(pool) // count) for index in range(count)]
            drawn = self._paint(module, embedded, rows)
            sheets += [*to_images(pool.tensor(rows, self.side)), *to_images(drawn)]
            captions += [*(pool.captions[row] for row in rows), *("" for _ in rows)]
        larger = [image.resize((64, 64), Image.Resampling.BICUBIC) for image in sheets]
        return grid(larger, count, captions)

    def evaluate(self, module: Decoder) -> dict[str, float]:
        """The loss on the validation pool, at fixed noise and evenly spread timesteps."""
        if self.valid is None:
            return {}
        pool, embedded = self.valid
        device = next(module.parameters()).device
        rows = list(range(0, len(pool), max(1, len(pool) // 256)))[:256]
        x0 = pool.tensor(rows, self.side)
        noise = Rng(range(len(rows))).normal(x0.shape[1:])
        t = torch.arange(len(rows)) * len(self.schedule) // len(rows)
        x_t = q_sample(self.schedule, x0, t, noise)
        text = embedded.text(embedded.caption[rows]).to(device)
        output = module(x_t.to(device), t.to(device), embedded.z[rows].to(device), text).cpu()
        losses = training_losses(self.diffusion, self.schedule, output, x0, x_t, noise, t)
        return {"loss": float(losses.mean()), "loss_noisy": float(losses[len(rows) // 2 :].mean())}

    def _null(self, device: torch.device) -> Text:
        return self.embedded.text(torch.tensor([NULL_ROW])).to(device)

    def _paint(self, module: Decoder, embedded: Embedded, rows: list[int]) -> Tensor:
        device = next(module.parameters()).device
        text = embedded.text(embedded.caption[rows]).to(device)
        sampling = SamplingConfig(steps=20, guidance=GuidanceConfig(scale=2.0))
        rng = Rng(range(len(rows)), device=device)
        return sample_decoder(module, self.diffusion, sampling, embedded.z[rows].to(device), text, self._null(device), rng)


def _open(path: Path, clip: str | None, model: DecoderConfig) -> tuple[Pool, Embedded]:
    pool = Pool(path)
    embedded = Embedded(pool, clip=clip)
    given = (embedded.z.shape[1], embedded.pooled.shape[1], embedded.states.shape[2])
    expected = (model.embed, model.text_embed, model.text_width)
    if given != expected:
        raise ConfigError(f"{path} holds z, text and states of widths {given}, but the decoder's are {expected}")
    if pool.size < model.unet.image_size:
        raise ConfigError(f"{path} is {pool.size} px, but the decoder paints {model.unet.image_size} px")
    return pool, embedded


def _drop(text: Text, null: Text, drop: Tensor) -> Text:
    """The captions with those of `drop` (B,) replaced by the empty one."""
    pooled = torch.where(drop[:, None], null.pooled, text.pooled)
    states = torch.where(drop[:, None, None], null.states, text.states)
    return Text(pooled, states, torch.where(drop[:, None], null.mask, text.mask))
