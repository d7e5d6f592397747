"""From runs to a bundle and back: averaged weights, one CLIP, the same fingerprint."""

import pytest
import torch
import yaml
from conftest import scrambled

from unclip.errors import ConfigError, UnclipError, WeightsError
from unclip.models.clip import CLIP
from unclip.train.bundle import build_module, initialiser, load_clip, pack, part_name
from unclip.train.ema import Ema
from unclip.train.recipe import parse_recipe, read_run
from unclip.train.state import TrainState, save_checkpoint
from unclip.weights import store
from unclip.weights.store import fingerprint

CARD = {"name": "tiny", "version": "2", "card": "# tiny"}


def make_run(folder, part, *, model="micro", clip=None, seed=0, step=30):
    """A run as the loop leaves it, with random weights and another average."""
    values = {"part": part, "model": model, "data": {"pool": "gone"}, "train": {"steps": 99, "batch": 4}}
    if part != "clip":
        values["sampling"] = {"steps": 3, "guidance": {"threshold": "none"}}
    if clip is not None:
        values["data"]["clip"] = clip
    recipe = parse_recipe(values, where="test")
    torch.manual_seed(seed)
    module = scrambled(build_module(recipe), seed).requires_grad_()
    if part == "prior":
        module.set_statistics(torch.zeros(32), torch.ones(32))
    ema = Ema(module, decay=0.5, power=None)
    with ema.swapped(), torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.25
    folder.mkdir(parents=True)
    state = TrainState(module, torch.optim.AdamW(module.parameters()), ema, step=step)
    save_checkpoint(folder, state, {})
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    return folder, module


