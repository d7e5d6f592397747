"""A model of ours in the diffusers layout, where there is one: an unCLIP of Karlo's shape, trained here, runs there.

There is none for folded or layer-normed networks, for a layout, for a decoder with a text transformer of its own, or for
more than one upsampler; `save_pipeline` says which it is. `published` reads back what was written, bit for bit.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unclip.errors import RequestError, WeightsError
from unclip.files import replacing_folder
from unclip.models.clip import CLIPConfig, TextConfig, VisionConfig
from unclip.models.decoder import DecoderConfig
from unclip.models.prior import PriorConfig
from unclip.models.unet import UNetConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.weights import clip as clips
from unclip.weights import diffusers, karlo, rename
from unclip.weights.source import ModelSource, PartSource

CONFIG, SCHEDULER = "config.json", "scheduler_config.json"


def save_pipeline(source: ModelSource, folder: str | Path) -> Path:
    """Writes `source` as a folder that diffusers' UnCLIPPipeline has the parts for; whole or not at all.

    RequestError for a model that diffusers has no networks for, and where the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise RequestError(f"{folder} exists: give another folder, or remove it")
    parts, upsampler, finisher = _parts(source)
    clip, prior, decoder = (parts[name] for name in ("clip", "prior", "decoder"))
    shapes = (
        CLIPConfig.parse(clip.config["model"]),
        PriorConfig.parse(prior.config["model"]),
        DecoderConfig.parse(decoder.config["model"]),
        UpsamplerConfig.parse(upsampler.config["model"]),
    )
    _refuse_what_has_no_layout(source, *shapes)
    try:
        with replacing_folder(folder) as temporary:
            _write_clip(temporary, source, clip, shapes[0])
            _write_prior(temporary, prior, shapes[1])
            _write_decoder(temporary, decoder, shapes[2])
            for name, part in (("super_res_first", upsampler), ("super_res_last", finisher)):
                config = {"_class_name": "UNet2DModel", "add_attention": False} | _unet(shapes[3].unet, attends=False)
                _write(temporary / name, config, rename.to_theirs(karlo.upsampler(shapes[3]), part.read()))
            _write_scheduler(temporary / "super_res_scheduler", upsampler, "epsilon")
            diffusers.write_json(temporary / diffusers.INDEX, _index())
    except OSError as error:
        raise WeightsError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder


def _parts(source: ModelSource) -> tuple[Mapping[str, PartSource], PartSource, PartSource]:
    """The parts, the upsampler among them, and the network of its last step, which is the same where there is no other."""
    kinds = {part.kind: part for part in source.networks.values()}
    upsamplers = [part for part in source.networks.values() if part.kind == "upsampler"]
    missing = [kind for kind in ("clip", "prior", "decoder", "upsampler") if kind not in kinds]
    if missing or len(upsamplers) != 1:
        has = ", ".join(source.networks)
        raise RequestError(f"{source.name} has {has}: diffusers wants a clip, a prior, a decoder and exactly one upsampler")
    return kinds, upsamplers[0], kinds.get("finisher", upsamplers[0])


def _refuse_what_has_no_layout(
    source: ModelSource, clip: CLIPConfig, prior: PriorConfig, decoder: DecoderConfig, upsampler: UpsamplerConfig
) -> None:
    unets = {"decoder": decoder.unet, "upsampler": upsampler.unet}
    reasons: list[tuple[str, bool]] = []
    for name, unet in unets.items():
        reasons += [
            (f"{name}.unet.fold", unet.fold != 1),
            (f"{name}.unet.norm", unet.norm != "group"),
            (f"{name}.unet.depth", len(set(unet.depths)) > 1),
            (f"{name}.unet.attention_mlp", unet.attention_mlp),
        ]
    reasons += [
        ("clip.loss", clip.loss != "softmax"),
        ("prior.text_width", {prior.text_width, prior.text_embed} != {prior.embed}),
        ("decoder.text_width", {decoder.text_width, decoder.text_embed} != {decoder.embed}),
        ("decoder.layout", decoder.layout is not None),
        ("decoder.text", decoder.text is not None),
        ("upsampler.residual", upsampler.residual),
        ("upsampler.clamped", upsampler.clamped),
        ("upsampler.unet.scale_shift", upsampler.unet.scale_shift),
        ("decoder.unet.attention", decoder.unet.attention != decoder.unet.sides[1:]),
        ("upsampler.unet.attention", upsampler.unet.attention != () or upsampler.unet.middle_attention),
    ]
    for part, prediction in (("decoder", "eps"), ("upsampler", "eps"), ("prior", "x0")):
        diffusion = next(p.config["diffusion"] for p in source.networks.values() if p.kind == part)
        reasons.append((f"{part}.diffusion.prediction", diffusion["prediction"] != prediction))
        reasons.append((f"{part}.diffusion.schedule", diffusion["schedule"] != "cosine"))
    for reason, holds in reasons:
        if holds:
            raise RequestError(f"{source.name} has no place in the diffusers layout: its {reason} is not one diffusers has")


