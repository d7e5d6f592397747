"""The ADM U-Net (2105.05233, section 3), conditioned on an embedding and, by attention, on context tokens.

Dimension letters: B batch, C channels, H W pixels, T = H*W positions, S context tokens, E conditioning width.

- A residual block normalises, convolves and lets the conditioning scale and shift the second norm (AdaGN); up- and
  downsampling happen inside residual blocks, as in BigGAN. Residual branches and the output start at zero.
- Attention at the listed resolutions; context tokens are projected by every layer and stand before the image's own keys and
  values (GLIDE, 2112.10741, section 4). Scores are over [context; self].
- Written in channels_last: an attention layer's (B, T, C) is then a view of the same memory.

Beyond ADM, for small models and for upsamplers, each off by default: `fold` moves f x f pixels into channels before the
first convolution and back after the last; `depth` may differ by level (Imagen's Efficient U-Net, 2205.11487, B.1, puts
blocks where pixels are few); `norm = "layer"` normalises over channels at each position, several times cheaper on a CPU than
groups; `attention_mlp` follows each attention by an MLP.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.layers import Mlp, attend, zero_


class UNetConfig(Config):
    image_size: PositiveInt
    channels: PositiveInt
    mult: tuple[float, ...] = Field(min_length=1)
    depth: PositiveInt | tuple[PositiveInt, ...] = 3
    attention: tuple[int, ...] = ()  # sides, in pixels of the unfolded image, at which there is attention
    head_channels: PositiveInt = 64
    dropout: float = Field(default=0.0, ge=0, lt=1)
    in_channels: PositiveInt = 3
    out_channels: PositiveInt = 3
    context_width: PositiveInt | None = None
    fold: PositiveInt = 1
    norm: Literal["group", "layer"] = "group"
    scale_shift: bool = True  # False: the embedding is added instead, as in Karlo's upsamplers
    attention_mlp: bool = False
    middle_attention: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> "UNetConfig":
        sides = self.sides
        if self.image_size != sides[-1] * self.fold * 2 ** (len(self.mult) - 1):
            raise ValueError(f"{len(self.mult)} levels and fold {self.fold} do not divide image_size {self.image_size}")
        if len(self.depths) != len(self.mult):
            raise ValueError(f"depth {self.depth} has another length than mult {self.mult}")
        if self.norm == "group" and any(width % 32 for width in self.widths):
            raise ValueError(f"group norm has 32 groups, which do not divide the widths {self.widths}")
        stray = set(self.attention) - {side * self.fold for side in sides}
        if stray:
            raise ValueError(f"attention at {sorted(stray)} px, but the levels are at {[s * self.fold for s in sides]} px")
        attending = [width for width, side in zip(self.widths, sides, strict=True) if side * self.fold in self.attention]
        for width in [*attending, *self.widths[-1:] * self.middle_attention]:
            if width % self.heads(width):
                raise ValueError(
                    f"{self.heads(width)} heads of about {self.head_channels} channels do not divide width {width}"
                )
        return self

    @property
    def sides(self) -> tuple[int, ...]:
        """The side in positions of every level."""
        return tuple(self.image_size // self.fold // 2**level for level in range(len(self.mult)))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(round(self.channels * m) for m in self.mult)

    @property
    def depths(self) -> tuple[int, ...]:
        return (self.depth,) * len(self.mult) if isinstance(self.depth, int) else self.depth

    def heads(self, width: int) -> int:
        """How many attention heads a level of this width has."""
        return max(1, width // self.head_channels)

    @property
    def embed_width(self) -> int:
        """E: the width of the conditioning embedding that `forward` takes."""
        return 4 * self.channels


class GroupNorm(nn.GroupNorm):
    """Group norm with 32 groups, computed in fp32 and given back in the input's type."""

    def __init__(self, channels: int):
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        # A CPU's kernel reads and writes bf16 and computes in fp32. Its backward is four times slower than a copy in fp32.
        as_it_is = x.device.type == "cpu" and not torch.is_grad_enabled()
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x if as_it_is else x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels at each position of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if x.device.type != "cpu":  # only the CPU's kernel takes weights of another type; all of them compute in fp32
            weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            out = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, weight, bias, self.eps)
        return out.permute(0, 3, 1, 2)


