"""Training the decoder (2204.06125, section 2.1): paint a pool's pictures from z and caption, each dropped at times."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from unclip.config import Config
from unclip.data.holes import random_known
from unclip.data.order import Order
from unclip.data.pool import NULL_ROW, Embedded, Pool
from unclip.diffusion.guidance import GuidanceConfig
from unclip.diffusion.process import DiffusionConfig, draw_timesteps, interpret, q_sample, training_losses
from unclip.errors import ConfigError
from unclip.images import grid, resize, to_images
from unclip.models.clip import Text
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.known import Known
from unclip.rng import Rng
from unclip.seeds import mix
from unclip.stages import SamplingConfig, sample_decoder
from unclip.train.optimizer import Schedule

LAYOUT_BATCH, LAYOUT_RATE, SAY_EVERY = 384, 2e-3, 500
SHOWN = 16  # pictures in the preview, half of them from the validation pool


class DecoderData(Config):
    pool: Path
    valid: Path | None = None
    clip: str | None = None  # the fingerprint that both pools must have been embedded with
    seed: int = 0
    drop_z: float = Field(default=0.1, ge=0, le=1)
    drop_text: float = Field(default=0.5, ge=0, le=1)
    z_noise: float = Field(default=0.0, ge=0)  # the most noise that z gets, in standard deviations of each of its numbers
    inpaint: float = Field(default=0.0, ge=0, le=1)  # the share of samples of which a part is known
    inpaint_z_noise: float = Field(default=0.0, ge=0)  # the most noise that their z gets besides
    layout_steps: int = Field(default=4000, ge=0)  # for which the layout, if there is one, is trained when a run begins


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
        if data.inpaint and not model.inpaint:
            raise ConfigError(
                f"data.inpaint is {data.inpaint:g}, but model.inpaint is false: what is known would not be seen"
            )
        self.data = data
        self.side = model.unet.image_size
        self.diffusion = diffusion
        self.schedule = diffusion.noise_schedule()
        self.module = Decoder(model)
        if self.module.layout is not None:
            self.module.layout.requires_grad_(False)
        self._z_std = self.embedded.z.float().std(0)
        self.order = Order(len(self.pool), data.seed)

    def prepare(self, say: Callable[[str], object]) -> None:
        """Trains the layout, which then stays as it is.

        Alone, that MLP sees thousands of pictures a second, where the whole decoder sees dozens; and it needs a rate that
        falls, while the decoder's stays high for long.
        """
        if self.module.layout is None:
            return
        layout, embedded = self.module.layout.requires_grad_(), self.embedded
        device, count, steps = self.module.null_z.device, len(self.pool), self.data.layout_steps
        parts = (list(range(first, min(first + 1000, count))) for first in range(0, count, 1000))
        small = torch.cat([resize(self.pool.tensor(rows, self.side), layout.side) for rows in parts])
        null = self._null(device).pooled
        generator = torch.Generator().manual_seed(mix(self.data.seed, count))
        optimizer = torch.optim.AdamW(layout.parameters(), weight_decay=0.01)
        rate = Schedule(steps, LAYOUT_RATE, decay="wsd", cooldown=0.5)
        for step in range(steps):
            rows = torch.randint(count, (LAYOUT_BATCH,), generator=generator)
            drop_z, drop_text = (
                (torch.rand(LAYOUT_BATCH, 1, generator=generator) < share).to(device)
                for share in (self.data.drop_z, self.data.drop_text)
            )
            z = torch.where(drop_z, self.module.null_z.detach(), self._blur(embedded.z[rows].float(), generator).to(device))
            pooled = torch.where(drop_text, null, embedded.pooled[embedded.caption[rows]].to(device).float())
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
            error = (layout(z, pooled) - small[rows].to(device)).square().mean()
            error.backward()
            optimizer.step()
            if (step + 1) % SAY_EVERY == 0 or step + 1 == steps:
                say(f"the layout first: step {step + 1:,} of {steps:,}, squared error {error.item():.4f}")
        layout.requires_grad_(False).zero_grad()

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
        known = self._known(x0, generator)
        z = self._blur(batch["z"].float(), generator, known)
        text = _drop(Text(batch["pooled"], batch["states"].float(), batch["mask"]), self._null(device), drop_text)
        x_t = q_sample(self.schedule, x0, t, noise).contiguous(memory_format=torch.channels_last)
        output = self.module(x_t, t, z, text, drop_z, known)
        losses = training_losses(self.diffusion, self.schedule, output, x0, x_t, noise, t)
        noisy = t >= len(self.schedule) // 2
        return losses.mean(), {
            "loss_noisy": (losses * noisy).sum().detach() / noisy.sum().clamp(min=1),
            "loss_clean": (losses * ~noisy).sum().detach() / (~noisy).sum().clamp(min=1),
        }

    def _known(self, x0: Tensor, generator: torch.Generator) -> Known | None:
        """A part of some of the pictures, for a decoder that learns to inpaint; of the others nothing."""
        if not self.data.inpaint:
            return None
        shown = torch.rand(len(x0), generator=generator, device=x0.device) < self.data.inpaint
        mask = random_known(len(x0), self.side, generator, x0.device)
        return Known(x0, mask * shown[:, None, None, None])

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
        figures = {"loss": float(losses.mean()), "loss_noisy": float(losses[len(rows) // 2 :].mean())}
        if self.data.inpaint:
            mask = random_known(len(rows), self.side, torch.Generator().manual_seed(0))
            known = Known(x0, mask)
            output = module(x_t.to(device), t.to(device), embedded.z[rows].to(device), text, None, known.to(device)).cpu()
            error = (interpret(self.diffusion, self.schedule, output, x_t, t).x0 - x0).square() * (1 - mask)
            figures["holes"] = float(error.mean() / (1 - mask).mean())
        return figures

    def _blur(self, z: Tensor, generator: torch.Generator, known: Known | None = None) -> Tensor:
        """z with up to `data.z_noise` standard deviations of noise, uniformly much (conditioning augmentation, 2106.15282).

        A prior's z is never quite the picture's, and a decoder that has only seen true ones believes every bit of it, also
        where the caption knows better. Nor does it look at the part that is known, as long as a true z says it all: those
        samples get `data.inpaint_z_noise` more.
        """
        most = self.data.z_noise
        if known is not None:
            most = most + self.data.inpaint_z_noise * known.mask.amax((1, 2, 3))[:, None]
        elif not most:
            return z
        share = torch.rand(len(z), 1, generator=generator, device=z.device)
        noise = torch.randn(z.shape, generator=generator, device=z.device)
        return z + most * share * noise * self._z_std.to(z.device)

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
