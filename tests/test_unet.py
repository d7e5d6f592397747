"""The U-Net: its blocks against diffusers', its size against ADM's, and what it must never do."""

import pytest
import torch
from conftest import scrambled
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from unclip.errors import ConfigError
from unclip.models.unet import AttentionBlock, ChannelNorm, GroupNorm, ResBlock, UNet, UNetConfig

SMALL = {"image_size": 16, "channels": 32, "mult": (1, 2), "depth": 1, "attention": (8,), "head_channels": 32}


def config(**changes) -> UNetConfig:
    return UNetConfig.parse(SMALL | changes)


def inputs(cfg: UNetConfig, side: int | None = None, tokens: int = 5):
    torch.manual_seed(0)
    side = side or cfg.image_size
    context = None if cfg.context_width is None else torch.randn(2, tokens, cfg.context_width)
    return torch.randn(2, cfg.in_channels, side, side), torch.randn(2, cfg.embed_width), context


@pytest.mark.parametrize("resample", [None, "down", "up"])
@pytest.mark.parametrize(("c_in", "c_out"), [(32, 32), (32, 64)])
def test_a_residual_block_is_diffusers_with_scale_and_shift(resample, c_in, c_out):
    cfg = config()
    torch.manual_seed(0)
    ours = scrambled(ResBlock(cfg, c_in, c_out, resample=resample), 0, std=0.3)
    theirs = ResnetBlock2D(
        in_channels=c_in,
        out_channels=c_out,
        temb_channels=cfg.embed_width,
        groups=32,
        eps=1e-5,
        time_embedding_norm="scale_shift",
        up=resample == "up",
        down=resample == "down",
    )
    places = {"norm_in": "norm1", "conv_in": "conv1", "condition": "time_emb_proj", "norm_out": "norm2", "conv_out": "conv2"}
    places["skip"] = "conv_shortcut"
    renamed = {f"{places[n.split('.')[0]]}.{n.split('.')[1]}": tensor for n, tensor in ours.state_dict().items()}
    theirs.load_state_dict(renamed, strict=True)
    x, emb = torch.randn(2, c_in, 8, 8), torch.randn(2, cfg.embed_width)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, emb), theirs(x, emb), atol=1e-4, rtol=1e-4)


def test_the_attention_block_is_diffusers_with_context_before_its_own_keys():
    cfg = config(context_width=24)
    torch.manual_seed(0)
    ours = scrambled(AttentionBlock(cfg, 64), 0, std=0.3)
    theirs = Attention(
        query_dim=64,
        heads=2,
        dim_head=32,
        bias=True,
        added_kv_proj_dim=24,
        norm_num_groups=32,
        eps=1e-5,
        residual_connection=True,
        processor=AttnAddedKVProcessor(),
    )
    with torch.no_grad():
        theirs.group_norm.load_state_dict(ours.norm.state_dict())
        parts = [theirs.to_q, theirs.to_k, theirs.to_v, theirs.add_k_proj, theirs.add_v_proj]
        for kind in ("weight", "bias"):
            chunks = [*getattr(ours.qkv, kind).chunk(3), *getattr(ours.context_kv, kind).chunk(2)]
            for layer, chunk in zip(parts, chunks, strict=True):
                getattr(layer, kind).copy_(chunk)
        theirs.to_out[0].load_state_dict(ours.out.state_dict())
        x, context = torch.randn(2, 64, 4, 4), torch.randn(2, 5, 24)
        expected = theirs(x, encoder_hidden_states=context)
        torch.testing.assert_close(ours(x, context, None), expected, atol=1e-4, rtol=1e-4)
        # A masked token is as one that is not there.
        mask = torch.ones(2, 1, 1, 5 + 16, dtype=torch.bool)
        mask[..., 3:5] = False
        expected = theirs(x, encoder_hidden_states=context[:, :3])
        torch.testing.assert_close(ours(x, context, mask), expected, atol=1e-4, rtol=1e-4)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        # 2105.05233, table 4: the guided ImageNet models; beside ours a time embedding and 1000 classes.
        ({"image_size": 64, "channels": 192, "mult": (1, 2, 3, 4), "depth": 3}, 296e6),
        ({"image_size": 256, "channels": 256, "mult": (1, 1, 2, 2, 4, 4), "depth": 2}, 554e6),
    ],
    ids=["64 px", "256 px"],
)
def test_the_published_shapes_have_the_published_sizes(shape, published):
    cfg = UNetConfig.parse(shape | {"attention": (32, 16, 8), "out_channels": 6})
    width = cfg.embed_width
    with torch.device("meta"):
        network = UNet(cfg)
        outside = nn.ModuleList([nn.Linear(cfg.channels, width), nn.Linear(width, width), nn.Embedding(1000, width)])
    assert parameters(network) + parameters(outside) == pytest.approx(published, rel=0.002)


