"""Scores where the truth is known: a judge that cannot err, painters that paint the real render or nothing at all."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unclip.errors import RequestError
from unclip.evaluate import report
from unclip.evaluate.curve import append_point
from unclip.evaluate.score import score
from unclip.evaluate.suite import Item

SIDE, DIMENSIONS = 8, 32


class Oracle:
    """Knows every caption's picture: both have the same random direction; what it never saw is `blank`."""

    name, fingerprint, size = "oracle", "0" * 64, SIDE

    def __init__(self, items: list[Item], blank: np.ndarray):
        self._pictures = {item.real.tobytes(): item.prompt for item in items}
        self._blank = blank

    def images(self, pictures):
        captions = [self._pictures.get(picture.tobytes()) for picture in pictures]
        return np.stack([self._blank if caption is None else direction(caption) for caption in captions])

    def texts(self, captions):
        return np.stack([direction(caption) for caption in captions])


def direction(caption: str) -> np.ndarray:
    x = np.random.default_rng(list(caption.encode())).standard_normal(DIMENSIONS)
    return x / np.linalg.norm(x)


def items_of(split: str, n: int, categories: tuple[str, ...] = ("single",)) -> list[Item]:
    rng = np.random.default_rng(len(split))
    prompts = [f"{split} {i}" for i in range(n)]
    return [
        Item(
            split=split,
            category=categories[i % len(categories)],
            prompt=prompt,
            seed=i,
            real=Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)),
            meta={},
            wrong=tuple(f"{prompt} but {k}" for k in range(3 + i % 2)),
            distractors=tuple(p for p in prompts[:100] if p != prompt)[:99],
        )
        for i, prompt in enumerate(prompts)
    ]


ITEMS = [*items_of("train", 200), *items_of("scenes", 120, ("colors", "counting"))]
REAL = [item.real for item in ITEMS]
WHITE = [Image.new("RGB", (SIDE, SIDE), "white") for _ in ITEMS]
NOTHING = np.zeros(DIMENSIONS)


def test_who_paints_the_real_renders_scores_what_real_renders_score():
    splits, read_as = score(ITEMS, REAL, Oracle(ITEMS, NOTHING), resamples=100)
    assert read_as == [item.prompt for item in ITEMS]
    for group in (*splits.values(), *splits["scenes"]["categories"].values()):
        assert group["generated"] == group["real"]
        for figure in ("top1", "top5", "choice", "cosine"):
            assert group["generated"][figure] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert {"frechet", "mmd", "precision", "recall", "density", "coverage"} < splits["train"]["real"].keys()


def test_white_pictures_in_which_the_judge_sees_nothing_are_exactly_at_chance():
    splits, _ = score(ITEMS, WHITE, Oracle(ITEMS, NOTHING), resamples=100)
    for group in (*splits.values(), *splits["scenes"]["categories"].values()):
        for figure in ("top1", "top5", "choice"):
            assert group["generated"][figure]["value"] == pytest.approx(group["chance"][figure], abs=1e-6)
    # Three or four wrong captions by turns: 1/4 and 1/5.
    assert splits["train"]["chance"] | {"cosine": 0} == {"top1": 0.01, "top5": 0.05, "choice": 0.225, "cosine": 0}
    assert splits["scenes"]["categories"]["colors"]["chance"]["choice"] == 0.25
    assert splits["scenes"]["categories"]["counting"]["chance"]["choice"] == 0.2


def test_white_pictures_in_which_the_judge_sees_something_are_near_chance_and_far_from_real():
    splits, read_as = score(ITEMS, WHITE, Oracle(ITEMS, direction("white")), resamples=1000)
    train = splits["train"]
    assert train["generated"]["top1"]["value"] <= 0.02
    assert train["generated"]["choice"]["low"] <= train["chance"]["choice"] <= train["generated"]["choice"]["high"]
    assert train["generated"]["frechet"]["low"] > train["real"]["frechet"]["high"]
    assert train["generated"]["recall"]["value"] == 0
    assert sum(caption == item.prompt for caption, item in zip(read_as, ITEMS, strict=True)) <= 5


def test_the_chance_of_a_cosine_is_that_of_two_different_renders():
    items = items_of("train", 3)
    judge = Oracle(items, NOTHING)
    splits, _ = score(items, [item.real for item in items], judge, resamples=10)
    a, b, c = judge.images([item.real for item in items])
    assert splits["train"]["chance"]["cosine"] == pytest.approx((a @ b + b @ c + a @ c) / 3, abs=1e-6)


def test_a_split_too_small_for_distributions_has_no_distances_and_items_without_wrong_captions_no_choice():
    items = [replace(item, wrong=()) for item in items_of("train", 5)]
    splits, _ = score(items, [item.real for item in items], Oracle(items, NOTHING), resamples=10)
    assert splits["train"]["generated"].keys() == {"top1", "top5", "cosine"}
    assert splits["train"]["chance"].keys() == {"top1", "top5", "cosine"}
    assert splits["train"]["chance"]["top1"] == pytest.approx(1 / 5)
    assert report.tables({"bundle": "b", "judge": {"name": "j"}, "splits": splits})[0].row_count == 3


def test_a_picture_too_few_is_refused():
    with pytest.raises(RequestError, match="319 pictures for 320 prompts"):
        score(ITEMS, REAL[1:], Oracle(ITEMS, NOTHING))


def whole_report(images_seen_by: str = "micro") -> tuple[dict, list[str]]:
    splits, read_as = score(ITEMS, REAL, Oracle(ITEMS, NOTHING), resamples=10)
    judge = {"name": "oracle", "fingerprint": "0" * 64}
    return {"bundle": images_seen_by, "judge": judge, "samples": 200, "seed": 0, "splits": splits}, read_as


def test_the_report_is_written_with_a_sheet_for_each_split(tmp_path):
    about, read_as = whole_report()
    paths = report.write(tmp_path / "out", about, ITEMS, REAL, read_as)
    assert [path.name for path in paths] == ["report.json", "sheet-train.png", "sheet-scenes.png"]
    written = json.loads(paths[0].read_text())
    assert written["splits"] == json.loads(json.dumps(about["splits"]))
    assert written["pictures"][0] == {"split": "train", "category": "single", "prompt": "train 0", "read_as": "train 0"}
    with Image.open(paths[1]) as sheet:  # 64 pictures, eight a row, whatever the split holds
        assert sheet.width == 8 * 166 + 6
        assert 8 * 160 < sheet.height < 8 * 250


def test_a_curve_grows_by_a_line_an_evaluation(tmp_path):
    about, _ = whole_report()
    for seen in (1000, 2000):
        append_point(tmp_path / "curve.jsonl", about, seen)
    points = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [point["images_seen"] for point in points] == [1000, 2000]
    assert points[1]["scores"]["scenes/colors"]["choice"] == {"value": 1, "low": 1, "high": 1}
    assert points[1]["scores"].keys() == {"train", "scenes", "scenes/colors", "scenes/counting"}
    with pytest.raises(RequestError, match="cannot write"):
        append_point(tmp_path / "nowhere" / "curve.jsonl", about, 1)


def test_the_tables_show_every_split_category_and_their_real_renders():
    about, _ = whole_report()
    captions, distances = report.tables(about)
    assert captions.row_count == 3 * 4  # train, scenes, its two categories; each with real renders and chance
    assert distances.row_count == 2 * 2
