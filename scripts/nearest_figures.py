"""The nearest training drawing of each of 200 pictures, so that memorisation is seen for what it is.

    python scripts/nearest_figures.py icons --data data/icons --out out/nearest

The prompts are the suite's, 100 of `train` (drawings that training holds) and 100 of `pair` (known things in a style that
it did not show them in). Scenes are left out unless asked for: they are made of several drawings, so that the nearest one
says little of them. Each picture, at 64 px, is compared with every training drawing as it is, centred on white, by the
judge and by pixels (evaluate/distances.py).

A distance by itself says nothing, so it stands beside that of drawings that training never held, `pair` and `thing`, to
their own nearest training drawing: a model that copies lies nearer than they do. The judge has seen the training drawings,
as the model has; pixels are the same to all. By split, with 95 % bootstrap intervals:

    distance                 of the pictures to their nearest training drawing: the mean, and quantiles
    nearer_than_half         the share nearer than half of the unseen drawings of `pair` are (.5 if they were like those)
    nearer_than_95_percent   the share nearer than 95 % of those are (.05)
    shows_its_thing          the share whose nearest training drawing shows a thing that the prompt names
    is_its_drawing           ... is the very drawing that the prompt names, where training holds it
    nearer_than_its_render   the share nearer than the prompt's own real render is, where training does not hold it (.5)

A table is printed; `--out` gets nearest.json and nearest.webp: each picture, its nearest by the judge, its nearest by
pixels, and under them the prompt and both distances.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from unclip.cli.console import columns, guarded, note
from unclip.config import apply_overrides
from unclip.data.icons import IconStream
from unclip.data.icons.drawings import Drawings
from unclip.data.icons.selection import Drawing
from unclip.evaluate.distances import EYES, Seen, distances, look
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import mean_figure
from unclip.evaluate.painters import from_prompts, paint_all
from unclip.evaluate.suite import Item, icons_suite
from unclip.files import write_text
from unclip.images import grid, make_folder, save_lossy
from unclip.pipeline import UnCLIP, load
from unclip.request import Options

SIZE, RESAMPLES = 64, 2000
QUANTILES = (5, 25, 50, 75, 95)  # percent
UNSEEN = ("pair", "thing")
ACROSS, SHEET_BYTES = 6, 1_500_000  # triplets a row of the sheet
SHARES = ("nearer_than_half", "nearer_than_95_percent", "shows_its_thing", "is_its_drawing", "nearer_than_its_render")


class Shown(NamedTuple):
    """Drawings as they are, and what is seen of them."""

    drawings: list[Drawing]
    pictures: list[Image.Image]
    seen: Seen


class Nearest(NamedTuple):
    """Of each of N pictures its nearest training drawing, by one pair of eyes."""

    place: np.ndarray
    distance: np.ndarray


def show(stream: IconStream, split: str, judge: ClipJudge) -> Shown:
    drawings = stream.listing(split)
    pictures = [Image.fromarray(stream.canonical(drawing.index, SIZE).image) for drawing in drawings]
    return Shown(drawings, pictures, look(pictures, judge))


def nearest(x: Seen, training: Seen) -> dict[str, Nearest]:
    tables = distances(x, training)
    return {eye: Nearest(tables[eye].argmin(axis=1), tables[eye].min(axis=1)) for eye in EYES}


def spread_of(distance: np.ndarray) -> dict[str, Any]:
    """The mean with its interval, and quantiles."""
    quantiles = {
        str(q): round(float(value), 4) for q, value in zip(QUANTILES, np.percentile(distance, QUANTILES), strict=True)
    }
    return {"n": len(distance), "distance": mean_figure(distance, resamples=RESAMPLES).rounded(), "quantiles": quantiles}


def figures(
    items: Sequence[Item], found: Nearest, renders: np.ndarray, unseen: np.ndarray, training: Sequence[Drawing]
) -> dict[str, Any]:
    """Of the pictures of one split; `renders`: the distances of its real renders, `unseen`: those of drawings of `pair`."""
    shown = [training[place] for place in found.place]
    own = [set(item.meta["drawings"]) for item in items]
    things = [{key.partition("/")[2] for key in keys} for keys in own]
    shares = {
        "nearer_than_half": found.distance < np.percentile(unseen, 50),
        "nearer_than_95_percent": found.distance < np.percentile(unseen, 5),
        "shows_its_thing": [one.thing in asked for one, asked in zip(shown, things, strict=True)],
    }
    if set.union(*own) <= {drawing.key for drawing in training}:
        shares["is_its_drawing"] = [one.key in keys for one, keys in zip(shown, own, strict=True)]
    else:
        shares["nearer_than_its_render"] = found.distance < renders
    told = {name: mean_figure(np.asarray(share), resamples=RESAMPLES).rounded() for name, share in shares.items()}
    return {**spread_of(found.distance), **told}


def sheet(
    items: Sequence[Item], pictures: Sequence[Image.Image], found: dict[str, Nearest], training: Sequence[Image.Image]
) -> Image.Image:
    triplets, captions = [], []
    for row, (item, picture) in enumerate(zip(items, pictures, strict=True)):
        triplets.append(grid([picture, *(training[found[eye].place[row]] for eye in EYES)], 1 + len(EYES)))
        captions.append(f"{item.prompt}: " + ", ".join(f"{found[eye].distance[row]:.2f}" for eye in EYES))
    return grid(triplets, ACROSS, captions)


def table(report: dict[str, Any]) -> str:
    """A line for each split of pictures and of unseen drawings, by each pair of eyes."""
    rows: list[tuple[str, ...]] = [("by", "of", "n", "5 %", "median", "95 %", *(name.replace("_", " ") for name in SHARES))]
    for eye in EYES:
        for kind in ("pictures", "unseen drawings"):
            for split, told in report[eye][kind].items():
                quantiles = (f"{told['quantiles'][q]:.3f}" for q in ("5", "50", "95"))
                shares = (f"{told[name]['value']:.2f}" if name in told else "" for name in SHARES)
                rows.append((eye, f"{kind}, {split}", str(told["n"]), *quantiles, *shares))
    return columns(rows)


def measure(args: argparse.Namespace) -> None:
    options = Options.parse(apply_overrides({}, args.options.split()), where="options")
    folder, drawings = make_folder(args.out), Drawings(args.data)
    splits = args.splits.split(",")
    items = icons_suite(drawings, samples=args.samples, size=SIZE, seed=args.seed, splits=splits)
    model, judge = load(args.model), load_judge(args.judge, judged=args.model)
    assert isinstance(model, UnCLIP), "the suite asks an unCLIP"
    painter = from_prompts(model, SIZE, options)
    pictures = paint_all(painter, items, batch=args.batch, progress=lambda done, total: note(f"{done} of {total}"))
    stream = IconStream(drawings, 0)
    training = show(stream, "train", judge)
    found = nearest(look(pictures, judge), training.seen)
    rendered = nearest(look([item.real for item in items], judge), training.seen)
    unseen = {split: nearest(show(stream, split, judge).seen, training.seen) for split in UNSEEN}
    report: dict[str, Any] = {
        "model": {"name": model.name, "version": model.source.version},
        "judge": judge.name,
        "seed": args.seed,
        "options": args.options,
        "training_drawings": len(training.drawings),
    }
    for eye in EYES:
        told = {}
        for split in dict.fromkeys(item.split for item in items):
            rows = [row for row, item in enumerate(items) if item.split == split]
            of_split = Nearest(found[eye].place[rows], found[eye].distance[rows])
            renders, base = rendered[eye].distance[rows], unseen["pair"][eye].distance
            told[split] = figures([items[row] for row in rows], of_split, renders, base, training.drawings)
        of_unseen = {split: spread_of(by_eye[eye].distance) for split, by_eye in unseen.items()}
        report[eye] = {"pictures": told, "unseen drawings": of_unseen}
    write_text(folder / "nearest.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    save_lossy([sheet(items, pictures, found, training.pictures)], folder / "nearest.webp", limit=SHEET_BYTES)
    print(table(report))


def main() -> None:
    parser = argparse.ArgumentParser(description="The training drawings that pictures are nearest to.")
    parser.add_argument("model", nargs="?", default="icons")
    parser.add_argument("--judge", help="the shipped one by default")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--samples", type=int, default=100, help="prompts of each split")
    parser.add_argument("--splits", default="train,pair")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and of the pictures")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--options", default="", help='how it samples, as "steps=12 guidance=3"')
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures and the sheet")
    measure(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(guarded(main))
