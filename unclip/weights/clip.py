"""Published CLIPs: OpenAI's files, open_clip's state dicts, and Hugging Face's folders.

| layout        | where                                          | activation                     | mean and std          |
|---------------|------------------------------------------------|--------------------------------|-----------------------|
| OpenAI        | `ViT-*.pt`, a TorchScript archive in fp16      | QuickGELU                      | OpenAI's              |
| open_clip     | `open_clip_config.json` beside the weights     | GELU unless the config says so | the config's          |
| Hugging Face  | `config.json` of a CLIPModel or of its towers  | `hidden_act`                   | preprocessor_config's |

A wrong activation loads and is nearly right, which is the worst way of being wrong: nothing here guesses it. The number of
heads stands in no tensor; open_clip and OpenAI have 64 channels a head up to ViT-L, and 16 heads beyond.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from unclip.errors import ConfigError, WeightsError
from unclip.models.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from unclip.models.clip import OPENAI_MEAN as MEAN
from unclip.models.clip import OPENAI_STD as STD
from unclip.weights import rename
from unclip.weights.diffusers import Component
from unclip.weights.rename import STACKED, Filled, Rule, Transposed, nested

# Buffers and sizes that are kept beside the weights.
_NO_WEIGHTS = (r".*position_ids", "input_resolution", "context_length", "vocab_size", "attn_mask")

_HF_BLOCK = [
    Rule("norm_attention", "layer_norm1"),
    Rule("attention.qkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), STACKED),
    Rule("attention.out", "self_attn.out_proj"),
    Rule("norm_mlp", "layer_norm2"),
    Rule("mlp.up", "mlp.fc1"),
    Rule("mlp.down", "mlp.fc2"),
]
_OPENAI_BLOCK = [
    Rule("norm_attention", "ln_1"),
    Rule("attention.qkv.weight", "attn.in_proj_weight"),
    Rule("attention.qkv.bias", "attn.in_proj_bias"),
    Rule("attention.out", "attn.out_proj"),
    Rule("norm_mlp", "ln_2"),
    Rule("mlp.up", "mlp.c_fc"),
    Rule("mlp.down", "mlp.c_proj"),
]


def hugging_face(cfg: CLIPConfig, *, scale: bool = True) -> list[Rule]:
    """The names of transformers' CLIPModel, or, without `scale`, of its two towers with projections taken together."""
    rules = [
        Rule("logit_scale", "logit_scale") if scale else Rule("logit_scale", (), Filled(math.log(1 / 0.07))),
        Rule("text.token", "text_model.embeddings.token_embedding"),
        Rule("text.position", "text_model.embeddings.position_embedding.weight"),
        Rule("text.norm_out", "text_model.final_layer_norm"),
        Rule("text.project", "text_projection"),
        Rule("vision.cls", "vision_model.embeddings.class_embedding"),
        Rule("vision.patches", "vision_model.embeddings.patch_embedding"),
        Rule("vision.position", "vision_model.embeddings.position_embedding.weight"),
        Rule("vision.norm_in", "vision_model.pre_layrnorm"),
        Rule("vision.norm_out", "vision_model.post_layernorm"),
        Rule("vision.project", "visual_projection"),
    ]
    for tower, theirs, layers in _towers(cfg, "text_model.encoder.layers", "vision_model.encoder.layers"):
        for i in range(layers):
            rules += nested(_HF_BLOCK, f"{tower}.transformer.blocks.{i}", f"{theirs}.{i}")
    return rules


def openai(cfg: CLIPConfig) -> list[Rule]:
    """The names of OpenAI's CLIP and of open_clip's."""
    rules = [
        Rule("logit_scale", "logit_scale"),
        Rule("text.token", "token_embedding"),
        Rule("text.position", "positional_embedding"),
        Rule("text.norm_out", "ln_final"),
        Rule("text.project.weight", "text_projection", Transposed()),
        Rule("vision.cls", "visual.class_embedding"),
        Rule("vision.patches", "visual.conv1"),
        Rule("vision.position", "visual.positional_embedding"),
        Rule("vision.norm_in", "visual.ln_pre"),
        Rule("vision.norm_out", "visual.ln_post"),
        Rule("vision.project.weight", "visual.proj", Transposed()),
    ]
    for tower, theirs, layers in _towers(cfg, "transformer.resblocks", "visual.transformer.resblocks"):
        for i in range(layers):
            rules += nested(_OPENAI_BLOCK, f"{tower}.transformer.blocks.{i}", f"{theirs}.{i}")
    return rules


