"""GLIDE (2112.10741, section 4): a diffusion U-Net that paints from a caption alone, or enlarges, or fills a hole.

Dimension letters: B batch, L text tokens, C text width, E conditioning width, H W pixels.

- The caption goes through a transformer of the network's own that is not causal. Past its end stand learned padding
  vectors, one for each position, which are attended to like words; the empty caption is nothing but those.
- The state at the last position, word or padding, is projected and added to the timestep embedding; all L states are the
  U-Net's context, unmasked.
- The upsampler is the same network at a larger side, with the enlarged small image beside x_t. It reads the caption too.
- An inpainting network sees the known part of the picture beside x_t, and where that is.

A caption is encoded once and used by all steps: `encode_text`. Differs from the paper in the widths: ours are those of the
smaller networks that were released, which were trained on filtered pictures.
"""

import torch
import torch.nn.functional as F
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.layers import Transformer, gaussian, timestep_embedding
from unclip.models import known as knowns
from unclip.models.clip import Text, TextConfig
from unclip.models.known import Known
from unclip.models.unet import UNet, UNetConfig


class GlideConfig(Config):
    unet: UNetConfig
    text: TextConfig
    low: PositiveInt | None = None  # the small image's side, px; None: it paints from nothing
    inpaint: bool = False  # the known part of the picture and its mask stand beside x_t

    @model_validator(mode="after")
    def _consistent(self) -> "GlideConfig":
        channels = 3 + knowns.CHANNELS * self.inpaint + 3 * (self.low is not None)
        if self.unet.in_channels != channels:
            raise ValueError(f"unet.in_channels is {self.unet.in_channels}, but x_t and what is beside it are {channels}")
        if self.unet.context_width != self.text.width:
            raise ValueError(f"unet.context_width {self.unet.context_width} differs from text.width {self.text.width}")
        if self.low is not None and self.unet.image_size % self.low:
            raise ValueError(f"unet.image_size {self.unet.image_size} is no multiple of low {self.low}")
        return self


def _variants(base: UNetConfig, upsample: UNetConfig, text: TextConfig) -> dict[str, GlideConfig]:
    """The four networks of a release, by the names of its files."""
    low = base.image_size

    def beside(unet: UNetConfig, channels: int) -> UNetConfig:
        return unet.model_copy(update={"in_channels": 3 + channels})

    return {
        "base": GlideConfig(unet=base, text=text),
        "upsample": GlideConfig(unet=beside(upsample, 3), text=text, low=low),
        "base_inpaint": GlideConfig(unet=beside(base, 4), text=text, inpaint=True),
        "upsample_inpaint": GlideConfig(unet=beside(upsample, 7), text=text, low=low, inpaint=True),
    }


def _unet(
    side: int, channels: int, mult: tuple[float, ...], depth: int, *, attention: tuple[int, ...], text: int
) -> UNetConfig:
    return UNetConfig(
        image_size=side,
        channels=channels,
        mult=mult,
        depth=depth,
        attention=attention,
        head_channels=min(64, channels),
        dropout=0.1,
        out_channels=6,
        context_width=text,
    )


# By size, then by network. Published: glide-text2im's model_creation.py; 385M and 398M parameters, text included.
SIZES = {
    "micro": _variants(
        _unet(16, 32, (1, 2), 1, attention=(8,), text=48),
        _unet(32, 32, (1, 2), 1, attention=(16,), text=48),
        TextConfig(context=12, vocab=300, width=48, layers=2, heads=3),
    ),
    "published": _variants(
        _unet(64, 192, (1, 2, 3, 4), 3, attention=(32, 16, 8), text=512),
        _unet(256, 192, (1, 1, 2, 2, 4, 4), 2, attention=(32, 16, 8), text=512),
        TextConfig(context=128, vocab=50257, width=512, layers=16, heads=8),
    ),
}


class GlideText(nn.Module):
    """Token ids (B, L) with a mask (B, L), True on tokens -> Text, its pooled vector being (B, E)."""

    def __init__(self, cfg: TextConfig, embed: int):
        super().__init__()
        self.cfg = cfg
        self.token = nn.Embedding(cfg.vocab, cfg.width)
        self.position = gaussian(cfg.context, cfg.width, std=0.01)
        self.padding = gaussian(cfg.context, cfg.width, std=0.01)
        self.transformer = Transformer(cfg.width, cfg.layers, cfg.heads)
        self.norm_out = nn.LayerNorm(cfg.width)
        self.project = nn.Linear(cfg.width, embed)
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> Text:
        assert ids.shape[1] == self.cfg.context, "the last position is read: captions are padded to the context"
        x = torch.where(mask[..., None], self.token(ids) + self.position, self.padding)
        states = self.norm_out(self.transformer(x))
        return Text(self.project(states[:, -1]), states, mask)


class Glide(nn.Module):
    def __init__(self, cfg: GlideConfig):
        super().__init__()
        self.cfg = cfg
        width = cfg.unet.embed_width
        self.time = nn.Sequential(nn.Linear(cfg.unet.channels, width), nn.SiLU(), nn.Linear(width, width))
        self.text = GlideText(cfg.text, width)
        self.unet = UNet(cfg.unet)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Text:
        """What `forward` takes for the captions ids (B, L), mask (B, L); its pooled vector is made for this U-Net."""
        return self.text(ids, mask)

    def enlarge(self, low: Tensor) -> Tensor:
        """The small image (B, 3, h, w) at this network's side, bilinear, its values those of 8 bits as in training."""
        assert self.cfg.low is not None, "only an upsampler takes a small image"
        factor = self.cfg.unet.image_size // self.cfg.low
        size = (low.shape[2] * factor, low.shape[3] * factor)
        low = ((low.float() + 1) * 127.5).round() / 127.5 - 1
        return F.interpolate(low, size=size, mode="bilinear", align_corners=False)

    def forward(self, x_t: Tensor, t: Tensor, text: Text, low: Tensor | None = None, known: Known | None = None) -> Tensor:
        """The network's output (B, 6, H, W), eps and variance, at x_t (B, 3, H, W), t (B,), for the captions.

        `low` (B, 3, H, W): the enlarged small image, of an upsampler. `known`: what an inpainting network shall keep; None
        is nothing, and it then paints all of the picture.
        """
        assert (low is None) == (self.cfg.low is None), "an upsampler, and no other, takes an enlarged small image"
        beside = [x_t]
        if self.cfg.inpaint:
            beside.append(knowns.beside(known, x_t))
        else:
            assert known is None, "only an inpainting network takes a known part"
        if low is not None:
            beside.append(low)
        emb = self.time(timestep_embedding(t, self.cfg.unet.channels)) + text.pooled
        return self.unet(torch.cat([part.to(x_t.dtype) for part in beside], dim=1), emb, text.states)
