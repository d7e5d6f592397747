"""Attention, the transformer and the embeddings, against plain loops, torch's own layers and diffusers."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from unclip import layers
from unclip.layers import Block, QuickGELU, Transformer, attend, timestep_embedding, zero_


def loop_attention(q, k, v, heads, seen):
    """Softmax attention one query, one head at a time, in fp64; `seen` (B, T, S) bool."""
    out = torch.zeros_like(q, dtype=torch.float64)
    width = q.shape[-1] // heads
    for b in range(len(q)):
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            for t in range(q.shape[1]):
                rows = seen[b, t].nonzero().flatten()
                weights = (k[b, rows, part].double() @ q[b, t, part].double() / math.sqrt(width)).softmax(0)
                out[b, t, part] = weights @ v[b, rows, part].double()
    return out.float()


def inputs(t=5, s=7):
    torch.manual_seed(0)
    return torch.randn(2, t, 12), torch.randn(2, s, 12), torch.randn(2, s, 12)


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "fused"])
@pytest.mark.parametrize("kind", ["all", "mask", "causal"])
def test_both_paths_are_softmax_attention(explicit, kind, monkeypatch):
    used = []
    own = layers._attend_explicitly
    monkeypatch.setattr(layers, "_attend_explicitly", lambda *given: used.append(1) or own(*given))
    q, k, v = inputs(s=5 if kind == "causal" else 7)
    seen = torch.ones(2, 5, k.shape[1], dtype=torch.bool)
    mask = None
    if kind == "mask":
        mask = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0]], dtype=torch.bool)[:, None, None]
        seen = mask[:, 0].expand(2, 5, 7)
    elif kind == "causal":
        seen = seen.tril()
    with torch.set_grad_enabled(explicit):
        out = attend(q, k, v, 3, mask=mask, causal=kind == "causal")
    assert bool(used) == explicit
    torch.testing.assert_close(out, loop_attention(q, k, v, 3, seen), atol=2e-6, rtol=0)


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "fused"])
def test_a_query_that_sees_nothing_is_finite_and_so_are_the_gradients_of_the_others(explicit):
    q, k, v = (x.requires_grad_() for x in inputs(5, 5))
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[:, :, 3] = False
    with torch.set_grad_enabled(explicit):
        out = attend(q, k, v, 3, mask=mask)
        assert out.isfinite().all()
        if explicit:
            out[:, :3].sum().backward()
            assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_a_mask_and_causal_together_are_our_own_mistake():
    q, k, v = inputs(5, 5)
    with pytest.raises(AssertionError):
        attend(q, k, v, 3, mask=torch.ones(1, 1, 5, 5, dtype=torch.bool), causal=True)


def test_long_sequences_take_the_fused_path_also_with_gradients(monkeypatch):
    monkeypatch.setattr(layers, "_attend_explicitly", None)
    side = math.isqrt(layers._EXPLICIT_UP_TO) + 1
    x = torch.randn(1, side, 8, requires_grad=True)
    attend(x, x, x, 2).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_torchs_pre_norm_encoder_layer(causal):
    torch.manual_seed(0)
    ours = Block(16, 4)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    names = {
        "attention.qkv.weight": "self_attn.in_proj_weight",
        "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.out.weight": "self_attn.out_proj.weight",
        "attention.out.bias": "self_attn.out_proj.bias",
        **{f"mlp.{a}.{w}": f"{b}.{w}" for a, b in (("up", "linear1"), ("down", "linear2")) for w in ("weight", "bias")},
        **{f"norm_{a}.{w}": f"{b}.{w}" for a, b in (("attention", "norm1"), ("mlp", "norm2")) for w in ("weight", "bias")},
    }
    weights = {name: torch.randn_like(tensor) for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(weights)
    theirs.load_state_dict({names[name]: tensor for name, tensor in weights.items()})
    x = torch.randn(3, 6, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(6) if causal else None
    torch.testing.assert_close(ours(x, causal=causal), theirs(x, src_mask=mask, is_causal=causal), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("only", [slice(-1, None), slice(0, 1), slice(2, 4)], ids=["last", "first", "inner"])
@pytest.mark.parametrize("rows", [1, 6], ids=["row", "square"])
def test_the_positions_asked_for_are_those_of_the_whole(only, rows):
    torch.manual_seed(0)
    model = Transformer(16, 3, 4)
    x = torch.randn(2, 6, 16, requires_grad=True)
    mask = torch.rand(2, 1, rows, 6) < 0.7
    whole, part = model(x, mask)[:, only], model(x, mask, only=only)
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), [x, *model.parameters()]) for out in (whole, part)]
    for of_whole, of_part in zip(*gradients, strict=True):
        torch.testing.assert_close(of_part, of_whole, atol=1e-4, rtol=1e-4)


def test_bf16_attention_on_cpu_is_near_fp32():
    """Under autocast the explicit path keeps its products in the operands' type, mask and all."""
    q, k, v = inputs(5, 5)
    mask = torch.rand(2, 1, 5, 5) < 0.7
    exact = attend(q, k, v, 3, mask=mask)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attend(*(x.bfloat16() for x in (q, k, v)), 3, mask=mask)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.03, rtol=0.03)


def test_a_transformer_starts_with_small_residual_branches():
    torch.manual_seed(0)
    width = 256
    model = Transformer(width, 8, 4).requires_grad_(False)
    assert model.blocks[0].attention.qkv.weight.std().item() == pytest.approx(width**-0.5, rel=0.02)
    assert model.blocks[7].mlp.down.weight.std().item() == pytest.approx(width**-0.5 / 4, rel=0.02)
    assert all(not block.mlp.up.bias.any() for block in model.blocks)


def test_timestep_embedding_is_diffusers_with_cosines_first():
    t = torch.tensor([0, 1, 17, 999])
    theirs = get_timestep_embedding(t, 64, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(timestep_embedding(t, 64), theirs, atol=1e-4, rtol=0)
    assert timestep_embedding(torch.tensor([1]), 64)[0, 31].item() == pytest.approx(math.cos(10_000 ** (-31 / 32)))


def test_quick_gelu_is_its_formula_and_not_gelu():
    x = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    assert 0.01 < (layers.activation("quick_gelu")(x) - F.gelu(x)).abs().max() < 0.03
    torch.testing.assert_close(layers.activation("gelu")(x), x * torch.distributions.Normal(0, 1).cdf(x), atol=1e-6, rtol=0)


def test_zero_leaves_nothing():
    layer = zero_(nn.Linear(3, 2))
    assert not layer(torch.randn(4, 3)).any()
