"""Matrix products of bytes: twice as many a second as in bf16, on CPUs that have VNNI.

A linear layer's weights are rounded once, each of its outputs by a step of its own; what comes in is rounded when it comes,
each token by the largest of its numbers (ZeroQuant, 2206.01861, section 4.1), so that no picture depends on its company.
The products are exact; what is lost is lost in rounding: the icons CLIP's z keep a cosine of .999 with those of fp32
(docs/log.md).

Differs from the paper: nothing is distilled, and attention, norms and activations stay as they are.

Dimension letters: B pictures, T tokens, K inputs, N outputs, M rows.
"""

from functools import cache

import torch
from torch import Tensor, nn

from unclip.errors import ConfigError
from unclip.layers import Block, QuickGELU
from unclip.models.clip import VisionEncoder

MOST = 127  # of a byte's numbers, either way: -128 has no opposite
ZERO = 128  # what stands for 0 in what comes in, whose bytes have no sign: the kernel is slow for those that have
TINY = 1e-30  # instead of the step of a row of zeros


def pack(codes: Tensor) -> Tensor:
    """Whole numbers, int8 (N, K), in the order in which the kernel reads them."""
    return torch.ops.onednn.qlinear_prepack(codes, None)


def multiply(asked: Tensor, packed: Tensor, steps: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Products (M, N) of rows uint8 (M, K), whose zero is ZERO, and packed codes, times their steps, fp32 (N,) or (1,)."""
    none = torch.zeros(len(steps), dtype=torch.int32)
    operator = torch.ops.onednn.qlinear_pointwise
    return operator(asked, 1.0, ZERO, packed, steps, none, None, 1.0, 0, dtype, "none", [], "")


def codes_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows fp32 (M, K) as whole numbers up to MOST, fp32 too, and their steps (M,): each row's by its largest number."""
    steps = rows.abs().amax(dim=1).div_(MOST).clamp_(min=TINY)
    return (rows / steps[:, None]).round_(), steps


def rounded_(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (M, K) as bytes around ZERO, uint8 (M, K), and their steps, fp32 (M, 1). Rows in fp32 are spoilt.

    It makes no copy as large as the rows: of the widest layer that would be 10 MB, which the system may have to find anew
    each time, and then takes longer for than the product does.
    """
    x = x.float()
    most = torch.maximum(x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True).neg_())
    steps = most.div_(MOST).clamp_(min=TINY)
    # By way of int8, since torch converts floats to bytes without a sign one by one.
    whole = x.mul_(steps.reciprocal()).round_().to(torch.int8)
    return whole.view(torch.uint8).bitwise_xor_(ZERO), steps


@cache
def available() -> bool:
    """Whether this processor and this torch multiply bytes, and exactly: tried once, since the operator is torch's own."""
    if not getattr(torch.cpu, "_is_vnni_supported", bool)():
        return False
    generator = torch.Generator().manual_seed(0)
    q, codes = (torch.randint(-MOST, MOST + 1, (n, 512), generator=generator) for n in (3, 64))
    q[0], codes[0] = MOST, MOST  # where sums of 16 bits would overflow
    try:
        made = multiply((q + ZERO).to(torch.uint8), pack(codes.to(torch.int8)), torch.ones(1))
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(made, (q @ codes.T).float())


class Int8Linear(nn.Module):
    """A linear layer that multiplies bytes. What comes in is multiplied by `before`, what goes out by `after`.

    What comes in is spoilt: in an encoder it is a norm's, an attention's or an activation's, and nobody reads it again.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        before: float = 1.0,
        after: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        codes, self.steps = codes_of(weight.detach().float() * before * after)
        self.packed = pack(codes.to(torch.int8))
        self.bias = None if bias is None else (bias.detach().float() * after).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        asked, steps = rounded_(x.reshape(-1, x.shape[-1]))
        made = multiply(asked, self.packed, self.steps, self.dtype)
        if self.bias is None:
            return made.mul_(steps.to(self.dtype)).unflatten(0, x.shape[:-1])
        return torch.addcmul(self.bias, made, steps.to(self.dtype), out=made).unflatten(0, x.shape[:-1])


class Int8Patches(nn.Module):
    """A convolution whose kernels lie side by side, as one product: (B, C, H, W) -> (B, N, H / P, W / P).

    What comes in may be spoilt here too.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.side = conv.kernel_size[0]
        self.linear = Int8Linear(conv.weight.flatten(1), conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unflatten(3, (-1, self.side)).unflatten(2, (-1, self.side)).permute(0, 2, 4, 1, 3, 5)
        return self.linear(patches.flatten(3)).permute(0, 3, 1, 2)


def to_int8(encoder: VisionEncoder) -> None:
    """Has an image encoder multiply bytes, but in its last block, of which little is computed, and in its projection.

    ConfigError where the processor does not, or the encoder is not on it.
    """
    device = encoder.cls.device.type
    if device != "cpu":
        raise ConfigError(f"int8 is for CPUs, but the network is on {device}: take --no-int8, or the CPU")
    if not available():
        raise ConfigError("int8 needs a processor that multiplies bytes (AVX512-VNNI): take --no-int8")
    encoder.set_submodule("patches", Int8Patches(encoder.patches))
    for block in encoder.transformer.blocks[:-1]:
        assert isinstance(block, Block)
        qkv, out, mlp = block.attention.qkv, block.attention.out, block.mlp
        half = torch.bfloat16 if qkv.weight.dtype == torch.bfloat16 else torch.float32  # as attention takes it
        block.set_submodule("attention.qkv", Int8Linear(qkv.weight, qkv.bias, dtype=half))
        block.set_submodule("attention.out", Int8Linear(out.weight, out.bias))
        # x sigmoid(k x) = silu(k x) / k, one pass over the widest layer instead of three; the layers around take k.
        gain = 1.702 if isinstance(mlp.act, QuickGELU) else 1.0
        block.set_submodule("mlp.up", Int8Linear(mlp.up.weight, mlp.up.bias, after=gain))
        block.set_submodule("mlp.down", Int8Linear(mlp.down.weight, mlp.down.bias, before=1 / gain))
        block.set_submodule("mlp.act", nn.SiLU(inplace=True) if isinstance(mlp.act, QuickGELU) else mlp.act)
