"""Folders and files that others have published, as models of ours: which family one is, and what its parts are.

| family                     | how it is known                                   | what it is here                     |
|----------------------------|---------------------------------------------------|-------------------------------------|
| Karlo, diffusers           | UnCLIPPipeline, UnCLIPImageVariationPipeline      | all of it; variations have no prior |
| Karlo, original            | prior-, decoder-, improved-sr-ckpt-*.ckpt         | all of it                           |
| Kandinsky 2.1, 2.2, priors | KandinskyPriorPipeline, KandinskyV22PriorPipeline | CLIP and prior                      |
| LAION's prior              | latest.pth beside a CLIP's files                  | CLIP and prior                      |
| GLIDE, filtered            | base.pt, upsample.pt, encoder.json, vocab.bpe     | a GLIDE                             |
| CLIP, Hugging Face         | config.json of a CLIPModel                        | CLIP                                |
| CLIP, open_clip            | open_clip_config.json                             | CLIP                                |
| CLIP, OpenAI               | ViT-*.pt beside bpe_simple_vocab_16e6.txt.gz      | CLIP                                |
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unclip.config import Config
from unclip.errors import WeightsError
from unclip.layers import Activation
from unclip.models.clip import CLIPConfig
from unclip.models.decoder import Decoder
from unclip.models.glide import SIZES, Glide
from unclip.models.glide_tokenizer import GlideTokenizer
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler
from unclip.tokenizer import Tokenizer
from unclip.weights import clip as clips
from unclip.weights import diffusers, glide, karlo, laion, rename
from unclip.weights.diffusers import Component, component
from unclip.weights.foreign import is_script, read_pickle, read_script, read_tensors
from unclip.weights.source import ModelSource, PartSource
from unclip.weights.store import read_json

VOCABULARY = ("bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt")
KARLO_FILES = {"prior": "prior-ckpt-*.ckpt", "decoder": "decoder-ckpt-*.ckpt", "sr": "improved-sr-ckpt-*.ckpt"}
KARLO_UPSAMPLERS = ("model_first_steps.", "model_last_step.")
KARLO_CLIP, KARLO_STATISTICS = "ViT-L-14.pt", "ViT-L-14_stats.th"
_NETWORKS: dict[str, Any] = {
    "prior": Prior,
    "decoder": Decoder,
    "upsampler": Upsampler,
    "finisher": Upsampler,
    "glide": Glide,
}


def open_folder(folder: Path, *, name: str) -> ModelSource:
    """A folder that somebody else has published; WeightsError where it is of no family that we know."""
    if (folder / diffusers.INDEX).is_file():
        return _open_pipeline(folder, name)
    if any(folder.glob(KARLO_FILES["decoder"])):
        return _open_karlo(folder, name)
    open_clip = (folder / "open_clip_config.json").is_file()
    weights = next((f for f in sorted(folder.glob("open_clip_*model*")) if f.suffix in (".safetensors", ".bin")), None)
    if open_clip and weights is not None:
        return _open_open_clip(folder, weights, name)
    if (folder / "config.json").is_file() and any(folder.glob("*tokenizer*")):  # some repositories have both layouts
        return _open_clip_model(folder, name)
    if open_clip:
        raise WeightsError(f"{folder} holds no weights: expected open_clip_model.safetensors or open_clip_pytorch_model.bin")
    if laions := sorted(folder.glob("*.pth")):
        return _open_laion(folder, laions[0], name)
    if (folder / "base.pt").is_file():
        return _open_glide(folder, name)
    if scripts := sorted(folder.glob("*.pt")):
        return open_clip_file(scripts[0], name=name, tokenizer=folder)
    raise WeightsError(f"{folder} is no model that we know: it has neither {diffusers.INDEX} nor a bundle's unclip.json")


def open_clip_file(file: Path, *, name: str, tokenizer: Path, act: Activation | None = None) -> ModelSource:
    """A CLIP of one file, OpenAI's or a state dict of open_clip's; `tokenizer`: its vocabulary, or the folder with it.

    A state dict does not say its activation and loads with either: `act` has to, or it is a WeightsError. OpenAI's own
    files are known by being scripts.
    """
    script = is_script(file)
    state = read_script(file) if script else read_tensors(file)
    cfg = clips.openai_config(state, where=str(file), act=act or "quick_gelu")
    if act is None and not script:
        raise WeightsError(
            f"{file} does not say its activation: convert it with --act, gelu for open_clip's and quick_gelu for OpenAI's"
        )
    part = PartSource("clip", _saved(cfg), partial(clips.convert, cfg, "openai", state, where=str(file)), str(file))
    return ModelSource(name, str(file), {"clip": part}, partial(_read_tokenizer, tokenizer))


def _open_laion(folder: Path, file: Path, name: str) -> ModelSource:
    """LAION's prior beside the CLIP that it was trained on, OpenAI's file or a folder of Hugging Face's."""
    settings = folder / "prior_config.json"
    prior = laion.read_prior(file, settings=settings if settings.is_file() else None)
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and (path / "config.json").is_file()]
    clips_here = sorted(folder.glob("*.pt"))
    if not clips_here and not below:
        raise WeightsError(f"{folder} has LAION's prior and no CLIP: put ViT-L-14.pt and its vocabulary beside {file.name}")
    clip = open_clip_file(clips_here[0], name=name, tokenizer=folder) if clips_here else _open_clip_model(below[0], name)
    # Without guidance, as LAION sampled it: dropping captions did nothing in the package's versions of that time.
    sampling = {"sampler": "ddpm", "steps": 64, "guidance": {"threshold": "none"}}
    values = _diffused(prior.config, prior.diffusion.model_dump(mode="json"), sampling)
    part = PartSource("laion_prior", values, lambda: prior.state, str(file))
    return ModelSource(name, str(folder), {**clip.networks, "prior": part}, clip.tokenizer, provenance={"from": name})


