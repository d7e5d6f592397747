"""GLIDE's published weights (openai/glide-text2im, December 2021) as our `Glide`'s, and back.

The four files, base.pt, upsample.pt, base_inpaint.pt and upsample_inpaint.pt, are flat state dicts in which the U-Net has
ADM's names, at the top. Queries, keys and values are interleaved head by head, in the text transformer as in the U-Net.

They were sampled (notebooks/text2im.ipynb, inpaint.ipynb) by 100 ancestral steps with guidance, then by the 27 steps of
"fast27" from noise that is a little too small, without guidance: DDIM, or ancestral where a hole is filled.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unclip.errors import WeightsError
from unclip.models.glide import SIZES, Glide, GlideConfig
from unclip.weights import unet_names
from unclip.weights.rename import PerHead, Rule, nested, to_ours

_FIRST = "input_blocks.0.0.weight"


def table(cfg: GlideConfig) -> list[Rule]:
    """Our names and theirs for a network of that config; `rename.to_theirs` exports with it."""
    block = [
        Rule("norm_attention", "ln_1"),
        Rule("attention.qkv", "attn.c_qkv", PerHead(cfg.text.heads, 3)),
        Rule("attention.out", "attn.c_proj"),
        Rule("norm_mlp", "ln_2"),
        Rule("mlp.up", "mlp.c_fc"),
        Rule("mlp.down", "mlp.c_proj"),
    ]
    rules = [
        Rule("time", "time_embed"),
        Rule("text.token", "token_embedding"),
        Rule("text.position", "positional_embedding"),
        Rule("text.padding", "padding_embedding"),
        Rule("text.norm_out", "final_ln"),
        Rule("text.project", "transformer_proj"),
    ]
    for i in range(cfg.text.layers):
        rules += nested(block, f"text.transformer.blocks.{i}", f"transformer.resblocks.{i}")
    return rules + nested(unet_names.adm(cfg.unet), "unet", "")


def convert(cfg: GlideConfig, state: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Their state dict as that of a `Glide` of this config; WeightsError names what is missing or does not fit."""
    with torch.device("meta"):
        expected = Glide(cfg).state_dict()
    return to_ours(table(cfg), expected, state, where=where)


def identify(state: Mapping[str, Tensor], *, where: str) -> str:
    """Which of the four published networks a state dict is, by the channels that its first layer takes.

    WeightsError when it is none of them; `where` names the file.
    """
    sizes = SIZES["published"]
    names = ", ".join(f"{name}.pt" for name in sizes)
    if _FIRST not in state:
        raise WeightsError(f"{where}: the tensor {_FIRST} is missing: this is none of GLIDE's {names}")
    given = tuple(state[_FIRST].shape)
    for name, cfg in sizes.items():
        if given == (cfg.unet.channels, cfg.unet.in_channels, 3, 3):
            return name
    raise WeightsError(f"{where}: {_FIRST} is {given}: this is none of GLIDE's {names}")


def values(name: str) -> dict[str, Any]:
    """A published network's shape, its noise and how it was sampled, as a bundle's `config.json` has them."""
    cfg = SIZES["published"][name]
    if cfg.low is None:
        guidance = 5.0 if cfg.inpaint else 3.0
        sampling = {"sampler": "ddpm", "steps": "even100", "guidance": {"scale": guidance, "threshold": "static"}}
    else:
        sampler = "ddpm" if cfg.inpaint else "ddim"
        sampling = {"sampler": sampler, "steps": "fast27", "temperature": 0.997}
    schedule = "cosine" if cfg.low is None else "linear"
    diffusion = {"schedule": schedule, "timesteps": 1000, "prediction": "eps", "learn_sigma": True}
    return {"model": cfg.model_dump(mode="json"), "diffusion": diffusion, "sampling": sampling}
