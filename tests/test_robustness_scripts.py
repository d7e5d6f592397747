"""The scripts that measure CLIP by itself: shares and recall on tables made by hand, and each script from end to end."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_evaluate_run import Discs
from test_scripts import script
from toy_clip import save_clip

from unclip.clip import load_clip
from unclip.data import pool as pools
from unclip.data.icons import IconStream
from unclip.evaluate import suite
from unclip.evaluate.corruptions import CORRUPTIONS
from unclip.search import video

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def robustness():
    return script("robustness_figures")


@pytest.fixture(scope="module")
def retrieval():
    return script("retrieval_figures")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clips") / "micro", 0)


def test_each_thing_counts_once_and_ties_are_broken_by_lot(robustness):
    answers = torch.tensor([[3.0, 2, 1], [1, 3, 2], [0, 1, 1], [2, 2, 2]])
    label = torch.tensor([0, 0, 1, 2])
    assert robustness.per_thing(answers, label, 1).tolist() == pytest.approx([0.5, 0.5, 1 / 3])
    assert robustness.per_thing(answers, label, 2).tolist() == pytest.approx([0.5, 1, 2 / 3])


def test_effective_is_what_lies_above_the_taught_network_when_it_was_as_good(robustness):
    easy, hard = robustness.EASY, "pair, outline"
    rng = np.random.default_rng(0)

    def right(share: float) -> np.ndarray:  # of 1,000 things, first and second choice alike
        return np.tile(rng.permutation(1000) < 1000 * share, (2, 1)).astype(float)

    matched = [{easy: {"supervised": right(e)}, hard: {"supervised": right(h)}} for e, h in ((0.5, 0.1), (0.9, 0.5))]
    # In logits the easy share goes from 0 to log 9, and the hard one from -log 9 to 0: always log 9 below.
    clip = {easy: {"zero-shot": right(0.75)}, hard: {"zero-shot": right(0.65)}}
    figure = robustness.effective(clip, matched, hard)
    assert figure.value == pytest.approx(0.65 - 1 / (1 + 9 / 3), abs=1e-9)
    assert figure.low < figure.value < figure.high
    assert np.allclose(robustness.effective(clip, matched, easy), 0)


def test_only_one_thing_has_a_label(robustness):
    assert robustness.thing_shown({"drawings": ["noto/cactus"]}) == "cactus"
    assert robustness.thing_shown({"drawings": ["noto/cactus", "noto/cat"]}) is None


def test_the_robustness_script_tells_of_every_test(robustness, clip, tmp_path, monkeypatch, capsys):
    discs, eyes = Discs(), load_clip(clip, precision="fp32")
    stream = IconStream(discs, 3, scenes=0.2, **robustness.TRAINING)
    pool = pools.build(stream, tmp_path / "pool", samples=400, size=32, name="discs")
    pools.embed(pool, eyes.network, eyes.tokenizer, fingerprint=eyes.fingerprint)
    monkeypatch.setattr(robustness, "Drawings", Discs)
    monkeypatch.setattr(robustness, "VALID", 50)
    options = f"--clip {clip} --pool {pool.root} --run {tmp_path / 'run'} --recipe {ROOT / 'recipes/clip-icons.yaml'}"
    sheet = tmp_path / "sheets" / "corruptions.png"
    monkeypatch.setattr(sys, "argv", ["x", *options.split(), "--steps", "4", "--sheet", str(sheet)])
    robustness.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    held = {drawing.thing for drawing in discs.listing if drawing.split == "pair"}
    assert report["labels"] == len(held)
    assert report["pictures"]["pair"] == sum(drawing.split == "pair" for drawing in discs.listing)
    ways = ["as it is", "on white", "on a colour", *list(CORRUPTIONS)[1:]]
    assert list(report["tests"]) == [f"{split}, {way}" for split in ("train", "pair") for way in ways]
    easy = report["tests"][robustness.EASY]
    assert {easy["top1"][f"drop of {name}"]["value"] for name in ("zero-shot", "sentence", "supervised", "probe")} == {0}
    for test in report["tests"].values():
        top1, top5 = test["top1"], test["top5"]
        assert top1["supervised"]["value"] <= top5["supervised"]["value"]
        gap = top1["zero-shot"]["value"] - top1["supervised"]["value"]
        assert top1["zero-shot less supervised"]["value"] == pytest.approx(gap, abs=2e-6)
    # A probe that knows every colour beats a CLIP of random weights.
    assert easy["top1"]["probe"]["value"] > easy["top1"]["zero-shot"]["value"]
    assert [point["step"] for point in report["taught"]["valid"]] == [0, 1, 2, 3, 4]
    with Image.open(sheet) as image:
        assert image.width > 9 * 64


def test_recall_by_hand(retrieval):
    cosines = np.array([[0.9, 0.5, 0.1], [0.3, 0.3, 0.3], [0.2, 0.7, 0.7], [0.5, 0.6, 0.5]])
    right = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1]], bool)  # the last caption is said of two pictures
    assert retrieval.recalled(cosines, right, 1).tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert retrieval.recalled(cosines, right, 2).tolist() == pytest.approx([1, 2 / 3, 0, 1])
    assert retrieval.recalled(cosines, right, 3).tolist() == [1, 1, 1, 1]


def test_a_film_shows_each_picture_for_its_second(retrieval, tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    pictures = [Image.fromarray(tile).resize((64, 64), Image.Resampling.NEAREST) for tile in tiles]
    retrieval.write_film(pictures, tmp_path / "film.mp4")
    runs = list(video.runs(tmp_path / "film.mp4", 0.5))
    assert [(round(run.time, 3), round(run.until, 3)) for run in runs] == [(i, i + 1) for i in range(5)]
    for run, picture in zip(runs, pictures, strict=True):
        seen, shown = (np.asarray(image.resize((4, 4), Image.Resampling.BOX), float) for image in (run.image, picture))
        assert abs(seen - shown).mean() < 24  # half the colour's resolution is lost


def test_frames_are_found_by_who_knows_them_and_by_nobody_else(retrieval, clip, tmp_path):
    items = suite.icons_suite(Discs(), samples=12, size=64, splits=["train"])
    film = tmp_path / "film.mp4"
    retrieval.write_film([item.real for item in items], film)
    eyes = load_clip(clip, precision="fp32")
    pictures = {item.prompt: item.real for item in items}

    class Knows:
        """A CLIP that reads a caption by looking at its picture."""

        name, fingerprint, width, size, int8 = "knows", eyes.fingerprint, eyes.width, eyes.size, False
        pixels = staticmethod(eyes.pixels)

        def texts(self, captions):
            return eyes.images([pictures[caption] for caption in captions])

    report = retrieval.in_film(Knows(), items, 6, film)
    assert (report["seconds"], report["frames"]) == (12, 12)
    assert report["6 captions"]["at 1"]["value"] == report["12 captions"]["at 1"]["value"] == 1
    told = retrieval.in_film(eyes, items[::-1], 6, film)  # in whose order nothing is at its second
    assert told["12 captions"]["at 1"]["value"] < 0.6


def test_the_retrieval_script_runs_through(retrieval, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(retrieval, "icons_suite", lambda data, **asked: suite.icons_suite(Discs(), **asked))
    other = save_clip(tmp_path / "other", 1)
    monkeypatch.setattr(
        sys, "argv", ["x", "--clip", str(clip), "--judge", str(other), "--quick", "--out", str(tmp_path / "out")]
    )
    retrieval.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["among"]["pair"]["among"] == 24
    assert set(report["film"]["train"]) == {"micro", "other"}
    assert (tmp_path / "out" / "pair" / "film.mp4").stat().st_size > 1000
