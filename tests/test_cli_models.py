"""`unclip models` on published models: shown, verified, converted; of a damaged one there is one line and nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import toy_karlo
from foreign_files import CHAIN, Calls, archived, saved, scripted
from safetensors.torch import load_file, save_file

from unclip.cli import main
from unclip.models.clip import CLIP, SIZES
from unclip.weights import clip as clips
from unclip.weights import rename, store
from unclip.weights.opening import open_model

PARTS = ["clip", "prior", "decoder", "upsampler_64", "upsampler_64_last"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def karlo(tmp_path_factory) -> Path:
    hub = tmp_path_factory.mktemp("hub")
    return toy_karlo.save(toy_karlo.text_to_image(hub / "words"), hub / "karlo")


@pytest.fixture
def out(tmp_path) -> Path:
    """Where to write; its folder is otherwise empty."""
    (tmp_path / "written").mkdir()
    return tmp_path / "written" / "model"


def run(capsys, *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["models", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_a_published_model_is_shown_without_its_weights(karlo, capsys, tmp_path):
    bare = shutil.copytree(karlo, tmp_path / "karlo", ignore=shutil.ignore_patterns("*.safetensors"))
    code, out, _ = run(capsys, "show", bare, "--json")
    shown = json.loads(out)
    assert (code, shown["name"], list(shown["parts"])) == (0, "karlo", PARTS)
    counts = {name: part["parameters"] for name, part in shown["parts"].items()}
    tensors = load_file(karlo / "super_res_first" / WEIGHTS)
    assert counts["upsampler_64"] == sum(tensor.numel() for tensor in tensors.values())
    code, out, _ = run(capsys, "show", bare)
    assert out.splitlines()[0] == f"karlo 1, {bare}"
    assert "published as: UnCLIPPipeline" in out
    assert f"{counts['prior']:,}" in out


def test_a_published_model_is_verified_part_by_part(karlo, capsys):
    code, out, err = run(capsys, "verify", karlo)
    assert (code, out) == (0, "")
    assert [line.split(":")[0] for line in err.splitlines()] == PARTS
    assert err.count("each in its place") == len(PARTS)


@pytest.mark.parametrize("dtype", ["as-is", "bf16", "fp16", "fp32"])
def test_it_is_converted_to_a_bundle_in_any_precision(karlo, capsys, out, dtype):
    code, printed, _ = run(capsys, "convert", karlo, out, "--dtype", dtype, "--name", "small")
    assert (code, printed) == (0, f"{out}\n")
    assert (store.read_manifest(out).name, list(store.read_manifest(out).parts)) == ("small", PARTS)
    kinds = {"as-is": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    published = open_model(karlo)
    for name in PARTS:
        state = store.load_part(out, name)[1]
        assert {tensor.dtype for tensor in state.values()} == {kinds[dtype]}
        for key, tensor in published.networks[name].read().items():
            assert torch.equal(state[key].nan_to_num(7), tensor.to(kinds[dtype]).nan_to_num(7))
    assert run(capsys, "verify", out)[0] == 0
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_bundle_that_stands_there_is_replaced_and_nothing_else_is(karlo, capsys, out):
    assert run(capsys, "convert", karlo, out)[0] == 0
    assert run(capsys, "convert", karlo, out, "--dtype", "fp16")[0] == 0
    assert store.load_part(out, "prior")[1]["query"].dtype == torch.float16
    (out / "unclip.json").unlink()
    code, _, err = run(capsys, "convert", karlo, out)
    assert (code, err.count("\n")) == (2, 1)
    assert "exists and is not a bundle" in err


def test_it_is_converted_to_the_diffusers_layout_and_back(karlo, capsys, out):
    bundle = out.with_name("bundle")
    assert run(capsys, "convert", karlo, bundle)[0] == 0
    code, printed, _ = run(capsys, "convert", bundle, out, "--to", "diffusers")
    assert (code, printed) == (0, f"{out}\n")
    for name in ("prior", "decoder", "text_proj", "super_res_first", "super_res_last"):
        before, after = load_file(karlo / name / WEIGHTS), load_file(out / name / WEIGHTS)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_openais_file_is_converted_with_a_vocabulary_from_elsewhere(capsys, tmp_path, out):
    cfg = SIZES["micro"].model_copy(
        update={
            "text": SIZES["micro"].text.model_copy(update={"width": 64, "heads": 1, "vocab": 521, "context": 77}),
            "vision": SIZES["micro"].vision.model_copy(update={"width": 64, "heads": 1}),
        }
    )
    scripted(tmp_path / "ViT.pt", rename.to_theirs(clips.openai(cfg), CLIP(cfg).state_dict()))
    toy_karlo.tokenizer(tmp_path / "words")
    code, _, err = run(capsys, "convert", tmp_path / "ViT.pt", out)
    assert code == 2
    assert f"{tmp_path} has no vocab.json" in err
    assert list(out.parent.iterdir()) == []
    assert run(capsys, "convert", tmp_path / "ViT.pt", out, "--tokenizer", tmp_path / "words")[0] == 0
    assert list(open_model(out).networks) == ["clip"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dtype", "int8"], "--dtype int8: expected bundle or diffusers, and one of as-is, bf16, fp16, fp32"),
        (["--tokenizer", "words"], "karlo says both itself"),
        (["--act", "gelu"], "--tokenizer and --act are for a file: "),
        (["--act", "relu"], "--act relu: expected gelu or quick_gelu"),
        (["--to", "onnx"], "--to onnx --dtype as-is: expected bundle or diffusers"),
    ],
)
def test_words_that_are_none_are_refused(karlo, capsys, out, arguments, words):
    code, printed, err = run(capsys, "convert", karlo, out, *arguments)
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert words in err
    assert list(out.parent.iterdir()) == []


def with_tensors(change):
    """Damage to the decoder's tensors."""

    def damage(folder: Path) -> None:
        state = load_file(folder / "decoder" / WEIGHTS)
        change(state)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "decoder" / WEIGHTS)

    return damage


