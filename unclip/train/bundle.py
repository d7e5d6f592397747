"""From runs to a bundle and back: pack the averaged weights of several runs, start a run from a bundle's weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import ConfigError, WeightsError
from unclip.models import known as knowns
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.unet import UNetConfig
from unclip.models.upsampler import Upsampler
from unclip.tokenizer import Tokenizer
from unclip.train.recipe import (
    TOKENIZER,
    ClipRecipe,
    DecoderRecipe,
    PriorRecipe,
    Recipe,
    UpsamplerRecipe,
    part_config,
    read_run,
)
from unclip.train.state import checkpoints, load_weights
from unclip.weights import store
from unclip.words import Words

UNIT = "of length one"  # what a bundle says of the z that a prior gives when it learnt from an index


def part_name(recipe: Recipe) -> str:
    """A part's name in a bundle: its kind, an upsampler's with the side of its output."""
    return f"upsampler_{recipe.model.high}" if isinstance(recipe, UpsamplerRecipe) else recipe.part


def build_module(recipe: Recipe) -> nn.Module:
    """The recipe's network, with fresh weights."""
    match recipe:
        case ClipRecipe():
            return CLIP(recipe.model)
        case PriorRecipe():
            return Prior(recipe.model)
        case DecoderRecipe():
            return Decoder(recipe.model)
        case UpsamplerRecipe():
            return Upsampler(recipe.model)


def pack(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    name: str,
    version: str,
    card: str,
    base: str | Path | None = None,
    words: str | None = None,
) -> Path:
    """Writes the averaged weights of these runs' newest checkpoints as one bundle; a CLIP's run must be among them.

    `base` is a bundle that gives the parts, and the CLIP, for which there is no run, and its words unless there are `words`,
    the text of a `words.json`. The provenance records, for each part, the images it has seen and the recipe it was trained
    with.
    """
    words = _words_of(words, base)
    parts, provenance, tokenizer = ({}, {}, None) if base is None else _parts_of(base)
    packed: set[str] = set()
    embedded_by: dict[str, str] = {}
    for run in runs:
        recipe = read_run(run)
        module = build_module(recipe)
        step = load_weights(run, module)
        part = part_name(recipe)
        if part in packed:
            raise ConfigError(f"two runs for the part {part}: the second is {run}")
        packed.add(part)
        parts[part] = store.Part(recipe.part, part_config(recipe), module.state_dict())
        provenance[part] = {
            "steps": step,
            "images": step * recipe.train.batch,
            "train": recipe.train.model_dump(mode="json"),
        }
        if isinstance(recipe, PriorRecipe) and recipe.data.unit:
            provenance[part]["z"] = UNIT
        if isinstance(recipe, PriorRecipe | DecoderRecipe) and recipe.data.clip is not None:
            embedded_by[str(run)] = recipe.data.clip
        if recipe.part == "clip":
            tokenizer = (Path(run) / TOKENIZER).read_text(encoding="utf-8")
    if "decoder" in parts and provenance.get("prior", {}).get("z") == UNIT:
        raise ConfigError(
            "the prior was trained on an index and gives z of length one, but the decoder takes CLIP's own: "
            "pack them apart, or train the prior on a pool"
        )
    if tokenizer is None:
        raise ConfigError("a bundle needs a CLIP, for its tokenizer: give its run too")
    own = store.fingerprint(parts["clip"].state)
    for trained, clip in embedded_by.items():
        if clip != own:
            raise ConfigError(
                f"{trained} was trained on what another CLIP sees ({clip[:12]}, not {own[:12]}): give that CLIP's run"
            )
    folder = store.save_bundle(
        out, parts, name=name, version=version, tokenizer_json=tokenizer, card=card, provenance=provenance
    )
    if words is not None:
        store.put_words(folder, words)
    return folder


def _words_of(words: str | None, base: str | Path | None) -> str | None:
    """These words, which have to be some, or else those of `base`, if it has any."""
    if words is not None:
        Words.of(words, where="the words")
        return words
    return None if base is None else store.read_words(store.find_bundle(base))


def _parts_of(bundle: str | Path) -> tuple[dict[str, store.Part], dict[str, Any], str]:
    """The parts of a bundle, its provenance, its tokenizer."""
    folder = store.find_bundle(bundle)
    manifest = store.read_manifest(folder)
    parts = {name: store.Part(entry.kind, *store.load_part(folder, name)) for name, entry in manifest.parts.items()}
    return parts, dict(manifest.provenance), store.read_tokenizer(folder)


def initialiser(source: str, recipe: Recipe, module: nn.Module) -> Callable[[], None]:
    """Fills `module` with the weights of a run, or of the part of that name in a bundle, when called; checked then.

    Bundles hold bf16, so a run that starts from one starts close to where it was packed, not exactly there. A decoder for
    inpainting may start from one that is none.
    """
    name = part_name(recipe)

    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        if isinstance(recipe, DecoderRecipe) and recipe.model.inpaint:
            return _with_inpainting(state, recipe.model.unet)
        return state

    def fill() -> None:
        if checkpoints(source):
            load_weights(source, module, adapt=adapt)
            return
        state = adapt(store.load_part(store.find_bundle(source), name)[1])
        own = module.state_dict()
        store.check_fit(own, state, where=f"{source}/{name}")
        with torch.no_grad():
            for key, tensor in state.items():
                own[key].copy_(tensor)

    return fill


def _with_inpainting(state: dict[str, Tensor], unet: UNetConfig) -> dict[str, Tensor]:
    """A decoder's weights with the inputs that inpainting adds, which begin at zero (2112.10741, section 2.4)."""
    first, more = "unet.conv_in.weight", knowns.CHANNELS * unet.fold**2
    if first not in state or state[first].shape[1] + more != unet.in_channels * unet.fold**2:
        return state
    out, _, *kernel = state[first].shape
    return {**state, first: torch.cat([state[first], state[first].new_zeros(out, more, *kernel)], dim=1)}


def load_clip(source: str | Path) -> tuple[CLIP, Tokenizer, str]:
    """The CLIP of a run or a bundle, its tokenizer, and the fingerprint of its weights, in eval mode."""
    if checkpoints(source):
        recipe = read_run(source)
        if not isinstance(recipe, ClipRecipe):
            raise WeightsError(f"{source} is a run of the {recipe.part}, not of a CLIP")
        clip = CLIP(recipe.model)
        load_weights(source, clip)
        tokenizer = Tokenizer.load(Path(source) / TOKENIZER, context=recipe.model.text.context)
    else:
        folder = store.find_bundle(source)
        values, state = store.load_part(folder, "clip")
        cfg = CLIPConfig.parse(values["model"], where=f"{folder}/clip/config.json")
        clip = store.build(lambda: CLIP(cfg), state, where=f"{folder}/clip")
        tokenizer = Tokenizer.from_json(store.read_tokenizer(folder), context=cfg.text.context)
    clip.eval().requires_grad_(False)
    return clip, tokenizer, store.fingerprint(clip.state_dict())