@pytest.fixture
def runs(tmp_path, tokenizer):
    """Runs of all four kinds; the prior's and the decoder's pools were embedded by this CLIP."""
    clip_run, _ = make_run(tmp_path / "clip", "clip")
    (clip_run / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    own = load_clip(clip_run)[2]
    others = [make_run(tmp_path / part, part, clip=own, seed=i)[0] for i, part in enumerate(("prior", "decoder"))]
    return [clip_run, *others, make_run(tmp_path / "up", "upsampler", model="micro:64")[0]]


def test_a_bundle_holds_the_averaged_weights_of_every_run(runs, tmp_path, tokenizer):
    folder = pack(runs, tmp_path / "bundle", **CARD)
    manifest = store.read_manifest(folder)
    assert list(manifest.parts) == ["clip", "prior", "decoder", "upsampler_64"]
    assert (manifest.name, manifest.version) == ("tiny", "2")
    assert (folder / "README.md").read_text() == "# tiny"
    assert store.read_tokenizer(folder) == tokenizer.to_json()
    assert manifest.provenance["decoder"]["steps"] == 30
    assert manifest.provenance["decoder"]["images"] == 120
    for run, name in zip(runs, manifest.parts, strict=True):
        recipe = read_run(run)
        assert part_name(recipe) == name
        averaged = build_module(recipe)
        initialiser(str(run), recipe, averaged)()
        config, state = store.load_part(folder, name, verify=True)
        assert config["model"] == recipe.model.model_dump(mode="json")
        for key, tensor in averaged.state_dict().items():
            torch.testing.assert_close(state[key], tensor.bfloat16(), atol=0, rtol=0, equal_nan=True)


def test_what_is_saved_is_the_average_and_not_the_raw_weights(tmp_path):
    run, module = make_run(tmp_path / "run", "prior")
    filled = build_module(read_run(run))
    initialiser(str(run), read_run(run), filled)()
    torch.testing.assert_close(filled.query, module.query + 0.25)


def test_a_run_starts_from_a_bundles_weights_in_fp32(runs, tmp_path):
    folder = pack(runs, tmp_path / "bundle", **CARD)
    recipe = read_run(runs[2])
    from_run, from_bundle = build_module(recipe), build_module(recipe)
    initialiser(str(runs[2]), recipe, from_run)()
    fill = initialiser(str(folder), recipe, from_bundle)
    assert not from_bundle.null_z.any()  # nothing happens before it is called
    fill()
    for one, other in zip(from_run.state_dict().values(), from_bundle.state_dict().values(), strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one.bfloat16().float(), other)
    assert all(parameter.requires_grad for parameter in from_bundle.parameters())


@pytest.mark.parametrize("source", ["run", "bundle"])
def test_a_decoder_for_inpainting_starts_from_one_that_is_none(runs, tmp_path, source):
    recipe = read_run(runs[2])
    start = str(runs[2]) if source == "run" else str(pack(runs, tmp_path / "bundle", **CARD))
    model = recipe.model.model_copy(
        update={"inpaint": True, "unet": recipe.model.unet.model_copy(update={"in_channels": 7})}
    )
    inpainting = recipe.model_copy(update={"model": model})
    plain, other = build_module(recipe), build_module(inpainting)
    initialiser(start, recipe, plain)()
    initialiser(start, inpainting, other)()
    expected, given = plain.state_dict(), other.state_dict()
    first = "unet.conv_in.weight"
    inputs = expected[first].shape[1]
    assert torch.equal(given[first][:, :inputs], expected[first])
    assert not given[first][:, inputs:].any()
    assert all(torch.equal(given[name], expected[name]) for name in expected.keys() - {first})


def test_the_fingerprint_of_a_run_and_of_its_bundle_is_one(runs, tmp_path):
    folder = pack(runs, tmp_path / "bundle", **CARD)
    from_run, from_bundle = load_clip(runs[0]), load_clip(folder)
    assert from_run[2] == from_bundle[2]
    assert len(from_run[2]) == 64
    assert from_run[1].to_json() == from_bundle[1].to_json()
    images = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(from_run[0].encode_image(images), from_bundle[0].encode_image(images), atol=0.5, rtol=0.1)
    state = from_run[0].state_dict()
    assert fingerprint(state) == fingerprint(dict(reversed(state.items())))
    changed = state | {"logit_scale": state["logit_scale"] + 1}
    assert fingerprint(changed) != from_run[2]
    assert isinstance(from_run[0], CLIP)
    assert not any(parameter.requires_grad for parameter in from_run[0].parameters())


def test_a_bundle_gives_what_there_is_no_run_for(runs, tmp_path):
    whole = pack(runs, tmp_path / "whole", **CARD)
    newer, _ = make_run(tmp_path / "newer", "decoder", clip=load_clip(whole)[2], seed=9, step=70)
    mixed = pack([newer], tmp_path / "mixed", base=whole, **CARD)
    before, after = store.read_manifest(whole), store.read_manifest(mixed)
    assert list(after.parts) == list(before.parts)
    assert [name for name in after.parts if after.parts[name] != before.parts[name]] == ["decoder"]
    assert (after.provenance["decoder"]["steps"], after.provenance["prior"]) == (70, before.provenance["prior"])
    stranger, _ = make_run(tmp_path / "stranger", "decoder", clip="0" * 64)
    with pytest.raises(ConfigError, match="was trained on what another CLIP sees"):
        pack([stranger], tmp_path / "none", base=whole, **CARD)


@pytest.mark.parametrize("part", ["prior", "decoder"])
def test_parts_that_saw_different_clips_are_not_packed_together(runs, tmp_path, part):
    other, _ = make_run(tmp_path / "other", part, clip="f" * 64)
    with pytest.raises(ConfigError, match="was trained on what another CLIP sees") as error:
        pack([runs[0], other], tmp_path / "bundle", **CARD)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bundle").exists()


def test_what_cannot_be_packed_or_loaded_is_one_line(runs, tmp_path):
    folder = pack(runs[:2], tmp_path / "bundle", **CARD)
    wide, _ = make_run(tmp_path / "wide", "decoder", model={"size": "micro", "image_tokens": 2})
    (tmp_path / "empty").mkdir()
    recipe = read_run(runs[2])
    faults = [
        (lambda: pack([runs[1]], tmp_path / "b", **CARD), "a bundle needs a CLIP"),
        (lambda: pack([runs[0], runs[0]], tmp_path / "b", **CARD), "two runs for the part clip"),
        (lambda: pack([tmp_path / "empty"], tmp_path / "b", **CARD), "is not a training run"),
        (lambda: pack(runs, tmp_path / "empty", **CARD), "exists and is not a bundle"),
        (lambda: load_clip(runs[1]), "is a run of the prior, not of a CLIP"),
        (lambda: load_clip(tmp_path / "empty"), "is not a bundle"),
        (lambda: load_clip("nobody"), "there is no model 'nobody'"),
        (initialiser(str(folder), recipe, build_module(recipe)), "has no part 'decoder': it has clip, prior"),
        (initialiser(str(wide), recipe, build_module(recipe)), "was saved by another network"),
        (initialiser("nobody", recipe, build_module(recipe)), "there is no model 'nobody'"),
    ]
    for act, words in faults:
        with pytest.raises(UnclipError, match=words) as error:
            act()
        assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match=r"z_to_tokens\.weight is bfloat16"):
        initialiser(str(pack([runs[0], wide], tmp_path / "w", **CARD)), recipe, build_module(recipe))()