def cut(folder: Path) -> None:
    path = folder / "decoder" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def with_config(component: str, key: str, value):
    def damage(folder: Path) -> None:
        name = "scheduler_config.json" if "scheduler" in component else "config.json"
        values = json.loads((folder / component / name).read_text(encoding="utf-8"))
        (folder / component / name).write_text(json.dumps(values | {key: value}), encoding="utf-8")

    return damage


def with_code(folder: Path) -> None:
    (folder / "decoder" / WEIGHTS).unlink()
    saved(folder / "decoder" / "diffusion_pytorch_model.bin", {"conv_in.weight": Calls(os.system, "false")})


def with_a_chain_of_calls(folder: Path) -> None:
    (folder / "decoder" / WEIGHTS).unlink()
    archived(folder / "decoder" / "diffusion_pytorch_model.bin", CHAIN + b".")


UP = "time_embedding.linear_1.weight"
DAMAGES = {
    "renamed": (with_tensors(lambda s: s.update(other=s.pop(UP))), f"the tensor decoder.{UP} is missing"),
    "missing": (with_tensors(lambda s: s.pop(UP)), f"the tensor decoder.{UP} is missing"),
    "surplus": (with_tensors(lambda s: s.update(other=torch.ones(1))), "the tensor decoder.other has no place"),
    "transposed": (
        with_tensors(lambda s: s.update({UP: s[UP].T})),
        f"decoder.{UP} is float32 (32, 128), the network expects float32 (128, 32)",
    ),
    "integers": (
        with_tensors(lambda s: s.update({UP: s[UP].to(torch.int8)})),
        f"decoder.{UP} is int8 (128, 32), the network expects float32 (128, 32)",
    ),
    "truncated": (cut, f"decoder/{WEIGHTS} is torn"),
    "code": (with_code, "diffusion_pytorch_model.bin asks for posix.system: only tensors and plain containers are read"),
    "calls": (with_a_chain_of_calls, "diffusion_pytorch_model.bin asks for builtins.getattr: only tensors"),
    "no weights": (lambda folder: (folder / "decoder" / WEIGHTS).unlink(), "decoder holds no weights"),
    "no config": (lambda folder: (folder / "prior" / "config.json").unlink(), "prior/config.json: No such file"),
    "no component": (lambda folder: shutil.rmtree(folder / "super_res_last"), "super_res_last/config.json: No such file"),
    "no JSON": (lambda folder: (folder / "model_index.json").write_text("{"), "model_index.json is not JSON"),
    "another pipeline": (
        lambda folder: (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}'),
        "holds a StableDiffusionPipeline: expected a UnCLIPPipeline",
    ),
    "another block": (
        with_config("decoder", "down_block_types", ["DownBlock2D", "CrossAttnDownBlock2D"]),
        "decoder/config.json: down_block_types is ['DownBlock2D', 'CrossAttnDownBlock2D'], expected ['ResnetDownsample",
    ),
    "another noise": (
        with_config("prior_scheduler", "beta_schedule", "linear"),
        "prior_scheduler/scheduler_config.json: beta_schedule is 'linear', expected 'squaredcos_cap_v2'",
    ),
    "another prediction": (
        with_config("decoder_scheduler", "prediction_type", "v_prediction"),
        "decoder_scheduler/scheduler_config.json: prediction_type is 'v_prediction', expected 'epsilon'",
    ),
    "a key that is missing": (
        with_config("decoder", "sample_size", None),
        "decoder/config.json: the key sample_size is missing",
    ),
    "a width that cannot be": (
        with_config("decoder", "block_out_channels", [30, 60]),
        "group norm has 32 groups, which do not divide the widths",
    ),
    "a word for a width": (
        with_config("decoder", "block_out_channels", ["32", "64"]),
        "decoder/config.json: block_out_channels is ['32', '64'], expected whole numbers",
    ),
    "a number for a list": (
        with_config("super_res_last", "block_out_channels", 32),
        "super_res_last/config.json: block_out_channels is 32, expected a list",
    ),
    "a list for a number": (
        with_config("decoder", "layers_per_block", [1, 2]),
        "decoder/config.json: layers_per_block is [1, 2], expected a whole number",
    ),
    "heads that do not divide": (
        with_config("text_encoder", "num_attention_heads", 3),
        "3 heads do not divide width 128",
    ),
    "a prior of another make": (
        with_config("prior", "norm_in_type", "layer"),
        "prior/config.json: norm_in_type is 'layer', expected None",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", ["to a bundle", "to diffusers", "verify"])
def test_a_damaged_model_is_one_line_and_nothing_is_written(karlo, capsys, tmp_path, out, damage, verb):
    folder = shutil.copytree(karlo, tmp_path / "karlo")
    do, words = DAMAGES[damage]
    do(folder)
    to = {"to a bundle": ["convert", folder, out], "to diffusers": ["convert", folder, out, "--to", "diffusers"]}
    code, printed, err = run(capsys, *to.get(verb, ["verify", folder]))
    last = err.splitlines()[-1]
    assert (code, printed) == (2, "")
    assert last.startswith("error: ")
    assert words in last
    assert verb == "verify" or err.count("\n") == 1
    assert list(out.parent.iterdir()) == []


def test_numbers_that_are_not_finite_are_found_where_all_is_read(karlo, capsys, tmp_path):
    folder = shutil.copytree(karlo, tmp_path / "karlo")
    with_tensors(lambda state: state[UP].view(-1)[:1].fill_(torch.nan))(folder)
    code, _, err = run(capsys, "verify", folder)
    assert code == 2
    assert err.splitlines()[-1].endswith("time.0.weight holds numbers that are not finite")
