"""unCLIP's upsamplers (2204.06125, section 2.1 and appendix C): diffusion from a small image to a larger one.

An unconditional ADM U-Net without attention, text or guidance; the small image is enlarged (bicubic) and stands beside x_t
on the channels. Trained on crops, applied at full size, which a network of convolutions alone allows. What the training
does to the small image (blur, BSR degradation) is in `data/degrade.py`.

Not in the paper: `residual` adds the enlarged image to the output, which is then x0. An untrained network is the bicubic
enlargement and every step of training goes into what that lacks; it is what makes minutes of training on a CPU enough.
"""

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.images import resize
from unclip.layers import timestep_embedding
from unclip.models.unet import UNet, UNetConfig


class UpsamplerConfig(Config):
    unet: UNetConfig
    low: PositiveInt  # the small image's side, px
    high: PositiveInt  # the large image's side, px
    clamped: bool = True  # the enlarged image is clamped to [-1, 1]; Karlo's overshoots at edges, as bicubic filters do
    residual: bool = False  # the output is added to the enlarged image: for prediction x0 only

    @model_validator(mode="after")
    def _consistent(self) -> "UpsamplerConfig":
        if self.high % self.low:
            raise ValueError(f"high {self.high} is no multiple of low {self.low}")
        if self.unet.image_size != self.high:
            raise ValueError(f"unet.image_size is {self.unet.image_size}, but high is {self.high}")
        if self.residual and self.unet.out_channels != 3:
            raise ValueError(f"residual needs unet.out_channels 3, not {self.unet.out_channels}")
        return self


def _config(
    low: int, high: int, *, channels: int, mult: tuple[float, ...], depth: int | tuple[int, ...], fold: int = 1
) -> UpsamplerConfig:
    """Folded: a small network of ours. Unfolded: as the paper has it."""
    ours = fold > 1
    unet = UNetConfig(
        image_size=high,
        channels=channels,
        mult=mult,
        depth=depth,
        in_channels=6,
        fold=fold,
        norm="layer" if ours else "group",
        middle_attention=False,
        dropout=0.1 if (low, ours) == (64, False) else 0.0,
    )
    return UpsamplerConfig(unet=unet, low=low, high=high, residual=ours)


# By size, then by the side of the output. Paper: Table 3. Ours fold so far that the convolutions are at the side of the
# small image: one step of a whole picture is 0.8, 6 and 96 GFLOP. 1024 has the shape of 256, because what a factor of four
# lacks is much the same at both scales: the weights of the one are a good start for the other.
SIZES = {
    "micro": {
        64: _config(32, 64, channels=32, mult=(1, 1), depth=1, fold=2),
        256: _config(64, 256, channels=32, mult=(1, 1), depth=1, fold=4),
        1024: _config(256, 1024, channels=32, mult=(1,), depth=1, fold=8),
    },
    "icons": {
        64: _config(32, 64, channels=48, mult=(1,), depth=2, fold=2),
        256: _config(64, 256, channels=64, mult=(1,), depth=2, fold=4),
        1024: _config(256, 1024, channels=64, mult=(1,), depth=2, fold=4),
    },
    "paper": {
        256: _config(64, 256, channels=320, mult=(1, 2, 3, 4), depth=3),
        1024: _config(256, 1024, channels=192, mult=(1, 1, 2, 2, 4, 4), depth=2),
    },
}


class Upsampler(nn.Module):
    def __init__(self, cfg: UpsamplerConfig):
        super().__init__()
        self.cfg = cfg
        width = cfg.unet.embed_width
        self.time = nn.Sequential(nn.Linear(cfg.unet.channels, width), nn.SiLU(), nn.Linear(width, width))
        self.unet = UNet(cfg.unet)

    def enlarge(self, low: Tensor) -> Tensor:
        """The small image (B, 3, h, w) at the large one's sides, bicubic: what `forward` takes as its condition."""
        factor = self.cfg.high // self.cfg.low
        return resize(low, (low.shape[-2] * factor, low.shape[-1] * factor), clamped=self.cfg.clamped)

    def forward(self, x_t: Tensor, t: Tensor, low: Tensor) -> Tensor:
        """The network's output at x_t (B, 3, H, W), t (B,), beside the enlarged small image (B, 3, H, W)."""
        emb = self.time(timestep_embedding(t, self.cfg.unet.channels))
        output = self.unet(torch.cat([x_t, low], dim=1), emb)
        return low + output if self.cfg.residual else output