def _open_glide(folder: Path, name: str) -> ModelSource:
    """GLIDE's files, base.pt and upsample.pt or those for inpainting, beside GPT-2's vocabulary."""
    encoder, merges = (_only(folder, pattern) for pattern in ("encoder.json*", "vocab.bpe*"))
    parts = {}
    for file in sorted(folder.glob("*.pt")):
        state = read_tensors(file)
        which = glide.identify(state, where=str(file))
        if f"glide_{which}" in parts:
            raise WeightsError(f"{folder} holds GLIDE's {which}.pt twice: remove {file.name} or the other")
        values = glide.values(which)
        cfg = SIZES["published"][which]
        parts[f"glide_{which}"] = _part("glide", cfg, values, glide.table(cfg), partial(read_tensors, file), str(file))
    tokenizer = partial(_gpt2, encoder, merges)
    return ModelSource(name, str(folder), parts, tokenizer, provenance={"published as": "GLIDE, filtered", "from": name})


def _gpt2(encoder: Path, merges: Path, context: int) -> GlideTokenizer:
    return GlideTokenizer.from_gpt2(encoder, merges, context=context)


def _open_pipeline(folder: Path, name: str) -> ModelSource:
    """A pipeline in the diffusers layout."""
    kind = diffusers.read_index(folder).get("_class_name")
    clip, cfg = _pipeline_clip(folder)
    parts = {"clip": clip}
    match kind:
        case "UnCLIPPipeline" | "UnCLIPImageVariationPipeline":
            if kind == "UnCLIPPipeline":
                parts["prior"] = _prior(folder, "prior_scheduler", cfg)
            parts |= _decoder(folder, cfg) | _upsamplers(folder)
        case "KandinskyPriorPipeline" | "KandinskyV22PriorPipeline":
            parts["prior"] = _prior(folder, "scheduler", cfg)
        case _:
            raise WeightsError(
                f"{folder} holds a {kind}: expected a UnCLIPPipeline, UnCLIPImageVariationPipeline or a Kandinsky prior's"
            )
    provenance = {"published as": kind, "from": name}
    return ModelSource(name, str(folder), parts, partial(_read_tokenizer, folder / "tokenizer"), provenance=provenance)


def _pipeline_clip(folder: Path) -> tuple[PartSource, CLIPConfig]:
    """The CLIP of a pipeline, whose towers are components of their own; that for images may be missing."""
    text = component(folder, "text_encoder")
    vision = component(folder, "image_encoder") if (folder / "image_encoder").is_dir() else None
    processor = next((folder / n for n in ("feature_extractor", "image_processor") if (folder / n).is_dir()), None)
    seen_as = component(folder, processor.name, file="preprocessor_config.json").config if processor else None
    cfg = clips.hugging_face_config(text, vision, embed=text.get("projection_dim", 512), preprocessor=seen_as)

    def read() -> dict[str, Tensor]:
        state = text.state() | ({} if vision is None else vision.state())
        return clips.convert(cfg, "towers", state, where=str(folder / "text_encoder"))

    return PartSource("clip", _saved(cfg), read, str(folder / "text_encoder")), cfg


