"""LAION's diffusion prior, the network of DALLE2-pytorch: from a caption to a CLIP image embedding; for published weights.

Dimension letters: B batch, E embedding, L caption tokens, H heads, D channels a head, T positions, S positions seen.

A causal transformer over [caption states (L, filled up), text embedding, timestep, noised z, query], as in unCLIP
(2204.06125, section 2.2); the state at the query predicts the un-noised z. All is E wide and enters unprojected. It differs:

- z is CLIP's embedding at unit length times sqrt(E), and so what comes out is of about unit length: the length of CLIP's
  own embedding is lost. The text embedding is at unit length too. x_0 is not thresholded.
- Attention: one head of keys and values for all queries; a learned pair that everybody sees, before the first position; a
  bias by distance (T5's) and rotations (RoFormer's) of up to 32 channels. A feed-forward with SwiGLU. Norms have no bias,
  stand behind each attention too, and with `normformer` inside the feed-forward. No position is learned; t is a table's row.
- The network changed while it was trained, by versions of the package. Attention: scaled dot products to 1.4.2, since then
  16 times the cosine. Guards against overflow in fp16 left traces: from 0.16.2 the bias counts 1024 times, from 0.23.3 to
  1.4.2 128 times (`bias_gain`), and before some norms x is divided by its largest entry, which moves their epsilon
  (`divided`). `nulls`, what stands for a caption's padding and for a dropped caption:
    masked    before 0.23.1: neither is seen. The noised z stays.
    padding   to 1.8.4: learned padding, one for each place. Dropping a caption had no effect, in training as in sampling:
              no scale changed anything. LAION's file is of this kind; here the caption "" is the unconditional part.
    learned   since 1.9.0: learned padding, a learned text embedding, and, dropped by a draw of its own, a learned z.

In the unconditional branch DALLE2-pytorch drops the noised z as well, so that guidance pushes away from one constant. Here
it stays, as in the paper; with `drop_z` the branch is theirs. A caption can be read once for all steps: `remember`.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.layers import Memory, gaussian
from unclip.models.clip import Text
from unclip.models.prior import X0_ERROR_KNOTS

Attending = Literal["dot", "cosine"]
Nulls = Literal["masked", "padding", "learned"]
Divided = Literal["none", "all", "last"]

COSINE_SCALE = 16.0
ROTATED = 32  # at most so many channels of a head
BUCKETS, FURTHEST = 32, 128  # distances are told apart up to 16, then in 16 logarithmic steps up to 128
TAIL = 3  # timestep, z, query: what comes after the caption


class LaionPriorConfig(Config):
    embed: PositiveInt  # E
    context: PositiveInt  # L
    layers: PositiveInt
    heads: PositiveInt
    head_width: PositiveInt
    hidden: PositiveInt  # of the feed-forward
    timesteps: PositiveInt | None = 1000  # rows of the table; None: sinusoids and an MLP
    z_scale: float = Field(gt=0)  # sqrt(E) unless said otherwise
    nulls: Nulls
    attention: Attending
    bias_gain: float = Field(gt=0)
    divided: Divided  # norms before which x is divided by its largest entry
    normformer: bool = True
    rotary: bool = True
    norm_in: bool = False
    norm_out: bool = True
    project: bool = True
    unit_z: bool = False
    """The sampled z is brought to unit length exactly."""
    drop_z: bool = False
    """The unconditional branch does not see the noised z; only with learned nulls."""

    @model_validator(mode="after")
    def _consistent(self) -> "LaionPriorConfig":
        if self.rotary and self.rotated % 2:
            raise ValueError(f"rotations go by pairs of channels, and head_width {self.head_width} is odd")
        if self.timesteps is None and (self.embed % 2 or self.embed < 4):
            raise ValueError(f"sinusoids need an even embed of at least 4, got {self.embed}")
        if self.drop_z and self.nulls != "learned":
            raise ValueError("there is a learned z to put in the noised one's place only with learned nulls")
        return self

    @property
    def rotated(self) -> int:
        """Channels of a head that are rotated."""
        return min(ROTATED, self.head_width)


SIZES = {
    "micro": LaionPriorConfig(
        embed=32,
        context=16,
        layers=2,
        heads=4,
        head_width=8,
        hidden=64,
        z_scale=32**0.5,
        nulls="padding",
        attention="dot",
        bias_gain=128.0,
        divided="last",
    ),
    # 102M parameters, for CLIP's ViT-L/14.
    "published": LaionPriorConfig(
        embed=768,
        context=77,
        layers=12,
        heads=12,
        head_width=64,
        hidden=3072,
        z_scale=768**0.5,
        nulls="padding",
        attention="dot",
        bias_gain=128.0,
        divided="last",
    ),
}


class LaionPrior(nn.Module):
    """The same face as `models.prior.Prior`. Dropout, which it was trained with, is left out: this is for sampling."""

    x0_error: Tensor

    def __init__(self, cfg: LaionPriorConfig):
        super().__init__()
        self.cfg = cfg
        width, divided = cfg.embed, cfg.divided == "all"
        self.time = _Sinusoids(width) if cfg.timesteps is None else nn.Embedding(cfg.timesteps, width)
        self.query = gaussian(width)
        self.padding = None if cfg.nulls == "masked" else gaussian(cfg.context, width)
        self.null_text = gaussian(width) if cfg.nulls == "learned" else None
        self.null_z = gaussian(width) if cfg.nulls == "learned" else None
        self.distance = nn.Embedding(BUCKETS, cfg.heads)
        self.norm_in = _Norm(width, divided) if cfg.norm_in else nn.Identity()
        self.blocks = nn.ModuleList([_Block(cfg) for _ in range(cfg.layers)])
        self.norm_out = _Norm(width, cfg.divided != "none") if cfg.norm_out else nn.Identity()
        self.project = nn.Linear(width, width, bias=False) if cfg.project else nn.Identity()
        self.register_buffer("x0_error", torch.full((X0_ERROR_KNOTS,), float("nan")))  # nobody has measured it

    def standardise(self, z: Tensor) -> Tensor:
        """CLIP's embedding (B, E), of any length, as it was trained on."""
        return F.normalize(z, dim=-1) * self.cfg.z_scale

    def restore(self, z: Tensor) -> Tensor:
        """Back to about unit length, or exactly with `unit_z`."""
        return F.normalize(z, dim=-1) if self.cfg.unit_z else z / self.cfg.z_scale

    def null(self, empty: Text) -> Text:
        """What the unconditional branch is given, made of the Text of the caption "".

        A Text whose mask is False everywhere is a dropped caption to this network. With nulls `padding`, which never met
        one, it is the empty caption itself.
        """
        return empty if self.cfg.nulls == "padding" else empty._replace(mask=torch.zeros_like(empty.mask))

    def forward(self, z_t: Tensor, t: Tensor, text: Text, memory: Memory | None = None) -> Tensor:
        """The scaled z (B, E) predicted from its noised self z_t (B, E) at t (B,), int64, and the caption.

        `memory`: what `remember` gave for this caption, so that it is not read again.
        """
        z = z_t
        if self.null_z is not None and self.cfg.drop_z:
            z = torch.where(_dropped(text)[:, None], self.null_z.to(z), z)
        time = self.time(t)
        x = torch.stack([part.to(time.dtype) for part in (time, z, self.query.expand(len(z_t), -1))], dim=1)
        x = torch.cat([self._caption(text), x], dim=1) if memory is None else x
        x, _ = self._through(x, text, first=self.cfg.context + 1 + TAIL - x.shape[1], before=memory)
        return self.project(self.norm_out(x[:, -1])).to(z_t.dtype)

    def remember(self, text: Text) -> Memory:
        """What the caption's L + 1 positions give to the three after them, the same at every step: (B, L + 2, D) each."""
        return self._through(self._caption(text), text, first=0, before=None)[1]

    def _caption(self, text: Text) -> Tensor:
        """The first L + 1 positions: the caption's states, filled up to the context, and its embedding, (B, L + 1, E)."""
        dtype, context = self.query.dtype, self.cfg.context
        states, mask = text.states[:, :context].to(dtype), _fill(text.mask, context)
        states = F.pad(states, (0, 0, 0, context - states.shape[1]))
        pooled = F.normalize(text.pooled.float(), dim=-1).to(dtype)
        # Ones where nobody looks: a state of zeros could not be divided by its largest entry.
        states = torch.where(mask[..., None], states, 1.0 if self.padding is None else self.padding)
        if self.null_text is not None:
            pooled = torch.where(_dropped(text)[:, None], self.null_text, pooled)
        return torch.cat([states, pooled[:, None]], dim=1)

    def _through(self, x: Tensor, text: Text, *, first: int, before: Memory | None) -> tuple[Tensor, Memory]:
        """The positions from `first` on through all blocks, and the keys and values that then are known."""
        known = first + x.shape[1]
        places = torch.arange(first, known, device=x.device)
        bias, turn = self._bias(places, known, text), self._turn(places)
        x, memory = self.norm_in(x), []
        for i, block in enumerate(self.blocks):
            x, kept = block(x, bias, turn, None if before is None else before[i])
            memory.append(kept)
        return x, memory

    def _bias(self, places: Tensor, known: int, text: Text) -> Tensor:
        """Added to the scores of queries at `places`: by distance, and -inf for what is not seen, (1 or B, H, T, known + 1).

        Column 0 is the learned pair's, so a position stands one further than its place, and its distances are one short.
        """
        columns = torch.arange(known + 1, device=places.device)
        distance = (places[:, None] - columns).clamp(min=0)
        bias = self.cfg.bias_gain * self.distance(_bucket(distance)).permute(2, 0, 1)[None]
        hidden = (columns > places[:, None] + 1)[None, None]
        if self.cfg.nulls == "masked":
            kept = ~_dropped(text)[:, None]
            seen = [torch.ones_like(kept), _fill(text.mask, self.cfg.context), kept, torch.ones_like(kept).expand(-1, TAIL)]
            hidden = hidden | ~torch.cat(seen, dim=1)[:, None, None, : len(columns)]
        return bias.masked_fill(hidden, -math.inf)

    def _turn(self, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine by which each pair of channels is rotated at `places`, (T, rotated) each."""
        if not self.cfg.rotary:
            return None
        angles = places[:, None] * rotary_frequencies(self.cfg.rotated).to(places.device)
        angles = angles.repeat_interleave(2, dim=-1)
        return angles.cos(), angles.sin()


class _Block(nn.Module):
    """x + norm(attention(norm(x))), then x + feed-forward(norm(x))."""

    def __init__(self, cfg: LaionPriorConfig):
        super().__init__()
        self.heads, self.cosine = cfg.heads, cfg.attention == "cosine"
        width, inner, divided = cfg.embed, cfg.heads * cfg.head_width, cfg.divided == "all"
        self.norm_attention = _Norm(width, divided)
        self.q = nn.Linear(width, inner, bias=False)
        self.kv = nn.Linear(width, 2 * cfg.head_width, bias=False)
        self.null_kv = gaussian(2, cfg.head_width)
        self.out = nn.Linear(inner, width, bias=False)
        self.norm_attended = _Norm(width, divided)
        self.norm_mlp = _Norm(width, divided)
        self.up = nn.Linear(width, 2 * cfg.hidden, bias=False)
        self.norm_hidden = _Norm(cfg.hidden, divided) if cfg.normformer else nn.Identity()
        self.down = nn.Linear(cfg.hidden, width, bias=False)

    def forward(
        self, x: Tensor, bias: Tensor, turn: tuple[Tensor, Tensor] | None, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, E) -> (B, T, E), and keys and values (B, S, D): those in `before`, or the learned pair, and its own."""
        attended, kept = self._attend(self.norm_attention(x), bias, turn, before)
        x = x + self.norm_attended(self.out(attended))
        hidden, gate = self.up(self.norm_mlp(x)).chunk(2, dim=-1)
        return x + self.down(self.norm_hidden(hidden * F.silu(gate))), kept

    def _attend(
        self, x: Tensor, bias: Tensor, turn: tuple[Tensor, Tensor] | None, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(x).chunk(2, dim=-1)
        if turn is not None:
            q, k = _rotate(q, turn), _rotate(k, turn)
        before_k, before_v = self.null_kv.to(k.dtype).expand(len(x), -1, -1).chunk(2, dim=1) if before is None else before
        k, v = torch.cat([before_k, k], dim=1), torch.cat([before_v, v], dim=1)
        if self.cosine:  # those in `before` are at unit length already, or, being the learned pair, not yet
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scale = COSINE_SCALE if self.cosine else None  # None: D^-1/2
        shared_k, shared_v = (one[:, None].expand(-1, self.heads, -1, -1) for one in (k, v))
        out = F.scaled_dot_product_attention(q, shared_k, shared_v, attn_mask=bias.to(q.dtype), scale=scale)
        return out.transpose(1, 2).flatten(2), (k, v)


class _Norm(nn.LayerNorm):
    """A layer norm without bias, after a division by the largest entry if `divided`."""

    def __init__(self, width: int, divided: bool):
        super().__init__(width, bias=False)
        self.divided = divided

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input / input.amax(dim=-1, keepdim=True) if self.divided else input)


class _Sinusoids(nn.Sequential):
    """t (B,) -> (B, E): sines before cosines, frequencies 10000^(-i / (E / 2 - 1)), then an MLP. Neither is ADM's way."""

    def __init__(self, width: int):
        layers = [nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width), nn.SiLU()]
        super().__init__(*layers, nn.Linear(2 * width, width))
        self.pairs = width // 2

    def forward(self, input: Tensor) -> Tensor:
        steps = torch.arange(self.pairs, dtype=torch.float32, device=input.device)
        angles = input.float()[:, None] * torch.exp(-math.log(10_000.0) / (self.pairs - 1) * steps)
        first = self[0]
        assert isinstance(first, nn.Linear)
        return super().forward(torch.cat([angles.sin(), angles.cos()], dim=-1).to(first.weight.dtype))


def rotary_frequencies(width: int) -> Tensor:
    """10000^(-2 i / width), fp32 (width / 2,): one for each pair of neighbouring channels (2104.09864, section 3.2.2)."""
    return 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """The first channels of x (..., T, D), by neighbouring pairs."""
    cos, sin = turn
    turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    even, odd = turned.unflatten(-1, (-1, 2)).unbind(-1)
    beside = torch.stack([-odd, even], dim=-1).flatten(-2)
    return torch.cat([(turned * cos + beside * sin).to(x.dtype), rest], dim=-1)


def _bucket(distance: Tensor) -> Tensor:
    """The row of the bias for a distance >= 0 (1910.10683, section 2.1, causal)."""
    exact = BUCKETS // 2
    further = (distance.clamp(min=exact) / exact).log() / math.log(FURTHEST / exact) * (BUCKETS - exact)
    return torch.where(distance < exact, distance, exact + further.long()).clamp(max=BUCKETS - 1)


def _dropped(text: Text) -> Tensor:
    """The rows that have no token at all, (B,)."""
    return ~text.mask.any(dim=1)


def _fill(mask: Tensor, context: int) -> Tensor:
    return F.pad(mask[:, :context], (0, max(context - mask.shape[1], 0)))
