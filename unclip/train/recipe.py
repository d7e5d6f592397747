"""A recipe: one yaml for one trained part, from which the objective, the run and the bundle's part are made.

`model` is a size's name ("icons"), a whole config, or a size with changes ({size: icons, unet: {channels: 64}}).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import BeforeValidator, model_validator

from unclip import files
from unclip.config import Config, apply_overrides, read_yaml
from unclip.data.pool import Pool
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import ConfigError, WeightsError
from unclip.models import clip, decoder, prior, upsampler
from unclip.stages import SamplingConfig
from unclip.tokenizer import Tokenizer
from unclip.train.loop import TrainConfig
from unclip.train.objective import Objective
from unclip.train.objectives.clip import ClipData, ClipObjective
from unclip.train.objectives.decoder import DecoderData, DecoderObjective
from unclip.train.objectives.prior import PriorData, PriorObjective
from unclip.train.objectives.upsampler import UpsamplerData, UpsamplerObjective

TOKENIZER = "tokenizer.json"


def _of_size(sizes: Mapping[str, Config]) -> BeforeValidator:
    """Turns a size's name, or a mapping with the key `size`, into the whole config's values."""

    def resolve(value: Any) -> Any:
        name = value if isinstance(value, str) else value.get("size") if isinstance(value, dict) else None
        if name is None:
            return value
        if not isinstance(name, str) or name not in sizes:
            raise ValueError(f"unknown size {name!r}, expected one of {', '.join(sizes)}")
        changes = {} if isinstance(value, str) else {key: part for key, part in value.items() if key != "size"}
        return _merge(sizes[name].model_dump(), changes)

    return BeforeValidator(resolve)


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, change) if isinstance(old, dict) and isinstance(change, dict) else change
    return merged


class ClipRecipe(Config):
    part: Literal["clip"]
    model: Annotated[clip.CLIPConfig, _of_size(clip.SIZES)]
    data: ClipData
    train: TrainConfig


class PriorRecipe(Config):
    part: Literal["prior"]
    model: Annotated[prior.PriorConfig, _of_size(prior.SIZES)]
    diffusion: DiffusionConfig = DiffusionConfig(prediction="x0")
    sampling: SamplingConfig
    data: PriorData
    train: TrainConfig

    @model_validator(mode="after")
    def _keeps_range(self) -> "PriorRecipe":
        guidance = self.sampling.guidance
        if guidance.threshold != "none" and guidance.bound <= 1:
            raise ValueError("sampling.guidance clips to [-1, 1], as pixels need: z needs threshold none, or a larger bound")
        return self


class DecoderRecipe(Config):
    part: Literal["decoder"]
    model: Annotated[decoder.DecoderConfig, _of_size(decoder.SIZES)]
    diffusion: DiffusionConfig = DiffusionConfig()
    sampling: SamplingConfig
    data: DecoderData
    train: TrainConfig


class UpsamplerRecipe(Config):
    part: Literal["upsampler"]
    model: Annotated[
        upsampler.UpsamplerConfig,
        _of_size({f"{size}:{side}": cfg for size, sides in upsampler.SIZES.items() for side, cfg in sides.items()}),
    ]
    diffusion: DiffusionConfig = DiffusionConfig()
    sampling: SamplingConfig
    data: UpsamplerData
    train: TrainConfig


Recipe = ClipRecipe | PriorRecipe | DecoderRecipe | UpsamplerRecipe
RECIPES: dict[str, type[Recipe]] = {
    "clip": ClipRecipe,
    "prior": PriorRecipe,
    "decoder": DecoderRecipe,
    "upsampler": UpsamplerRecipe,
}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the yaml file `path`, with `key.path=value` overrides; ConfigError says what is wrong with it."""
    values = apply_overrides(_sized(read_yaml(path), overrides), overrides)
    return parse_recipe(values, where=str(path))


def parse_recipe(values: dict[str, Any], *, where: str) -> Recipe:
    part = values.get("part")
    if not isinstance(part, str) or part not in RECIPES:
        raise ConfigError(f"{where}: part = {part!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[part].parse(values, where=where)


def _sized(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`model: icons` as `model: {size: icons}` where an override reaches into the model."""
    if isinstance(values.get("model"), str) and any(override.startswith("model.") for override in overrides):
        return {**values, "model": {"size": values["model"]}}
    return values


def make_objective(recipe: Recipe, run: Path) -> Objective:
    """The training task of a recipe; a CLIP's tokenizer is learnt on its captions once and kept in the run."""
    torch.manual_seed(recipe.train.seed)  # the weights that a run begins with
    objective: Any  # each wants a module of its own kind, which the protocol cannot say
    match recipe:
        case ClipRecipe():
            objective = ClipObjective(recipe.model, recipe.data, _tokenizer(recipe, run))
        case PriorRecipe():
            objective = PriorObjective(recipe.model, recipe.diffusion, recipe.data)
        case DecoderRecipe():
            objective = DecoderObjective(recipe.model, recipe.diffusion, recipe.data)
        case UpsamplerRecipe():
            objective = UpsamplerObjective(recipe.model, recipe.diffusion, recipe.data, recipe.sampling)
    return objective


def part_config(recipe: Recipe) -> dict[str, Any]:
    """What a bundle keeps of a recipe to build and sample the part: `model`, and for diffusion `diffusion`, `sampling`."""
    keep = {"model"} if isinstance(recipe, ClipRecipe) else {"model", "diffusion", "sampling"}
    return recipe.model_dump(mode="json", include=keep)


def recorded(recipe: Recipe, objective: Objective) -> dict[str, Any]:
    """What a run keeps of its recipe beside `train`. `data.clip` becomes the CLIP that embedded the pool, given or not,
    and a prior's `data.unit` what its z are."""
    values = recipe.model_dump(mode="json", exclude={"train"})
    if isinstance(objective, PriorObjective | DecoderObjective):
        values["data"]["clip"] = objective.embedded.clip
    if isinstance(objective, PriorObjective):
        values["data"]["unit"] = objective.embedded.unit
    return values


def read_run(run: str | Path) -> Recipe:
    """The recipe that a run was made with."""
    path = Path(run) / "config.yaml"
    if not path.exists():
        raise WeightsError(f"{run} is not a training run: it has no config.yaml")
    return parse_recipe(read_yaml(path), where=str(path))


def _tokenizer(recipe: ClipRecipe, run: Path) -> Tokenizer:
    path, text = run / TOKENIZER, recipe.model.text
    if not path.exists():
        learnt = Tokenizer.train(Pool(recipe.data.pool).captions, vocab=text.vocab, context=text.context)
        run.mkdir(parents=True, exist_ok=True)
        files.write_text(path, learnt.to_json())
    return Tokenizer.load(path, context=text.context)


def to_yaml(recipe: Recipe) -> str:
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