def _prior(folder: Path, scheduler: str, clip: CLIPConfig) -> PartSource:
    c = component(folder, "prior")
    cfg = karlo.prior_config(c, text_width=clip.text.width, text_embed=clip.embed)
    bound = _bound(folder, scheduler, prediction="sample")
    values = _diffused(cfg, karlo.diffusion_values("x0"), karlo.sampling_values(25, scale=4.0, bound=bound))
    return _part("prior", cfg, values, karlo.prior(cfg), c.state, c.where)


def _decoder(folder: Path, clip: CLIPConfig) -> dict[str, PartSource]:
    unet, projection = component(folder, "decoder"), component(folder, "text_proj")
    cfg = karlo.decoder_config(unet, projection, text_width=clip.text.width)
    learned = cfg.unet.out_channels == 6
    bound = _bound(folder, "decoder_scheduler", prediction="epsilon", variance="learned_range" if learned else None)
    values = _diffused(
        cfg, karlo.diffusion_values("eps", learned=learned), karlo.sampling_values(25, scale=8.0, bound=bound)
    )

    def read() -> dict[str, Tensor]:
        parts = {"decoder": unet.state(), "text_proj": projection.state()}
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}

    return {"decoder": _part("decoder", cfg, values, karlo.decoder(cfg), read, unet.where)}


def _upsamplers(folder: Path) -> dict[str, PartSource]:
    """The network of the first steps and the one of the last."""
    bound = _bound(folder, "super_res_scheduler", prediction="epsilon")
    side = component(folder, "decoder").need("sample_size", int)
    first, last = (component(folder, f"super_res_{which}") for which in ("first", "last"))
    return _two_upsamplers(
        *((c.state, c.where, karlo.upsampler_config(c, low=side)) for c in (first, last)), table=karlo.upsampler, bound=bound
    )


def _two_upsamplers(first: Any, last: Any, *, table: Any, bound: float) -> dict[str, PartSource]:
    """The parts of two (read, where, config): an upsampler and its finisher, which makes the last step."""
    read, where, cfg = first
    name = f"upsampler_{cfg.high}"
    values = _diffused(cfg, karlo.diffusion_values("eps"), karlo.sampling_values(7, bound=bound))
    parts = {name: _part("upsampler", cfg, values, table(cfg), read, where)}
    read, where, cfg = last
    parts[f"{name}_last"] = _part("finisher", cfg, {**_saved(cfg), "finishes": name}, table(cfg), read, where)
    return parts


def _open_karlo(folder: Path, name: str) -> ModelSource:
    """Karlo's original files, which lie beside OpenAI's CLIP and the statistics of its z."""
    files = {part: _only(folder, pattern) for part, pattern in KARLO_FILES.items()}
    statistics, clip_file = _only(folder, KARLO_STATISTICS), _only(folder, KARLO_CLIP)

    def read_prior() -> dict[str, Tensor]:
        mean, std = _statistics(statistics)
        return _checkpoint(files["prior"], "model.") | {"clip_mean": mean, "clip_std": std}

    def decoder_values() -> dict[str, Any]:
        diffusion = karlo.diffusion_values("eps", learned=True)
        return _diffused(karlo.DECODER, diffusion, karlo.sampling_values(25, scale=8.0))

    clip = open_clip_file(clip_file, name=name, tokenizer=folder)
    prior_values = _diffused(karlo.PRIOR, karlo.diffusion_values("x0"), karlo.sampling_values(25, scale=4.0, bound=10.0))
    prior_table, decoder_table = karlo.original_prior(karlo.PRIOR), karlo.original_decoder(karlo.DECODER)
    read_decoder = partial(_checkpoint, files["decoder"], "model.")
    sr = [(partial(_checkpoint, files["sr"], prefix), str(files["sr"]), karlo.UPSAMPLER) for prefix in KARLO_UPSAMPLERS]
    parts = {
        "clip": clip.networks["clip"],
        "prior": _part("prior", karlo.PRIOR, prior_values, prior_table, read_prior, str(files["prior"])),
        "decoder": _part("decoder", karlo.DECODER, decoder_values(), decoder_table, read_decoder, str(files["decoder"])),
        **_two_upsamplers(*sr, table=karlo.original_upsampler, bound=1.0),
    }
    return ModelSource(name, str(folder), parts, clip.tokenizer, provenance={"published as": "Karlo v1 alpha", "from": name})


