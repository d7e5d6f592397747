"""Recipes: sizes by name, changes and overrides; what is wrong is one line; every recipe of the repository can be built."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import COLOURS

from unclip.errors import ConfigError, WeightsError
from unclip.models import clip, decoder, prior, upsampler
from unclip.tokenizer import Tokenizer
from unclip.train.bundle import build_module
from unclip.train.recipe import load_recipe, make_objective, part_config, read_run, recorded, to_yaml

RECIPES = sorted((Path(__file__).parents[1] / "recipes").rglob("*.yaml"))
DECODER = {
    "part": "decoder",
    "model": "micro",
    "sampling": {"steps": 5},
    "data": {"pool": "nowhere"},
    "train": {"steps": 10},
}
PRIOR = DECODER | {"part": "prior", "sampling": {"guidance": {"threshold": "none"}}}


def load(tmp_path, values, overrides=()):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_recipe(path, overrides)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_parses_and_builds(path):
    recipe = load_recipe(path)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build_module(recipe).parameters()) > 1000
    assert f"--config {path.relative_to(path.parents[1])}" in path.read_text(encoding="utf-8"), "a recipe says its command"


def test_there_is_a_recipe_for_every_part():
    assert {load_recipe(path).part for path in RECIPES} == {"clip", "prior", "decoder", "upsampler"}


@pytest.mark.parametrize("size", ["micro", "icons", "paper"])
def test_sizes_go_by_name(tmp_path, size):
    assert load(tmp_path, DECODER | {"model": size}).model == decoder.SIZES[size]
    assert load(tmp_path, PRIOR | {"model": size}).model == prior.SIZES[size]
    values = {key: DECODER[key] for key in ("data", "train")} | {"part": "clip", "model": size}
    assert load(tmp_path, values).model == clip.SIZES[size]
    for side, expected in upsampler.SIZES[size].items():
        assert load(tmp_path, DECODER | {"part": "upsampler", "model": f"{size}:{side}"}).model == expected


def test_a_size_with_changes_keeps_the_rest(tmp_path):
    recipe = load(
        tmp_path, DECODER | {"model": {"size": "icons", "unet": {"channels": 64, "mult": [1, 2, 2]}, "image_tokens": 2}}
    )
    base = decoder.SIZES["icons"]
    unet = base.unet.model_copy(update={"channels": 64, "mult": (1.0, 2.0, 2.0)})
    assert recipe.model == base.model_copy(update={"unet": unet, "image_tokens": 2})
    assert decoder.SIZES["icons"] is base  # nobody wrote into the table


def test_a_whole_config_needs_no_size(tmp_path):
    values = decoder.SIZES["micro"].model_dump(mode="json")
    assert load(tmp_path, DECODER | {"model": values}).model == decoder.SIZES["micro"]


@pytest.mark.parametrize("model", ["icons", {"size": "icons"}, {"size": "icons", "unet": {"norm": "group"}}])
def test_overrides_reach_into_a_model_that_is_named(tmp_path, model):
    overrides = ["model.unet.channels=256", "model.embed=8", "train.lr=1e-4", "data.drop_z=0.2", "sampling.guidance.scale=3"]
    recipe = load(tmp_path, DECODER | {"model": model}, overrides)
    assert (recipe.model.unet.channels, recipe.model.embed, recipe.model.unet.depth) == (256, 8, 1)
    assert (recipe.train.lr, recipe.data.drop_z, recipe.sampling.guidance.scale) == (1e-4, 0.2, 3.0)
    assert recipe.model.unet.norm == ("group" if isinstance(model, dict) and "unet" in model else "layer")


def test_an_override_may_name_another_size(tmp_path):
    assert load(tmp_path, DECODER, ["model=icons"]).model == decoder.SIZES["icons"]


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        ({"part": "painter"}, [], "part = 'painter': expected one of clip, prior, decoder, upsampler"),
        ({"part": ["decoder"]}, [], "part = "),
        ({"model": "huge"}, [], "unknown size 'huge', expected one of micro, icons, paper"),
        ({"model": {"size": ["icons"]}}, [], "unknown size"),
        ({"model": {"size": "micro", "unet": {"colour": 1}}}, [], r"unknown key model\.unet\.colour"),
        ({"model": 3}, [], "model = 3"),
        ({}, ["model.unet.image_size=33"], "do not divide image_size 33"),
        ({}, ["model.unet.fold=0"], r"model\.unet\.fold = 0"),
        ({}, ["train.lr=fast"], r"train\.lr = 'fast'"),
        ({}, ["train.rate=1"], r"unknown key train\.rate"),
        ({}, ["train.lr"], "not of the form key.path=value"),
        ({}, ["model=micro", "model.embed=3"], "model is a value, not a group of keys"),
        ({}, ["sampling.sampler=euler"], r"sampling\.sampler = 'euler'"),
        ({}, ["data.drop_z=1.5"], r"data\.drop_z = 1\.5"),
        ({"data": {}}, [], r"the key data\.pool is missing"),
        ({"part": "prior"}, [], "z needs threshold none"),
        ({"part": "upsampler", "model": "icons"}, [], "expected one of micro:64"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, changes, overrides, words):
    with pytest.raises(ConfigError, match=words) as error:
        load(tmp_path, DECODER | changes, overrides)
    assert "\n" not in str(error.value)
    assert "recipe.yaml" in str(error.value) or "override" in str(error.value)


def test_a_priors_bound_may_be_one_of_its_own(tmp_path):
    recipe = load(tmp_path, PRIOR, ["sampling.guidance.threshold=static", "sampling.guidance.bound=4"])
    assert recipe.sampling.guidance.bound == 4


def test_a_run_gives_back_the_recipe_it_was_made_with(tmp_path):
    recipe = load(tmp_path, PRIOR | {"model": {"size": "micro", "layers": 1}}, ["train.steps=7"])
    (tmp_path / "config.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    assert read_run(tmp_path) == recipe
    assert set(part_config(recipe)) == {"model", "diffusion", "sampling"}
    assert part_config(recipe)["model"] == recipe.model.model_dump(mode="json")
    with pytest.raises(WeightsError, match=r"is not a training run: it has no config\.yaml"):
        read_run(tmp_path / "elsewhere")


def test_a_clips_tokenizer_is_learnt_once_and_kept(tmp_path, pool):
    values = {"part": "clip", "model": "micro", "data": {"pool": str(pool.root)}, "train": {"steps": 1}}
    recipe = load(tmp_path, values)
    objective = make_objective(recipe, tmp_path / "run")
    kept = (tmp_path / "run" / "tokenizer.json").read_text(encoding="utf-8")
    assert objective.tokenizer.to_json() == kept
    words = [f"a {colour} square" for colour in COLOURS]
    other = Tokenizer.train(words, vocab=640, context=16).to_json()
    (tmp_path / "run" / "tokenizer.json").write_text(other, encoding="utf-8")
    assert make_objective(recipe, tmp_path / "run").tokenizer.to_json() == other


def test_the_seed_makes_the_first_weights(tmp_path, pool):
    recipe = load(tmp_path, PRIOR | {"data": {"pool": str(pool.root)}})
    other = load(tmp_path, PRIOR | {"data": {"pool": str(pool.root)}}, ["train.seed=1"])
    first, again, second = (make_objective(r, tmp_path).module.query for r in (recipe, recipe, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_run_remembers_which_clip_embedded_its_pool(tmp_path, pool):
    recipe = load(tmp_path, PRIOR | {"data": {"pool": str(pool.root)}})
    objective = make_objective(recipe, tmp_path)
    assert recipe.data.clip is None
    assert recorded(recipe, objective)["data"]["clip"] == objective.embedded.clip
    assert "train" not in recorded(recipe, objective)