def convert(
    cfg: CLIPConfig, layout: Literal["hugging_face", "towers", "openai"], state: Mapping[str, Tensor], *, where: str
) -> dict[str, Tensor]:
    """A published state dict as ours; WeightsError names a tensor that is missing, surplus or misshapen."""
    table = openai(cfg) if layout == "openai" else hugging_face(cfg, scale=layout == "hugging_face")
    with torch.device("meta"):
        expected = CLIP(cfg).state_dict()
    return rename.to_ours(table, expected, state, where=where, ignored=_NO_WEIGHTS)


def openai_config(
    state: Mapping[str, Tensor],
    *,
    where: str,
    act: Literal["gelu", "quick_gelu"] = "quick_gelu",
    mean: tuple[float, float, float] = MEAN,
    std: tuple[float, float, float] = STD,
) -> CLIPConfig:
    """The shape of an OpenAI or open_clip state dict, read off its tensors. WeightsError for one that is no such CLIP."""
    try:
        patches, position = state["visual.conv1.weight"], state["visual.positional_embedding"]
        vocab, text_width = state["token_embedding.weight"].shape
        hidden = state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
        context, embed = state["positional_embedding"].shape[0], state["text_projection"].shape[1]
    except KeyError as error:
        kind = "a CLIP with a ResNet, which we do not build" if "visual.layer1.0.conv1.weight" in state else "no CLIP"
        raise WeightsError(f"{where}: the tensor {error.args[0]} is missing: it is {kind}") from None
    except (IndexError, ValueError):  # a scalar, or a vector where a matrix is expected
        raise WeightsError(f"{where}: its tensors have not the dimensions of a CLIP's") from None
    width, patch = patches.shape[0], patches.shape[-1]
    vision = {
        "image_size": patch * math.isqrt(position.shape[0] - 1),
        "patch": patch,
        "width": width,
        "layers": _count(state, "visual.transformer.resblocks."),
        "heads": max(1, width // 64) if width <= 1024 else 16,
        "mlp_ratio": hidden / width,
    }
    text = {
        "context": context,
        "vocab": vocab,
        "width": text_width,
        "layers": _count(state, "transformer.resblocks."),
        "heads": max(1, text_width // 64),
    }
    values = {"embed": embed, "vision": vision, "text": text, "act": act, "end_token": vocab - 1, "mean": mean, "std": std}
    try:
        return CLIPConfig.parse(values, where=where)
    except ConfigError as error:
        raise WeightsError(str(error)) from None


def hugging_face_config(
    text: Component, vision: Component | None, *, embed: int, preprocessor: Mapping[str, Any] | None = None
) -> CLIPConfig:
    """The shape of the towers of a transformers CLIP, each by its own config."""
    seen = preprocessor or {}
    acts = {tower.get("hidden_act", "quick_gelu") for tower in (text, vision) if tower is not None}
    act = acts.pop()
    if acts or act not in ("gelu", "quick_gelu"):
        raise WeightsError(f"{text.where}: hidden_act is {act!r}, expected 'gelu' or 'quick_gelu', for both towers the same")
    text.expect("layer_norm_eps", 1e-5, default=1e-5)
    vocab = text.get("vocab_size", 49408)
    return text.shape(
        CLIPConfig,
        embed=embed,
        vision=None if vision is None else _hugging_face_vision(vision),
        text=text.shape(
            TextConfig,
            context=text.get("max_position_embeddings", 77),
            vocab=vocab,
            width=text.get("hidden_size", 512),
            layers=text.get("num_hidden_layers", 12),
            heads=text.get("num_attention_heads", 8),
        ),
        act=act,
        # Configs written before 2023 say 2, which no CLIP ends a caption with: pooling took the largest id then.
        end_token=vocab - 1 if text.get("eos_token_id", 49407) == 2 else text.get("eos_token_id", 49407),
        mean=tuple(seen.get("image_mean", MEAN)),
        std=tuple(seen.get("image_std", STD)),
    )


def _hugging_face_vision(vision: Component) -> VisionConfig:
    vision.expect("layer_norm_eps", 1e-5, default=1e-5)
    width = vision.get("hidden_size", 768)
    return vision.shape(
        VisionConfig,
        image_size=vision.get("image_size", 224),
        patch=vision.get("patch_size", 32),
        width=width,
        layers=vision.get("num_hidden_layers", 12),
        heads=vision.get("num_attention_heads", 12),
        mlp_ratio=vision.get("intermediate_size", 3072) / width,
    )


def _towers(cfg: CLIPConfig, text: str, vision: str) -> list[tuple[str, str, int]]:
    """Our tower, the place of its blocks in theirs, and how many there are."""
    towers = [("text", text, cfg.text.layers)]
    return towers if cfg.vision is None else [*towers, ("vision", vision, cfg.vision.layers)]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