def _write_clip(folder: Path, source: ModelSource, part: PartSource, cfg: CLIPConfig) -> None:
    theirs = rename.to_theirs(clips.hugging_face(cfg, scale=False), part.read())
    text = {name: tensor for name, tensor in theirs.items() if name.startswith("text_")}
    _write(folder / "text_encoder", _text_config(cfg.text, cfg), text)
    if cfg.vision is not None:
        vision = {name: tensor for name, tensor in theirs.items() if name not in text}
        _write(folder / "image_encoder", _vision_config(cfg.vision, cfg), vision)
        side = cfg.vision.image_size
        seen = {"image_mean": cfg.mean, "image_std": cfg.std, "crop_size": side, "size": {"shortest_edge": side}}
        (folder / "feature_extractor").mkdir()
        diffusers.write_json(folder / "feature_extractor" / "preprocessor_config.json", seen)
    words = json.loads(source.tokenizer(cfg.text.context).to_json())
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(words["model"]["vocab"], ensure_ascii=False), "utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in words["model"]["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    pad = (words.get("padding") or {}).get("pad_token", next(iter(words["model"]["vocab"])))
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad}
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": cfg.text.context, **marks}
    diffusers.write_json(folder / "tokenizer" / "tokenizer_config.json", tokenizer)


def _text_config(text: TextConfig, cfg: CLIPConfig) -> dict[str, Any]:
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "hidden_act": cfg.act,
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_attention_heads": text.heads,
        "num_hidden_layers": text.layers,
        "max_position_embeddings": text.context,
        "vocab_size": text.vocab,
        "projection_dim": cfg.embed,
        "bos_token_id": cfg.end_token - 1,
        "eos_token_id": cfg.end_token,
        "layer_norm_eps": 1e-5,
    }


def _vision_config(vision: VisionConfig, cfg: CLIPConfig) -> dict[str, Any]:
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": cfg.act,
        "hidden_size": vision.width,
        "intermediate_size": int(vision.width * vision.mlp_ratio),
        "num_attention_heads": vision.heads,
        "num_hidden_layers": vision.layers,
        "image_size": vision.image_size,
        "patch_size": vision.patch,
        "projection_dim": cfg.embed,
        "layer_norm_eps": 1e-5,
    }


def _write_prior(folder: Path, part: PartSource, cfg: PriorConfig) -> None:
    config = {
        "_class_name": "PriorTransformer",
        "num_attention_heads": cfg.heads,
        "attention_head_dim": cfg.width // cfg.heads,
        "num_layers": cfg.layers,
        "embedding_dim": cfg.embed,
        "num_embeddings": cfg.context,
        "additional_embeddings": 4,
    }
    _write(folder / "prior", config, rename.to_theirs(karlo.prior(cfg), part.read()))
    _write_scheduler(folder / "prior_scheduler", part, "sample")


def _write_decoder(folder: Path, part: PartSource, cfg: DecoderConfig) -> None:
    theirs = rename.to_theirs(karlo.decoder(cfg), part.read())
    unet = {"_class_name": "UNet2DConditionModel", "class_embed_type": "identity"} | _unet(cfg.unet, attends=True)
    projection = {
        "_class_name": "UnCLIPTextProjModel",
        "clip_embeddings_dim": cfg.embed,
        "clip_extra_context_tokens": cfg.image_tokens,
        "cross_attention_dim": cfg.unet.context_width,
        "time_embed_dim": cfg.unet.embed_width,
    }
    for name, config in (("decoder", unet), ("text_proj", projection)):
        _write(folder / name, config, rename.under(theirs, f"{name}."))
    _write_scheduler(folder / "decoder_scheduler", part, "epsilon")


def _unet(cfg: UNetConfig, *, attends: bool) -> dict[str, Any]:
    levels = len(cfg.mult)
    down, up = ["ResnetDownsampleBlock2D"] * levels, ["ResnetUpsampleBlock2D"] * levels
    values: dict[str, Any] = {}
    if attends:
        down[1:], up[:-1] = ["SimpleCrossAttnDownBlock2D"] * (levels - 1), ["SimpleCrossAttnUpBlock2D"] * (levels - 1)
        values = {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_dim": cfg.context_width}
        values["attention_head_dim"] = cfg.head_channels
    return values | {
        "sample_size": cfg.image_size,
        "in_channels": cfg.in_channels,
        "out_channels": cfg.out_channels,
        "block_out_channels": cfg.widths,
        "layers_per_block": cfg.depths[0],
        "down_block_types": down,
        "up_block_types": up,
        "resnet_time_scale_shift": "scale_shift" if cfg.scale_shift else "default",
    }


def _write_scheduler(folder: Path, part: PartSource, prediction: str) -> None:
    learned, guidance = part.config["diffusion"].get("learn_sigma"), part.config["sampling"].get("guidance", {})
    config = {
        "_class_name": "UnCLIPScheduler",
        "num_train_timesteps": part.config["diffusion"].get("timesteps", 1000),
        "prediction_type": prediction,
        "variance_type": "learned_range" if learned else "fixed_small_log",
        "clip_sample": True,
        "clip_sample_range": guidance.get("bound", 1.0),
    }
    folder.mkdir()
    diffusers.write_json(folder / SCHEDULER, config)


def _write(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    diffusers.write_component(folder, config, state, CONFIG)


def _index() -> dict[str, Any]:
    schedulers = {f"{part}_scheduler": ["diffusers", "UnCLIPScheduler"] for part in ("prior", "decoder", "super_res")}
    return {
        "_class_name": "UnCLIPPipeline",
        "prior": ["diffusers", "PriorTransformer"],
        "decoder": ["diffusers", "UNet2DConditionModel"],
        "text_proj": ["unclip", "UnCLIPTextProjModel"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "super_res_first": ["diffusers", "UNet2DModel"],
        "super_res_last": ["diffusers", "UNet2DModel"],
        **schedulers,
    }