def test_a_new_network_answers_zero_and_learns_at_once():
    cfg = config(context_width=8)
    model = UNet(cfg)
    x, emb, context = inputs(cfg)
    out = model(x, emb, context)
    assert out.shape == x.shape
    assert not out.any()
    (out - x).square().mean().backward()
    assert model.conv_out.weight.grad.abs().max() > 0


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_folding_keeps_the_picture_and_moves_pixels_into_channels(fold, norm):
    cfg = config(fold=fold, norm=norm, attention=(16 // 2,), out_channels=6)
    model = scrambled(UNet(cfg), 0)
    x, emb, _ = inputs(cfg)
    sides = []
    model.middle[0].register_forward_pre_hook(lambda module, given: sides.append(given[0].shape[-1]))
    assert model(x, emb).shape == (2, 6, 16, 16)
    assert sides == [16 // fold // 2]
    assert model.conv_in.in_channels == 3 * fold**2


def test_pixels_come_back_where_they_were():
    """With everything but the first and the last convolution out of the way, folding is a permutation and its inverse."""
    cfg = config(fold=2, depth=1, mult=(1,), attention=(), middle_attention=False)
    model = UNet(cfg)
    model.down, model.middle, model.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
    model.norm_out = nn.Identity()
    with torch.no_grad():
        for conv in (model.conv_in, model.conv_out):
            conv.weight.zero_()
            conv.bias.zero_()
            conv.weight[range(12), range(12), 1, 1] = 1.0
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(x, torch.zeros(1, cfg.embed_width)), nn.functional.silu(x))


@pytest.mark.parametrize("side", [8, 12, 24])
def test_other_sides_than_the_configured(side):
    cfg = config(context_width=8)
    model = scrambled(UNet(cfg), 0)
    x, emb, context = inputs(cfg, side)
    assert model(x, emb, context).shape == x.shape


def test_masked_context_has_no_influence_and_the_rest_has():
    cfg = config(context_width=8, attention_mlp=True)
    model = scrambled(UNet(cfg), 0, std=0.1)
    x, emb, context = inputs(cfg)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    before = model(x, emb, context, mask)
    hidden, shown = context.clone(), context.clone()
    hidden[0, 2:] += 5.0
    shown[0, :2] += 5.0
    torch.testing.assert_close(model(x, emb, hidden, mask), before)
    after = model(x, emb, shown, mask)
    assert (after - before)[0].abs().max() > 1e-3
    torch.testing.assert_close(after[1], before[1])
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    torch.testing.assert_close(model(x, emb, context, nothing), model(x, emb), atol=1e-5, rtol=1e-5)


def test_the_embedding_and_every_option_have_an_effect():
    for changes in ({}, {"scale_shift": False}, {"norm": "layer"}, {"attention_mlp": True}, {"middle_attention": False}):
        cfg = config(**changes)
        model = scrambled(UNet(cfg), 0, std=0.1)
        x, emb, _ = inputs(cfg)
        assert (model(x, emb) - model(x, -emb)).abs().max() > 1e-3, changes


def test_norms_stay_fp32_under_autocast():
    x = 100 + torch.randn(2, 64, 4, 4)
    for norm in (GroupNorm(64), ChannelNorm(64)):
        exact = norm(x).detach()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(norm(x), exact)
            assert norm(x.bfloat16()).dtype == torch.bfloat16
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(ChannelNorm(64)(x), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 18, "mult": (1, 2, 3)}, "do not divide image_size 18"),
        ({"mult": ()}, "mult = "),
        ({"depth": (1, 2, 3)}, "another length than mult"),
        ({"channels": 40}, "32 groups, which do not divide"),
        ({"attention": (4,)}, r"attention at \[4\] px, but the levels are at \[16, 8\] px"),
        ({"fold": 0}, "fold = 0"),
        ({"channels": -32}, "channels = -32"),
        ({"head_channels": 20}, "3 heads of about 20 channels do not divide width 64"),
        ({"norm": "batch"}, "norm = 'batch'"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"width": 3}, "unknown key width"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_impossible_shapes_are_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        config(**changes)
    assert "\n" not in str(error.value)
