"""Zero-shot labels: the ensemble, the order, the verb from pictures to lines, and what it says of those it cannot read."""

import csv
import json

import pytest
import torch
from PIL import Image
from toy_clip import save_clip

from unclip.classify import Classifier
from unclip.cli import main
from unclip.clip import Clip, load_clip, unit
from unclip.errors import RequestError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "micro", 3)


@pytest.fixture(scope="module")
def clip(folder) -> Clip:
    return load_clip(folder, precision="fp32")


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40 + number, 50), colour).save(root / f"{colour}.png")
    return root


def test_a_class_is_the_mean_of_its_sentences(clip):
    templates = ("a {}", "two {}s on a mat")
    classifier = Classifier(clip, ["cat", "red  disc"], templates)
    assert classifier.labels == ["cat", "red disc"]
    for label, weights in zip(classifier.labels, classifier.weights, strict=True):
        sentences = unit(clip.texts([template.format(label) for template in templates]))
        torch.testing.assert_close(weights, unit(sentences.mean(dim=0)))


def test_probabilities_are_clips_own_and_the_likeliest_comes_first(clip):
    classifier = Classifier(clip, ["cat", "disc", "sea"], ["{}"])
    z = clip.images([Image.new("RGB", (32, 32), colour) for colour in ("red", "white")])
    scale = clip.network.logit_scale.exp()
    expected = (scale * unit(z) @ unit(clip.texts(["cat", "disc", "sea"])).T).softmax(dim=1)
    torch.testing.assert_close(classifier.probabilities(z), expected, atol=1e-4, rtol=1e-3)
    for row, best in zip(expected, classifier.best(z, 2), strict=True):
        assert [label for label, _ in best] == [classifier.labels[i] for i in row.argsort(descending=True)[:2]]


@pytest.mark.parametrize(
    ("labels", "templates", "said"),
    [
        ([], ["{}"], "labels none: expected two or more"),
        (["cat"], ["{}"], "labels 'cat': expected two or more"),
        (["cat", "  "], ["{}"], "none of them empty"),
        (["cat", "dog", "cat"], ["{}"], "'cat' is there twice"),
        (["cat", "dog"], ["a photo"], "template 'a photo': expected one {}"),
        (["cat", "dog"], ["{} {}"], "expected one {}"),
        (["cat", "dog"], ["{} of {0}"], "no other brace"),
        (["cat", "dog"], [], "no template"),
    ],
)
def test_what_is_no_choice_is_refused(clip, labels, templates, said):
    with pytest.raises(RequestError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Classifier(clip, labels, templates)


def test_a_line_a_picture_and_the_same_as_json_and_csv(folder, pictures, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("sea\n\nsunset\n")
    call = ["classify", str(pictures), "--clip", str(folder), "--labels", "cat, disc,", "--top", "2", "--device", "cpu"]
    call += ["--labels-file", str(tmp_path / "more.txt"), "--csv", str(tmp_path / "answers.csv")]
    assert main(call) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        str(pictures / f"{colour}.png") for colour in ("blue", "green", "red")
    ]
    assert main([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["faults"] == {}
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert len(rows) == 6
    for answer, line in zip(told["answers"], lines, strict=True):
        best = answer["labels"]
        assert line.split("\t")[1] == ", ".join(f"{one['label']} {one['probability']:.2f}" for one in best)
        written = [row for row in rows if row["path"] == answer["path"]]
        assert [(row["rank"], row["label"]) for row in written] == [("1", best[0]["label"]), ("2", best[1]["label"])]
    assert {one["label"] for answer in told["answers"] for one in answer["labels"]} <= {"cat", "disc", "sea", "sunset"}


def test_what_cannot_be_read_is_named_and_the_rest_is_answered(folder, pictures, capsys):
    (pictures / "torn.png").write_bytes((pictures / "red.png").read_bytes()[:40])
    (pictures / "film.mp4").write_bytes(b"x")
    call = ["classify", str(pictures), "--clip", str(folder), "--labels", "cat,disc", "--device", "cpu"]
    assert main(call) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert "film.mp4 (a video: index it" in err
    assert "torn.png (not a readable picture" in err
    for colour in ("red", "green", "blue"):
        (pictures / f"{colour}.png").unlink()
    assert main(call) == 2
    assert "error: none of the 2 files is a picture that can be read" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(folder, pictures, tmp_path, capsys):
    call = ["classify", str(pictures), "--clip", str(folder), "--labels", "cat,disc", "--device", "cpu"]
    assert main([*call, "--csv", str(tmp_path / "no" / "where.csv")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot write")