def silu(x: Tensor) -> Tensor:
    """SiLU; without gradients in place, since new memory for a large picture's features costs more than the function."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def norm_layer(kind: Literal["group", "layer"], channels: int) -> nn.Module:
    return GroupNorm(channels) if kind == "group" else ChannelNorm(channels)


class ResBlock(nn.Module):
    """(B, C, H, W), (B, E) -> (B, C', H', W'); `resample` halves or doubles the sides on both branches."""

    def __init__(self, cfg: UNetConfig, c_in: int, c_out: int, *, resample: Literal["up", "down"] | None = None):
        super().__init__()
        self.resample = resample
        self.scale_shift = cfg.scale_shift
        self.norm_in = norm_layer(cfg.norm, c_in)
        self.conv_in = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.condition = nn.Linear(cfg.embed_width, 2 * c_out if cfg.scale_shift else c_out)
        self.norm_out = norm_layer(cfg.norm, c_out)
        self.dropout = nn.Dropout(cfg.dropout)
        self.conv_out = zero_(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = silu(self.norm_in(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = (F.interpolate(y, scale_factor=2.0, mode="nearest") for y in (h, x))
        h = self.conv_in(h)
        condition = self.condition(F.silu(emb)).to(h.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        else:
            h = self.norm_out(h + condition)
        return self.conv_out(self.dropout(silu(h))).add_(self.skip(x))


class AttentionBlock(nn.Module):
    """Self-attention over positions with context tokens before them, added to the input; optionally an MLP after it."""

    def __init__(self, cfg: UNetConfig, channels: int):
        super().__init__()
        self.heads = cfg.heads(channels)
        self.norm = norm_layer(cfg.norm, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.context_kv = nn.Linear(cfg.context_width, 2 * channels) if cfg.context_width else None
        self.out = zero_(nn.Linear(channels, channels))
        self.norm_mlp = nn.LayerNorm(channels) if cfg.attention_mlp else None
        self.mlp = Mlp(channels) if cfg.attention_mlp else None
        if self.mlp is not None:
            zero_(self.mlp.down)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """x (B, C, H, W); context (B, S, W) or None; mask (B, 1, 1, S + T) bool over [context; self], True = seen."""
        x_BTC = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        if self.context_kv is not None and context is not None:
            context_k, context_v = self.context_kv(context).chunk(2, dim=-1)
            k, v = torch.cat([context_k, k], dim=1), torch.cat([context_v, v], dim=1)
        x_BTC = x_BTC + self.out(attend(q, k, v, self.heads, mask=mask))
        if self.mlp is not None and self.norm_mlp is not None:
            x_BTC = x_BTC + self.mlp(self.norm_mlp(x_BTC))
        return x_BTC.transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Module):
    """One residual block, attention where the level has it, and, on the way up, the block that doubles the side."""

    def __init__(self, block: ResBlock, attention: AttentionBlock | None = None, upsample: ResBlock | None = None):
        super().__init__()
        self.block = block
        self.attention = attention
        self.upsample = upsample

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        x = self.block(x, emb)
        if self.attention is not None:
            # Each row of positions sees the context mask and all positions; positions are never masked.
            x = self.attention(x, context, None if mask is None else _with_positions(mask, x))
        return x if self.upsample is None else self.upsample(x, emb)


def _with_positions(mask: Tensor, x: Tensor) -> Tensor:
    positions = mask.new_ones(len(mask), x.shape[2] * x.shape[3])
    return torch.cat([mask, positions], dim=1)[:, None, None]


class UNet(nn.Module):
    def __init__(self, cfg: UNetConfig):
        super().__init__()
        self.cfg = cfg
        widths, folded = cfg.widths, cfg.fold**2
        attends = [side * cfg.fold in cfg.attention for side in cfg.sides]

        self.conv_in = nn.Conv2d(cfg.in_channels * folded, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, (out, depth) in enumerate(zip(widths, cfg.depths, strict=True)):
            for _ in range(depth):
                self.down.append(Stage(ResBlock(cfg, width, out), AttentionBlock(cfg, out) if attends[level] else None))
                width = out
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(Stage(ResBlock(cfg, width, width, resample="down")))
                skips.append(width)

        attention = AttentionBlock(cfg, width) if cfg.middle_attention else None
        self.middle = nn.ModuleList([Stage(ResBlock(cfg, width, width), attention), Stage(ResBlock(cfg, width, width))])

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for index in range(cfg.depths[level] + 1):
                block = ResBlock(cfg, width + skips.pop(), widths[level])
                width = widths[level]
                last = level > 0 and index == cfg.depths[level]
                upsample = ResBlock(cfg, width, width, resample="up") if last else None
                self.up.append(Stage(block, AttentionBlock(cfg, width) if attends[level] else None, upsample))

        self.norm_out = norm_layer(cfg.norm, width)
        self.conv_out = zero_(nn.Conv2d(width, cfg.out_channels * folded, 3, padding=1))

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, C_in, H, W), emb (B, E), context (B, S, W), mask (B, S) bool or None -> (B, C_out, H, W) in x's type.

        H and W may differ from the configured side, as long as the levels and the fold divide them.
        """
        h = self.conv_in(F.pixel_unshuffle(x, self.cfg.fold).contiguous(memory_format=torch.channels_last))
        skips = [h]
        for stage in self.down:
            h = stage(h, emb, context, mask)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, emb, context, mask)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, context, mask)
        return F.pixel_shuffle(self.conv_out(silu(self.norm_out(h))), self.cfg.fold).to(x.dtype)
