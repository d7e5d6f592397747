"""The whole house in small: a folder of pictures becomes a pool, four trained networks, a bundle, and a picture."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from unclip.cli import main
from unclip.images import read_settings
from unclip.models.sizes import EXPLAINED, PAPER, SIZES, table
from unclip.train.log import read_log
from unclip.weights.store import read_manifest, verify_bundle

ROOT = Path(__file__).parents[1]
FEW = {"steps": 3, "batch": 4, "warmup": 1, "log_every": 1, "save_every": 2, "precision": "fp32"}
FEW |= {"threads": torch.get_num_threads()}


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and gives its path."""

    def write(part: str, pool: str, model="micro", **more) -> Path:
        values = {"part": part, "model": model, "data": {"pool": str(tmp_path / pool)}, "train": FEW} | more
        path = tmp_path / f"{part}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


@pytest.fixture
def photos(tmp_path, squares):
    """A folder of twelve captioned pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for position in range(12):
        sample = squares.sample(position, 48)
        Image.fromarray(sample.image).save(folder / f"{position}.png")
        (folder / f"{position}.txt").write_text(sample.caption, encoding="utf-8")
    return folder


def unclip(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_from_a_folder_of_pictures_to_a_picture(photos, recipe, tmp_path, capsys):
    pool, large, runs = tmp_path / "pool-32", tmp_path / "pool-64", tmp_path / "runs"
    assert unclip("data", "pool", photos, "--out", pool, "--size", 32) == 0
    assert unclip("data", "pool", photos, "--out", large, "--size", 64, "--samples", 8) == 0
    assert "12 samples at 32 px" in capsys.readouterr().out
    assert unclip("train", "clip", "--config", recipe("clip", "pool-32"), "--out", runs / "clip") == 0
    assert unclip("data", "embed", pool, "--clip", runs / "clip") == 0
    assert "12 images and 13 captions embedded" in capsys.readouterr().out

    few = {"steps": 2, "guidance": {"threshold": "none"}}
    parts = {
        "prior": recipe("prior", "pool-32", sampling=few),
        "decoder": recipe("decoder", "pool-32", diffusion={"prediction": "v"}, sampling={"steps": 2}),
        "upsampler": recipe(
            "upsampler", "pool-64", "micro:64", diffusion={"prediction": "x0"}, sampling={"steps": 1, "sampler": "ddim"}
        ),
    }
    for part, path in parts.items():
        assert unclip("train", part, "--config", path, "--out", runs / part, "train.steps=2") == 0
        losses = [line["loss"] for line in read_log(runs / part) if line["event"] == "tick"]
        assert len(losses) == 2
        assert (runs / part / "report.html").exists()

    card, bundle = tmp_path / "card.md", tmp_path / "tiny"
    card.write_text("# Squares\n", encoding="utf-8")
    given = [word for part in ("clip", *parts) for word in ("--run", runs / part)]
    capsys.readouterr()
    assert unclip("models", "pack", bundle, *given, "--card", card, "--version", "3") == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny 3, ")
    assert "clip, prior, decoder, upsampler_64" in out
    verify_bundle(bundle)
    assert (bundle / "README.md").read_text(encoding="utf-8") == "# Squares\n"
    provenance = read_manifest(bundle).provenance
    assert [provenance[part]["images"] for part in ("clip", "prior")] == [12, 8]

    assert unclip("generate", "a red square", "--model", bundle, "--out", tmp_path / "out", "--device", "cpu") == 0
    (path,) = capsys.readouterr().out.split()
    assert read_settings(path) == {"prompt": "a red square", "seed": 0, "size": 64, "model": "tiny", "candidates": 2}
    with Image.open(path) as image:
        assert image.size == (64, 64)

    # What was trained goes on, warm-starts another run, and is guarded against another CLIP.
    assert unclip("train", "prior", "--config", parts["prior"], "--out", runs / "prior", "train.steps=3") == 0
    assert (
        unclip("train", "prior", "--config", parts["prior"], "--out", runs / "warm", "--init", bundle, "train.steps=1") == 0
    )
    assert unclip("train", "clip", "--config", recipe("clip", "pool-32"), "--out", runs / "other", "train.seed=9") == 0
    assert unclip("data", "embed", pool, "--clip", runs / "other") == 0
    capsys.readouterr()
    assert unclip("train", "prior", "--config", parts["prior"], "--out", runs / "prior", "train.steps=4") == 2
    assert "was begun with data.clip = " in capsys.readouterr().err
    others = ["--run", runs / "other", "--run", runs / "prior"]
    assert unclip("models", "pack", tmp_path / "mixed", *others) == 2
    assert "another CLIP" in capsys.readouterr().err


def test_a_dry_run_prints_the_resolved_whole_and_needs_no_data(recipe, capsys):
    path = recipe("decoder", "nowhere", sampling={"steps": 2})
    assert unclip("train", "decoder", "--config", path, "--dry-run", "train.lr=1e-4", "model.unet.channels=64") == 0
    out, err = capsys.readouterr()
    values = yaml.safe_load(out)
    assert err == ""
    assert (values["train"]["lr"], values["model"]["unet"]["channels"], values["data"]["drop_z"]) == (1e-4, 64, 0.1)
    Path(path).write_text(out, encoding="utf-8")
    assert unclip("train", "decoder", "--config", path, "--dry-run") == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("part", "arguments", "words"),
    [
        ("prior", ["--dry-run"], "is a recipe for decoder, not for prior"),
        ("decoder", [], "no folder for the run: name one with --out"),
        ("decoder", ["--out", "run"], "nowhere is not a pool: make one with `unclip data pool`"),
        ("decoder", ["--dry-run", "train.speed=1"], "unknown key train.speed"),
        ("decoder", ["--dry-run", "train.steps=many"], "train.steps = 'many'"),
        ("decoder", ["--dry-run", "train.lr=0"], "train.lr = 0"),
        ("decoder", ["--dry-run", "model=giant"], "unknown size 'giant'"),
    ],
)
def test_a_fault_is_one_line_and_code_2(recipe, capsys, part, arguments, words):
    assert unclip("train", part, "--config", recipe("decoder", "nowhere", sampling={"steps": 2}), *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def test_a_missing_recipe_and_a_missing_card_are_one_line(tmp_path, capsys):
    assert unclip("train", "clip", "--config", tmp_path / "none.yaml") == 2
    assert "cannot read the recipe" in capsys.readouterr().err
    assert unclip("models", "pack", tmp_path / "b", "--run", tmp_path, "--card", tmp_path / "none.md") == 2
    err = capsys.readouterr().err
    assert "cannot read the model card" in err
    assert err.count("\n") == 1


def test_sizes_are_printed_beside_the_papers(capsys):
    assert unclip("models", "sizes") == 0
    out = capsys.readouterr().out
    assert unclip("models", "sizes", "--json") == 0
    rows = {row["part"]: row for row in json.loads(capsys.readouterr().out)["sizes"]}
    assert list(rows) == ["clip", "prior", "decoder", "upsampler_64", "upsampler_256", "upsampler_1024"]
    for part, row in rows.items():
        assert all(f"{count:,}" in out for count in row["parameters"].values())
        assert row["paper"] == PAPER.get(part)
        if row["paper"] is not None and abs(row["deviation"]) > 0.1:
            assert f"{part}: {EXPLAINED[part]}" in out
    assert rows["prior"]["deviation"] == pytest.approx(0.226, abs=0.001)
    assert abs(rows["decoder"]["deviation"]) < 0.03


def test_the_page_on_parameters_says_what_the_command_says():
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    for row in table():
        cells = [f"{row.parameters[size]:,}" if size in row.parameters else "-" for size in SIZES]
        assert f"| {row.part} | {' | '.join(cells)} |" in page
    for reason in EXPLAINED.values():
        assert reason in " ".join(page.split())
