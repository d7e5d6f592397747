"""The modules of our U-Net in the words of ADM's code (guided-diffusion, GLIDE, Karlo) and of diffusers.

Ours and ADM's are flat lists in the same order; diffusers nests by level. The levels are those of a config, so a table is
computed from it. Both leave out what a network has beside its U-Net: the time embedding, the conditions.
"""

from collections.abc import Iterator
from typing import NamedTuple

from unclip.models.unet import UNetConfig
from unclip.weights.rename import PAIR, STACKED, Conv1d, PerHead, Rule, nested

_ADM_BLOCK = [
    Rule("norm_in", "in_layers.0"),
    Rule("conv_in", "in_layers.2"),
    Rule("condition", "emb_layers.1"),
    Rule("norm_out", "out_layers.0"),
    Rule("conv_out", "out_layers.3"),
    Rule("skip", "skip_connection"),
]
_DIFFUSERS_BLOCK = [
    Rule("norm_in", "norm1"),
    Rule("conv_in", "conv1"),
    Rule("condition", "time_emb_proj"),
    Rule("norm_out", "norm2"),
    Rule("conv_out", "conv2"),
    Rule("skip", "conv_shortcut"),
]
_DIFFUSERS_ATTENTION = [
    Rule("norm", "group_norm"),
    Rule("qkv", ("to_q", "to_k", "to_v"), STACKED),
    Rule("context_kv", ("add_k_proj", "add_v_proj"), PAIR),
    Rule("out", "to_out.0"),
]


class _Place(NamedTuple):
    """A stage of ours, its level, its index there; `resamples`: it halves the sides, or ends by doubling them."""

    ours: str
    level: int
    index: int
    resamples: bool


def adm(cfg: UNetConfig) -> list[Rule]:
    """Our names and ADM's, `input_blocks.0.0` to `out.2`; attention in the older order, head by head."""
    middle = 2 if cfg.middle_attention else 1
    rules = [Rule("conv_in", "input_blocks.0.0"), Rule("norm_out", "out.0"), Rule("conv_out", "out.2")]
    rules += nested(_ADM_BLOCK, "middle.0.block", "middle_block.0")
    rules += nested(_ADM_BLOCK, "middle.1.block", f"middle_block.{middle}")
    if cfg.middle_attention:
        rules += nested(_adm_attention(cfg, -1), "middle.0.attention", "middle_block.1")
    for side, blocks, first in (("down", "input_blocks", 1), ("up", "output_blocks", 0)):
        for number, place in enumerate(_places(cfg, side), start=first):
            theirs, attends = f"{blocks}.{number}", _attends(cfg, place)
            rules += nested(_ADM_BLOCK, f"{place.ours}.block", f"{theirs}.0")
            if attends:
                rules += nested(_adm_attention(cfg, place.level), f"{place.ours}.attention", f"{theirs}.1")
            if side == "up" and place.resamples:
                rules += nested(_ADM_BLOCK, f"{place.ours}.upsample", f"{theirs}.{2 if attends else 1}")
    return rules


def diffusers(cfg: UNetConfig) -> list[Rule]:
    """Our names and those of diffusers' UNet2DConditionModel and UNet2DModel with resampling residual blocks."""
    rules = [Rule("conv_in", "conv_in"), Rule("norm_out", "conv_norm_out"), Rule("conv_out", "conv_out")]
    rules += nested(_DIFFUSERS_BLOCK, "middle.0.block", "mid_block.resnets.0")
    rules += nested(_DIFFUSERS_BLOCK, "middle.1.block", "mid_block.resnets.1")
    if cfg.middle_attention:
        rules += nested(_DIFFUSERS_ATTENTION, "middle.0.attention", "mid_block.attentions.0")
    for place in _places(cfg, "down"):
        theirs = f"down_blocks.{place.level}"
        kind = "downsamplers.0" if place.resamples else f"resnets.{place.index}"
        rules += nested(_DIFFUSERS_BLOCK, f"{place.ours}.block", f"{theirs}.{kind}")
        if _attends(cfg, place):
            rules += nested(_DIFFUSERS_ATTENTION, f"{place.ours}.attention", f"{theirs}.attentions.{place.index}")
    for place in _places(cfg, "up"):
        theirs = f"up_blocks.{len(cfg.mult) - 1 - place.level}"
        rules += nested(_DIFFUSERS_BLOCK, f"{place.ours}.block", f"{theirs}.resnets.{place.index}")
        if _attends(cfg, place):
            rules += nested(_DIFFUSERS_ATTENTION, f"{place.ours}.attention", f"{theirs}.attentions.{place.index}")
        if place.resamples:
            rules += nested(_DIFFUSERS_BLOCK, f"{place.ours}.upsample", f"{theirs}.upsamplers.0")
    return rules


def _adm_attention(cfg: UNetConfig, level: int) -> list[Rule]:
    heads = cfg.heads(cfg.widths[level])
    return [
        Rule("norm", "norm"),
        Rule("qkv", "qkv", PerHead(heads, 3, conv=True)),
        Rule("context_kv", "encoder_kv", PerHead(heads, 2, conv=True)),
        Rule("out", "proj_out", Conv1d()),
    ]


def _attends(cfg: UNetConfig, place: _Place) -> bool:
    halves = place.resamples and place.ours.startswith("down")
    return not halves and cfg.sides[place.level] * cfg.fold in cfg.attention


def _places(cfg: UNetConfig, side: str) -> Iterator[_Place]:
    """The stages of the way down or up, in the order in which `UNet` lists them."""
    levels, number = range(len(cfg.mult)), 0
    for level in levels if side == "down" else reversed(levels):
        between = level < len(cfg.mult) - 1 if side == "down" else level > 0
        depth = cfg.depths[level]
        for index in range(depth + 1 if side == "up" or between else depth):
            yield _Place(f"{side}.{number}", level, index, between and index == depth)
            number += 1
