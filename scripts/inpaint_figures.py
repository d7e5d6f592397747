"""How well holes are filled: one JSON object of figures with their 95 % intervals, on held-out pictures.

    python scripts/inpaint_figures.py --data data/icons --judge runs/icons-judge

Two kinds of cases, of each as many:

    pair              a drawing held out in this style; the hole is its box, so that background is all that is known
    scenes-held-out   two objects beside or above one another, a pair that training never shows; the hole is one's half

preferred   the share of pictures of which the judge prefers the true caption to three that name another thing in the hole
seam        the mean step in bytes between a pixel of the hole and its neighbour outside; of the same pixels of the untouched
            pictures; and of all neighbours in those
outside     the largest difference outside of the hole, which must be 0

The judge never saw the model's CLIP; `real` is what it makes of the untouched pictures.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from unclip.cli.console import guarded, note, print_json
from unclip.data.icons.scenes import describe, scene_of
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import credit, mean_figure
from unclip.evaluate.suite import Item, icons_suite
from unclip.images import grid, resize_image, save_png
from unclip.inpainting import inpaint
from unclip.pipeline import UnCLIP, load
from unclip.request import Options

WRONG = 3  # captions beside the true one
JUDGED = 64  # px: the judge's side
HALVES = {"left of": (0, 0, 1, 0.5), "right of": (0, 0.5, 1, 0.5), "above": (0, 0, 0.5, 1), "below": (0.5, 0, 0.5, 1)}


class Case(NamedTuple):
    item: Item
    hole: np.ndarray  # (H, W) bool
    wrong: list[str]


def cases(data: Path, split: str, count: int, size: int) -> list[Case]:
    """The first so many of the split's pictures that make one."""
    made = [case for item in icons_suite(data, samples=20 * count, size=size, splits=[split]) if (case := case_of(item))]
    return made[:count]


def case_of(item: Item) -> Case | None:
    side = item.real.width
    hole = np.zeros((side, side), bool)
    if item.split == "pair":
        top, left, height, width = _box(np.asarray(item.real))
        wrong = list(item.wrong)
    elif item.category == "position" and item.meta["scene"]["relation"] in HALVES:
        scene = scene_of(item.meta["scene"])
        top, left, height, width = (round(part * side) for part in HALVES[item.meta["scene"]["relation"]])
        first, second = scene.objects
        wrong = [describe(replace(scene, objects=(replace(first, name=name), second))) for name in item.meta["others"]]
    else:
        return None
    hole[top : top + height, left : left + width] = True
    return Case(item, hole, wrong[:WRONG]) if len(wrong) >= WRONG and not hole.all() else None


def _box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Around all that is not white, but for a sixteenth of the side at the picture's edges: top, left, height, width."""
    rows, columns = np.nonzero((pixels < 250).any(2))
    rim, side = len(pixels) // 16, len(pixels)
    top, left = max(int(rows.min()), rim), max(int(columns.min()), rim)
    return top, left, min(int(rows.max()) + 1, side - rim) - top, min(int(columns.max()) + 1, side - rim) - left


def steps_across(pixels: np.ndarray, hole: np.ndarray) -> float:
    """The mean step between the hole's pixels and their neighbours outside, in bytes."""
    values = pixels.astype(float)
    down, right = abs(np.diff(values, axis=0)).mean(2), abs(np.diff(values, axis=1)).mean(2)
    return float(np.concatenate([down[np.diff(hole, axis=0)], right[np.diff(hole, axis=1)]]).mean())


def steps_anywhere(pixels: np.ndarray) -> float:
    values = pixels.astype(float)
    return float(np.concatenate([abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)]).mean())


def figure(values: Sequence[float]) -> dict[str, float]:
    return mean_figure(np.asarray(values, dtype=float), resamples=1000).rounded()


def preferred(judge: ClipJudge, told: list[Case], pictures: Sequence[Image.Image]) -> dict[str, float]:
    seen = judge.images([resize_image(picture, JUDGED) for picture in pictures])
    captions = list(dict.fromkeys(caption for case in told for caption in (case.item.prompt, *case.wrong)))
    features = dict(zip(captions, judge.texts(captions), strict=True))
    right = [
        credit(float(features[case.item.prompt] @ x), np.array([features[caption] @ x for caption in case.wrong]))
        for case, x in zip(told, seen, strict=True)
    ]
    return figure(right)


def measure(model: UnCLIP, judge: ClipJudge, told: list[Case], options: Options, sheet: Path | None):
    made = [
        inpaint(
            model,
            case.item.real,
            Image.fromarray(case.hole),
            case.item.prompt,
            n=1,
            seed=case.item.seed,
            options=options,
        )[0]
        for case in told
    ]
    real, pixels = [case.item.real for case in told], [np.asarray(picture) for picture in made]
    untouched = [np.asarray(picture) for picture in real]
    holes = [case.hole for case in told]
    if sheet:
        _draw(told, made, sheet)
    outside = [
        int(abs(one[~hole].astype(int) - other[~hole].astype(int)).max())
        for one, other, hole in zip(pixels, untouched, holes, strict=True)
    ]
    return {
        "n": len(told),
        "hole": figure([float(hole.mean()) for hole in holes]),
        "preferred": preferred(judge, told, made),
        "preferred_real": preferred(judge, told, real),
        "preferred_hole_left_white": preferred(judge, told, [_emptied(case) for case in told]),
        "seam": figure([steps_across(*pair) for pair in zip(pixels, holes, strict=True)]),
        "seam_real": figure([steps_across(*pair) for pair in zip(untouched, holes, strict=True)]),
        "steps_real": figure([steps_anywhere(one) for one in untouched]),
        "outside": max(outside),
    }


def _emptied(case: Case) -> Image.Image:
    """The picture with nothing in the hole: what the judge can tell from the rest."""
    pixels = np.array(case.item.real)
    pixels[case.hole] = 255
    return Image.fromarray(pixels)


def _draw(told: list[Case], made: Sequence[Image.Image], path: Path) -> None:
    """The first twelve: the picture, its hole, what was painted."""
    cells: list[tuple[Image.Image, str]] = []
    for case, picture in [*zip(told, made, strict=True)][:12]:
        holed = np.array(case.item.real)
        holed[case.hole] = 160
        cells += [(case.item.real, case.item.prompt), (Image.fromarray(holed), ""), (picture, "")]
    save_png(grid([resize_image(image, 128) for image, _ in cells], 6, [words for _, words in cells]), path)


def run(args: argparse.Namespace) -> dict[str, Any]:
    model, judge = load(args.model), load_judge(args.judge)
    assert isinstance(model, UnCLIP), "the tasks ask an unCLIP"
    report: dict[str, Any] = {"model": model.name, "method": args.method, "size": args.size}
    method = None if args.method == "auto" else args.method
    options = Options.parse({"guidance": args.guidance, "method": method}, where="options")
    for split in ("pair", "scenes-held-out"):
        sheet = args.sheets / f"inpaint-{args.method}-{split}.png" if args.sheets else None
        told = cases(args.data, split, args.cases, args.size)
        report[split] = measure(model, judge, told, options, sheet)
        note(f"{split}: {report[split]}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of inpainting on held-out icons.")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--judge", default="icons-judge", help="a shipped judge, or the folder of one trained apart")
    parser.add_argument("--cases", type=int, default=100, help="of each kind")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures, px")
    parser.add_argument("--method", default="auto", choices=["auto", "trained", "repaint"])
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--sheets", type=Path, default=None, help="folder for a sheet of the first twelve of each kind")
    print_json(run(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
