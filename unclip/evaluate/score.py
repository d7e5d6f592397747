"""What the judge makes of the pictures of a suite, beside what it makes of the real renders of the same prompts.

Figures of a split, each with a 95 % bootstrap interval over prompts:

    top1, top5   the prompt is the best, or among the five best, of itself and 99 captions of other items (R-precision)
    choice       the prompt beats every caption of the same form that is false: another colour, count, order, object
    cosine       between the picture's features and those of the prompt's real render
    frechet, mmd, precision, recall, density, coverage     against real renders of other prompts: metrics.py

Scenes have the first four per category too. `chance` is what a blind guess gets, for `cosine` the mean between the real
renders of two different prompts. Ties count as a guess among the tied.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from unclip.errors import RequestError
from unclip.evaluate.judge import Judge
from unclip.evaluate.metrics import COVER, Figure, credit, distribution_figures, mean_figure, narrow_sigma
from unclip.evaluate.suite import Item

BY_PROMPT = ("top1", "top5", "choice", "cosine")
FEWEST = 2 * (COVER + 2)  # prompts of a split below which nothing is said of distributions


def score(
    items: Sequence[Item], pictures: Sequence[Image.Image], judge: Judge, *, resamples: int = 1000
) -> tuple[dict[str, Any], list[str]]:
    """The figures by split, and of each picture the caption among 100 that the judge prefers.

    `pictures[i]` answers `items[i]`. A split has "n", "generated", "real", "chance", the kernel's "sigma" and, for scenes,
    "categories", each with the first four.
    """
    if len(pictures) != len(items):
        raise RequestError(f"{len(pictures)} pictures for {len(items)} prompts: give one each")
    captions = _caption_features(items, judge)
    real = judge.images([item.real for item in items])
    generated = judge.images(pictures)
    each = {name: _by_prompt(items, x, real, captions) for name, x in (("generated", generated), ("real", real))}
    report = {}
    for split in dict.fromkeys(item.split for item in items):
        rows = [i for i, item in enumerate(items) if item.split == split]
        report[split] = _group(items, rows, each, real, resamples)
        if len(rows) >= FEWEST:
            report[split]["sigma"] = round(narrow_sigma(real[rows]), 4)
            for name, x in (("generated", generated), ("real", real)):
                figures = distribution_figures(x[rows], real[rows], resamples=resamples)
                report[split][name] |= _rounded(figures)
        categories = dict.fromkeys(items[i].category for i in rows)
        if len(categories) > 1:
            report[split]["categories"] = {
                category: _group(items, [i for i in rows if items[i].category == category], each, real, resamples)
                for category in sorted(categories)
            }
    return report, [_read_as(item, x, captions) for item, x in zip(items, generated, strict=True)]


def by_prompt(items: Sequence[Item], pictures: Sequence[Sequence[Image.Image]], judge: Judge) -> list[dict[str, np.ndarray]]:
    """What each item's picture adds to each of the first four figures, (N,), for several answers to the same items.

    For differences between answers, which are paired: their interval is far narrower than either answer's own.
    """
    captions, real = _caption_features(items, judge), judge.images([item.real for item in items])
    return [_by_prompt(items, judge.images(answer), real, captions) for answer in pictures]


def _caption_features(items: Sequence[Item], judge: Judge) -> dict[str, np.ndarray]:
    captions = list(dict.fromkeys(c for item in items for c in (item.prompt, *item.wrong, *item.distractors)))
    return dict(zip(captions, judge.texts(captions), strict=True))


def _by_prompt(
    items: Sequence[Item], features: np.ndarray, real: np.ndarray, captions: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What each picture adds to each figure, (N,); `choice` is NaN where an item has no wrong captions."""
    rows = []
    for item, x, reference in zip(items, features, real, strict=True):
        own = float(captions[item.prompt] @ x)
        among = _similarities(item.distractors, x, captions)
        choice = credit(own, _similarities(item.wrong, x, captions)) if item.wrong else np.nan
        rows.append((credit(own, among), credit(own, among, k=5), choice, float(x @ reference)))
    return dict(zip(BY_PROMPT, np.array(rows).T, strict=True))


def _similarities(names: Sequence[str], x: np.ndarray, captions: dict[str, np.ndarray]) -> np.ndarray:
    # One product a caption: a matrix product rounds equal rows differently, and ties must stay ties.
    return np.array([captions[name] @ x for name in names])


def _group(
    items: Sequence[Item], rows: list[int], each: dict[str, dict[str, np.ndarray]], real: np.ndarray, resamples: int
) -> dict[str, Any]:
    group: dict[str, Any] = {"n": len(rows), "chance": _chance([items[i] for i in rows], real[rows])}
    for name, values in each.items():
        of_rows = {figure: values[figure][rows] for figure in BY_PROMPT}
        told = {figure: column[~np.isnan(column)] for figure, column in of_rows.items()}
        group[name] = _rounded({f: mean_figure(column, resamples=resamples) for f, column in told.items() if len(column)})
    return group


def _chance(items: Sequence[Item], real: np.ndarray) -> dict[str, float]:
    n, choices = len(items), np.array([1 + len(item.distractors) for item in items])
    chance = {"top1": np.mean(1 / choices), "top5": np.mean(np.minimum(1, 5 / choices))}
    if guesses := [1 / (1 + len(item.wrong)) for item in items if item.wrong]:
        chance["choice"] = np.mean(guesses)
    if n > 1:
        total = real.sum(axis=0)  # the mean over all pairs, less those of a render with itself
        chance["cosine"] = (total @ total - (real**2).sum()) / (n * (n - 1))
    return {name: round(float(value), 6) for name, value in chance.items()}


def _rounded(figures: dict[str, Figure]) -> dict[str, dict[str, float]]:
    return {name: figure.rounded() for name, figure in figures.items()}


def _read_as(item: Item, x: np.ndarray, captions: dict[str, np.ndarray]) -> str:
    """The caption among 100 that fits best; the prompt itself only when it beats all others, as `top1` has it."""
    names = [*item.distractors, item.prompt]
    return names[int(_similarities(names, x, captions).argmax())]
