"""Karlo (kakaobrain/karlo-v1-alpha), the largest open unCLIP in pixel space, and the priors built like its own.

The networks are ours under other names. What is its own: every attention's matrices are interleaved head by head in the
original files; the projection to image tokens is channel by channel; z is standardised by statistics that come in a file of
their own; 64 px go to 256 by two networks, of which the second, tuned with adversarial and perceptual losses, makes the
last step; the small image is enlarged without a clamp. Sampling is the published one: DDPM over 25, 25 and 7 timesteps that
are spaced as numpy would, guidance 4 and 8.

A rule says where a tensor comes from; `original` tables are for the .ckpt files, the others for the diffusers layout, whose
decoder is two components: here they stand under `decoder.` and `text_proj.`.
"""

import math
from typing import Any

from unclip.errors import WeightsError
from unclip.models.decoder import DecoderConfig
from unclip.models.prior import PriorConfig
from unclip.models.unet import UNetConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.weights import unet_names
from unclip.weights.diffusers import Component
from unclip.weights.rename import STACKED, ChannelMajor, Filled, PerHead, Rule, Unsqueezed, nested

TOKENS = 4  # that stand for z in the decoder's attention
NAN = math.nan  # the error that Analytic-DPM asks for was never measured

_PRIOR_BLOCK = [
    Rule("norm_attention", "norm1"),
    Rule("attention.qkv", ("attn1.to_q", "attn1.to_k", "attn1.to_v"), STACKED),
    Rule("attention.out", "attn1.to_out.0"),
    Rule("norm_mlp", "norm3"),
    Rule("mlp.up", "ff.net.0.proj"),
    Rule("mlp.down", "ff.net.2"),
]


def prior(cfg: PriorConfig) -> list[Rule]:
    """Diffusers' PriorTransformer: Karlo's, Kandinsky 2.1's and 2.2's."""
    rules = [
        Rule("time.0", "time_embedding.linear_1"),
        Rule("time.2", "time_embedding.linear_2"),
        Rule("z_in", "proj_in"),
        Rule("text_in", "embedding_proj"),
        Rule("states_in", "encoder_hidden_states_proj"),
        Rule("position", "positional_embedding", Unsqueezed()),
        Rule("query", "prd_embedding", Unsqueezed(2)),
        Rule("norm_out", "norm_out"),
        Rule("z_out", "proj_to_clip_embeddings"),
        Rule("z_mean", "clip_mean", Unsqueezed()),
        Rule("z_std", "clip_std", Unsqueezed()),
        Rule("x0_error", (), Filled(NAN)),
    ]
    for i in range(cfg.layers):
        rules += nested(_PRIOR_BLOCK, f"transformer.blocks.{i}", f"transformer_blocks.{i}")
    return rules


def original_prior(cfg: PriorConfig) -> list[Rule]:
    """The prior's .ckpt, with the two tensors of the statistics' file added to it as `clip_mean` and `clip_std`."""
    block = [
        Rule("norm_attention", "ln_1"),
        Rule("attention.qkv", "attn.c_qkv", PerHead(cfg.heads, 3)),
        Rule("attention.out", "attn.c_proj"),
        Rule("norm_mlp", "ln_2"),
        Rule("mlp.up", "mlp.c_fc"),
        Rule("mlp.down", "mlp.c_proj"),
    ]
    rules = [
        Rule("time", "time_embed"),
        Rule("z_in", "clip_img_proj"),
        Rule("text_in", "text_emb_proj"),
        Rule("states_in", "text_enc_proj"),
        Rule("position", "positional_embedding", Unsqueezed()),
        Rule("query", "prd_emb", Unsqueezed(2)),
        Rule("norm_out", "final_ln"),
        Rule("z_out", "out_proj"),
        Rule("z_mean", "clip_mean"),
        Rule("z_std", "clip_std"),
        Rule("x0_error", (), Filled(NAN)),
    ]
    for i in range(cfg.layers):
        rules += nested(block, f"transformer.blocks.{i}", f"transformer.resblocks.{i}")
    return rules


