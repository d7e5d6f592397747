"""What two or more networks share: attention, the pre-norm transformer, the timestep embedding, the fp32 norms.

Dimension letters: B batch, T tokens, S context tokens, C channels, H heads, D channels a head.

Everything takes and gives (B, T, C). Queries, keys and values come from one matrix in the order [q | k | v], each a third
of the rows; published weights that interleave them per head are rearranged by their converter, not here.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "quick_gelu"]
Memory = list[tuple[Tensor, Tensor]]
"""What each block of a transformer keeps of earlier positions: keys and values, (B, S, C) each."""


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): what OpenAI's CLIP was trained with; up to 0.02 away from GELU, enough to spoil its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def activation(name: Activation) -> nn.Module:
    return QuickGELU() if name == "quick_gelu" else nn.GELU()


def timestep_embedding(t: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids of t (B,) as (B, width) float32, cosines first, frequencies max_period^(-i / (width / 2)).

    The order and the divisor are ADM's; sines first or (width / 2 - 1) would silently spoil every published weight.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention of q (B, T, C) over k, v (B, S, C) in `heads` heads.

    mask: bool, broadcastable to (B, 1, T, S), True = seen; or `causal`, not both. A query that sees nothing, as in padding,
    gets an answer that is finite and means nothing.
    """
    assert mask is None or not causal, "put the causal triangle into the mask"
    q_BHTD, k_BHSD, v_BHSD = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q.shape[1] * k.shape[1]
    large = heads * scores >= _EXPLICIT_FROM or len(q) * heads * scores >= _EXPLICIT_FROM_IN_ALL
    explicit = torch.is_grad_enabled() or (q.dtype == torch.bfloat16 and large)
    if q.device.type == "cpu" and explicit and scores <= _EXPLICIT_UP_TO:
        out_BHTD = _attend_explicitly(q_BHTD, k_BHSD, v_BHSD, mask, causal)
    else:
        out_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=mask, is_causal=causal)
    return out_BHTD.transpose(1, 2).flatten(2)


# The fused kernel on a CPU takes twice as long as plain products in bf16, and three times as long backwards. Past so many
# scores a head it saves memory; below so many in all heads, or in all of a batch, it saves the overhead of three calls.
_EXPLICIT_UP_TO, _EXPLICIT_FROM, _EXPLICIT_FROM_IN_ALL = 1024 * 1152, 1 << 16, 1 << 18


def _attend_explicitly(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Batched products over B * H; the scale and the mask ride along in the first of them, so nothing is copied for them."""
    B, H, T, D = q.shape
    S = k.shape[2]
    with torch.autocast(q.device.type, enabled=False):  # the operands have one type; autocast would copy the bias to it
        q, k, v = (x.reshape(B * H, -1, D) for x in (q, k, v))
        if causal:
            mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril()
        if mask is None:
            scores = torch.bmm(q * D**-0.5, k.transpose(1, 2))
        else:
            bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
            bias.masked_fill_(~mask, torch.finfo(q.dtype).min)  # -inf would make NaN of a row that sees nothing
            bias = bias.expand(B, H, -1, S).reshape(B * H, -1, S)
            scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=D**-0.5)
        return torch.bmm(scores.softmax(dim=-1), v).unflatten(0, (B, H))


class SelfAttention(nn.Module):
    """Multi-head self-attention with biases everywhere, (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def project(self, x: Tensor, only: slice | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, of the positions in `only` if given, and keys and values of all."""
        if only is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            return q, k, v
        width, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
        k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        return F.linear(x[:, only], weight[:width], bias[:width]), k, v

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        only: slice | None = None,
        after: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`only`: the positions that ask; all are seen. Returns those alone, and `mask` has a row for each of them.

        `after`: keys and values of S positions before these, which are seen too; `mask` then has S + T columns.
        """
        q, k, v = self.project(x, only)
        if after is not None:
            k, v = torch.cat([after[0], k], dim=1), torch.cat([after[1], v], dim=1)
        return self.out(attend(q, k, v, self.heads, mask=mask, causal=causal))


class Mlp(nn.Module):
    """Linear, activation, linear, with a hidden layer `ratio` times as wide."""

    def __init__(self, width: int, *, ratio: float = 4.0, act: Activation = "gelu"):
        super().__init__()
        self.up = nn.Linear(width, int(width * ratio))
        self.act = activation(act)
        self.down = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Block(nn.Module):
    """One pre-norm transformer layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, act: Activation = "gelu"):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, ratio=mlp_ratio, act=act)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        only: slice | None = None,
        after: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`only`: the positions to compute, the others being seen by them; `after`: what came before; see SelfAttention."""
        attended = self.attention(self.norm_attention(x), mask, causal=causal, only=only, after=after)
        return self._finish(x if only is None else x[:, only], attended)

    def remember(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block's output and, for later positions, its keys and values."""
        q, k, v = self.attention.project(self.norm_attention(x))
        return self._finish(x, self.attention.out(attend(q, k, v, self.attention.heads, mask=mask))), (k, v)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + attended
        return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
    """A stack of blocks, initialised as CLIP and GPT-2: N(0, width^-1/2), residual outputs smaller by sqrt(2 * layers)."""

    def __init__(self, width: int, layers: int, heads: int, *, mlp_ratio: float = 4.0, act: Activation = "gelu"):
        super().__init__()
        blocks = [Block(width, heads, mlp_ratio=mlp_ratio, act=act) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        std = width**-0.5
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        for block in blocks:
            for residual in (block.attention.out, block.mlp.down):
                nn.init.normal_(residual.weight, std=std * (2 * layers) ** -0.5)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        only: slice | None = None,
        after: Memory | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C). With `only`, just those positions: the last block does not compute the others, which saves
        five sixths of its work when one is read. `after`: what `remember` kept of S positions before these.
        """
        assert not causal or (only is None and after is None), "put the causal triangle into the mask"
        *earlier, last = zip(self.blocks, after or [None] * len(self.blocks), strict=True)
        for block, before in earlier:
            x = block(x, mask, causal=causal, after=before)
        if only is not None and mask is not None and mask.shape[-2] > 1:
            mask = mask[..., only, :]
        block, before = last
        return block(x, mask, causal=causal, only=only, after=before)

    def remember(self, x: Tensor, mask: Tensor | None = None) -> Memory:
        """What positions that come after x (B, S, C), and that x does not see, need of it: see `forward`."""
        memory: Memory = []
        for block in self.blocks:
            assert isinstance(block, Block)
            x, kept = block.remember(x, mask)
            memory.append(kept)
        return memory


def gaussian(*shape: int, std: float = 1.0) -> nn.Parameter:
    """A parameter of so many numbers from N(0, std^2)."""
    parameter = nn.Parameter(torch.empty(shape))
    nn.init.normal_(parameter, std=std)
    return parameter


def zero_(module: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with its weights and bias at zero, so that a residual branch starts as the identity."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module
