"""`unclip map`: the picture, the page, the figures as lines and as JSON, and one line for each fault."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from toy_clip import save_clip
from toy_search import fill

from unclip.cli import main
from unclip.cli.tasks_info import command, left_open
from unclip.images import read_settings

CAPTIONS = {0: "a cat", 1: "a red disc", 2: "sea", 3: "two green stars", 4: "sunset", 5: "a blue square"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "micro", 3)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs the verb beside a folder of captioned pictures; gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    fill(Path("pictures"), range(7), CAPTIONS)

    def call(*arguments: str):
        return main(["map", *arguments, "--device", "cpu"]), *capsys.readouterr()

    return call


def test_a_picture_a_page_and_the_gap(run, clip):
    code, out, err = run("pictures", "--clip", str(clip), "-o", "map.png", "--html", "map.html", "--fit", "pictures")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("6 captions")
    figures = ["distance of the means", "told apart by a plane", "cosine of true pairs"]
    assert [line.split("  ")[0] for line in lines[2:7:2]] == figures
    assert lines[8:] == ["map.png", "map.html"]
    with Image.open("map.png") as drawn:
        assert drawn.size == (960, 720)
        assert len(drawn.convert("RGB").getcolors(1 << 16)) > 50
    assert Path("map.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    first = Path("map.png").read_bytes()
    assert run("pictures", "--clip", str(clip), "-o", "map.png", "--fit", "pictures")[0] == 0
    assert Path("map.png").read_bytes() == first
    settings = read_settings("map.png")
    assert left_open(settings) == []
    assert command(settings) == "unclip map pictures --method pca --fit pictures --most 4000 --seed 0 --clip micro"


def test_the_priors_z_are_mapped_with_a_model(run, micro_bundle):
    code, out, err = run("pictures", "--model", str(micro_bundle), "--html", "map.html", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["rows"], told["page"], told["map"], told["clip"]) == (7, "map.html", None, "tiny")
    assert told["gaps"].keys() == {"captions", "prior"}
    for gap in told["gaps"].values():
        assert gap["n"] == 6
        for name in ("distance", "separable", "cosine"):
            assert gap[name]["low"] <= gap[name]["value"] <= gap[name]["high"]
    assert "the prior's z" in Path("map.html").read_text(encoding="utf-8")


def test_pictures_without_captions_are_a_map_without_a_gap(run, clip):
    for caption in Path("pictures").glob("*.txt"):
        caption.unlink()
    code, out, _ = run("pictures", "--clip", str(clip), "-o", "map.png")
    assert (code, out.splitlines()) == (0, ["too few captions to measure a gap", "map.png"])


def test_what_cannot_be_read_is_named(run, clip):
    Path("pictures/000.png").write_bytes(b"torn")
    code, out, err = run("pictures", "--clip", str(clip), "--json")
    assert code == 0
    assert "not looked at: pictures/000.png (not a readable picture" in err
    assert json.loads(out)["faults"].keys() == {"pictures/000.png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is not there"),
        (["empty"], "nothing to look at in empty"),
        (["two"], "2 pictures in two: a map needs at least 3"),
        (["pictures", "--model", "icons"], "--model and --clip: give one"),
        (["pictures", "-o", "taken/map.png"], "cannot write in the folder taken"),
        (["pictures", "--html", "taken/map.html"], "cannot write in the folder taken"),
        (["pictures", "-o", "map.png", "--fit", "prior"], "the plane of prior: expected a cloud of at least three points"),
    ],
)
def test_a_fault_is_one_line(run, clip, arguments, said):
    Path("empty").mkdir()
    fill(Path("two"), range(2))
    Path("taken").write_text("a file")
    code, out, err = run(*arguments, "--clip", str(clip))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not list(Path().glob("map*"))


@pytest.mark.parametrize(
    ("library", "arguments", "said"),
    [
        ("umap", ["--method", "umap"], "--method umap needs umap-learn: install unclip[map], or take pca"),
        ("matplotlib.figure", [], "a map as a picture needs matplotlib: install unclip[plots], or ask for --html alone"),
    ],
)
def test_an_extra_that_is_missing_is_named(run, clip, monkeypatch, library, arguments, said):
    monkeypatch.setitem(sys.modules, library, None)
    assert run("pictures", "--clip", str(clip), "-o", "map.png", *arguments)[::2] == (2, f"error: {said}\n")


def test_a_model_without_a_prior_is_refused(run, clip):
    code, _, err = run("pictures", "--model", str(clip))
    assert code == 2
    assert err == f"error: micro has no prior: give its CLIP alone, with --clip {clip}\n"