def _open_open_clip(folder: Path, file: Path, name: str) -> ModelSource:
    """A repository of open_clip: its config says what no tensor does."""
    c = Component(folder, read_json(folder / "open_clip_config.json"), "open_clip_config.json")
    model, seen = c.need("model_cfg", dict), c.get("preprocess_cfg", {})
    state = read_tensors(file)
    act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    statistics = {key: tuple(seen[key]) for key in ("mean", "std") if key in seen}
    cfg = clips.openai_config(state, where=str(file), act=act, **statistics)
    part = PartSource("clip", _saved(cfg), partial(clips.convert, cfg, "openai", state, where=str(file)), str(file))
    return ModelSource(name, str(folder), {"clip": part}, partial(_read_tokenizer, folder))


def _open_clip_model(folder: Path, name: str) -> ModelSource:
    """A CLIPModel of transformers."""
    whole = Component(folder, read_json(folder / "config.json"), "config.json")
    whole.expect("model_type", "clip", default=None)
    text, vision = (Component(folder, whole.get(f"{tower}_config", {}), "config.json") for tower in ("text", "vision"))
    processor = folder / "preprocessor_config.json"
    seen = read_json(processor) if processor.is_file() else None
    cfg = clips.hugging_face_config(text, vision, embed=whole.get("projection_dim", 512), preprocessor=seen)

    def read() -> dict[str, Tensor]:
        return clips.convert(cfg, "hugging_face", whole.state(), where=str(folder))

    part = PartSource("clip", _saved(cfg), read, str(folder))
    return ModelSource(name, str(folder), {"clip": part}, partial(_read_tokenizer, folder))


def _part(kind: str, cfg: Config, values: dict[str, Any], table: rename.Table, read: Any, where: str) -> PartSource:
    """A part whose state dict is `read()` renamed by `table`."""

    def renamed() -> Mapping[str, Tensor]:
        with torch.device("meta"):
            network: nn.Module = _NETWORKS[kind](cfg)
        return rename.to_ours(table, network.state_dict(), read(), where=where)

    return PartSource(kind, values, renamed, where)


def _saved(cfg: Config) -> dict[str, Any]:
    return {"model": cfg.model_dump(mode="json")}


def _diffused(cfg: Config, diffusion: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    return {**_saved(cfg), "diffusion": diffusion, "sampling": sampling}


def _bound(folder: Path, scheduler: str, *, prediction: str, variance: str | None = None) -> float:
    """What a scheduler clamps x_0 to; WeightsError unless the rest of it is what Karlo's networks are sampled with."""
    c = component(folder, scheduler, file="scheduler_config.json")
    c.expect("prediction_type", prediction, default="epsilon")
    c.expect("variance_type", variance or "fixed_small_log", default="fixed_small_log")
    c.expect("num_train_timesteps", 1000, default=1000)
    c.expect("beta_schedule", "squaredcos_cap_v2", default="squaredcos_cap_v2")
    c.expect("clip_sample", True, default=True)
    return float(c.get("clip_sample_range", 1.0))


def _checkpoint(file: Path, prefix: str) -> dict[str, Tensor]:
    """What of a checkpoint's `state_dict` lies under `prefix`; WeightsError where something lies under none of Karlo's."""
    whole = read_pickle(file)
    state = whole.get("state_dict") if isinstance(whole, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise WeightsError(f"{file} holds no state_dict of tensors: it is not one of Karlo's checkpoints")
    known = KARLO_UPSAMPLERS if prefix in KARLO_UPSAMPLERS else (prefix,)
    if stray := sorted(name for name in state if not name.startswith(known)):
        raise WeightsError(f"{file}: the tensor {stray[0]} has no place in this network: expected {' and '.join(known)}...")
    return rename.under(state, prefix)


def _statistics(file: Path) -> tuple[Tensor, Tensor]:
    pair = read_pickle(file)
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise WeightsError(f"{file} holds a {type(pair).__name__}, expected the mean and the standard deviation of z")
    return pair[0].flatten(), pair[1].flatten()


def _read_tokenizer(place: Path, context: int) -> Tokenizer:
    """A tokenizer in one of the layouts in which CLIP's is published: a folder of Hugging Face's, or OpenAI's vocabulary."""
    vocabulary = place if place.is_file() else next((place / n for n in VOCABULARY if (place / n).is_file()), None)
    if vocabulary is not None:
        return Tokenizer.from_openai(vocabulary, context=context)
    return Tokenizer.from_hugging_face(place, context=context)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise WeightsError(f"{folder} has {len(found)} files {pattern}, expected one")
    return found[0]