def decoder(cfg: DecoderConfig) -> list[Rule]:
    """Diffusers' UNet2DConditionModel under `decoder.` and UnCLIPTextProjModel under `text_proj.`."""
    rules = [
        Rule("time.0", "decoder.time_embedding.linear_1"),
        Rule("time.2", "decoder.time_embedding.linear_2"),
        Rule("z_to_time", "text_proj.clip_image_embeddings_project_to_time_embeddings"),
        Rule("text_to_time", "text_proj.embedding_proj"),
        Rule("z_to_tokens", "text_proj.clip_extra_context_tokens_proj", ChannelMajor(cfg.image_tokens)),
        Rule("text_to_tokens", "text_proj.encoder_hidden_states_proj"),
        Rule("norm_text", "text_proj.text_encoder_hidden_states_norm"),
        Rule("null_z", "text_proj.learned_classifier_free_guidance_embeddings"),
    ]
    return rules + nested(unet_names.diffusers(cfg.unet), "unet", "decoder")


def original_decoder(cfg: DecoderConfig) -> list[Rule]:
    """The decoder's .ckpt."""
    rules = [
        Rule("time", "time_embed"),
        Rule("z_to_time", "clip_emb"),
        Rule("text_to_time", "text_feat_proj"),
        Rule("z_to_tokens", "clip_tok_proj", ChannelMajor(cfg.image_tokens)),
        Rule("text_to_tokens", "text_seq_proj.0"),
        Rule("norm_text", "text_seq_proj.1"),
        Rule("null_z", "cf_param"),
    ]
    return rules + nested(unet_names.adm(cfg.unet), "unet", "")


def upsampler(cfg: UpsamplerConfig) -> list[Rule]:
    """Diffusers' UNet2DModel."""
    rules = [Rule("time.0", "time_embedding.linear_1"), Rule("time.2", "time_embedding.linear_2")]
    return rules + nested(unet_names.diffusers(cfg.unet), "unet", "")


def original_upsampler(cfg: UpsamplerConfig) -> list[Rule]:
    """One of the two networks in the upsampler's .ckpt."""
    return [Rule("time", "time_embed"), *nested(unet_names.adm(cfg.unet), "unet", "")]


def unet_config(c: Component, *, channels: int, attends: bool) -> UNetConfig:
    """The shape of a UNet2DConditionModel (`attends`) or of a UNet2DModel, of which we build those like Karlo's alone."""
    widths = tuple(c.need("block_out_channels", list))
    if not widths or not all(isinstance(width, int) and width > 0 for width in widths):
        raise WeightsError(f"{c.where}: block_out_channels is {list(widths)}, expected whole numbers")
    side, levels = c.need("sample_size", int), len(widths)
    down = ("SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D") if attends else ("", "")
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    for key, attending, without in zip(("down_block_types", "up_block_types"), down, plain, strict=True):
        kinds = [without, *[attending if attends else without] * (levels - 1)]
        c.expect(key, kinds if key.startswith("down") else kinds[::-1], default=None)
    c.expect("in_channels", channels, default=3)
    c.expect("norm_num_groups", 32, default=32)
    c.expect("norm_eps", 1e-5, default=1e-5)
    c.expect("act_fn", "silu", default="silu")
    c.expect("flip_sin_to_cos", True, default=True)
    c.expect("freq_shift", 0, default=0)
    c.expect("add_attention", False, default=True) if not attends else c.expect(
        "mid_block_type", "UNetMidBlock2DSimpleCrossAttn", default="UNetMidBlock2DCrossAttn"
    )
    return c.shape(
        UNetConfig,
        image_size=side,
        channels=widths[0],
        mult=tuple(width / widths[0] for width in widths),
        depth=c.get("layers_per_block", 2),
        attention=tuple(side >> level for level in range(1, levels)) if attends else (),
        head_channels=c.get("attention_head_dim", 8) if attends else 64,
        in_channels=channels,
        out_channels=c.get("out_channels", 3),
        context_width=c.need("cross_attention_dim", int) if attends else None,
        scale_shift=c.get("resnet_time_scale_shift", "default") == "scale_shift",
        middle_attention=attends,
    )


def prior_config(c: Component, *, text_width: int, text_embed: int) -> PriorConfig:
    """The shape of a PriorTransformer."""
    heads, embed = c.get("num_attention_heads", 32), c.get("embedding_dim", 768)
    width = heads * c.get("attention_head_dim", 64)
    expected = {
        "additional_embeddings": 4,
        "time_embed_act_fn": "silu",
        "encoder_hid_proj_type": "linear",
        "added_emb_type": "prd",
        "time_embed_dim": width,
        "embedding_proj_dim": embed,
        "clip_embed_dim": embed,
    }
    for key, value in expected.items():
        c.expect(key, value, default=value)
    for key in ("norm_in_type", "embedding_proj_norm_type"):
        c.expect(key, None, default=None)
    return c.shape(
        PriorConfig,
        embed=embed,
        text_embed=text_embed,
        text_width=text_width,
        context=c.get("num_embeddings", 77),
        width=width,
        layers=c.get("num_layers", 20),
        heads=heads,
    )


def decoder_config(unet: Component, projection: Component, *, text_width: int) -> DecoderConfig:
    """The shape of the decoder and of what stands between CLIP and it."""
    unet.expect("class_embed_type", "identity", default=None)
    embed = projection.get("clip_embeddings_dim", 768)
    return projection.shape(
        DecoderConfig,
        unet=unet_config(unet, channels=3, attends=True),
        embed=embed,
        text_width=text_width,
        text_embed=embed,
        image_tokens=projection.get("clip_extra_context_tokens", TOKENS),
    )


def upsampler_config(c: Component, *, low: int) -> UpsamplerConfig:
    """The shape of a super-resolution network that takes images of `low` px."""
    unet = unet_config(c, channels=6, attends=False)
    return c.shape(UpsamplerConfig, unet=unet, low=low, high=unet.image_size, clamped=False)


def diffusion_values(prediction: str, *, learned: bool = False) -> dict[str, Any]:
    """The noise of all of Karlo's networks, as a bundle's `diffusion`."""
    return {"schedule": "cosine", "timesteps": 1000, "prediction": prediction, "learn_sigma": learned}


def sampling_values(steps: int, *, scale: float = 1.0, bound: float = 1.0) -> dict[str, Any]:
    """The published sampling, as a bundle's `sampling`; predicted x_0 is clamped to `bound`."""
    return {
        "sampler": "ddpm",
        "steps": f"karlo{steps}",
        "guidance": {"scale": scale, "threshold": "static", "bound": bound},
    }


PRIOR = PriorConfig(embed=768, text_embed=768, text_width=768, context=77, width=2048, layers=20, heads=32)
DECODER = DecoderConfig(
    unet=UNetConfig(
        image_size=64,
        channels=320,
        mult=(1, 2, 3, 4),
        depth=3,
        attention=(32, 16, 8),
        dropout=0.1,
        out_channels=6,
        context_width=1536,
    ),
    embed=768,
    text_width=768,
    text_embed=768,
    image_tokens=TOKENS,
)
UPSAMPLER = UpsamplerConfig(
    unet=UNetConfig(
        image_size=256,
        channels=320,
        mult=(1, 2, 3, 4),
        depth=3,
        in_channels=6,
        scale_shift=False,
        middle_attention=False,
    ),
    low=64,
    high=256,
    clamped=False,
)
"""The shapes of the original files, which say nothing of themselves (configs/*.yaml of its repository)."""
