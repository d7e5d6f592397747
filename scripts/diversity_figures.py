"""Whether many seeds of one prompt are many pictures: their distances beside those between real drawings of the thing.

    python scripts/diversity_figures.py icons --data data/icons --out out/diversity
    python scripts/diversity_figures.py icons --data data/icons --out out/diversity --options "" "guidance=1"

Of each of `--prompts` things, which all four styles draw and training names, 16 pictures are painted at 64 px, seeds 0 to
15: of "a thing", and of the thing in one of the styles in turn, which leaves less open. Their mean pairwise distance, by the
judge and by pixels (evaluate/distances.py), stands beside that between the four real drawings. Pictures of nothing at all
are far apart as well: whether the thing is in them, `unclip evaluate` says.

`ratio` is that of the means over prompts, `at least half` the share of prompts whose own ratio is .5 or more, both with 95 %
bootstrap intervals. A table is printed; `--out` gets diversity.json, and diversity.webp with the first eight things: the
drawings left, the pictures of the first way right. Ways of sampling are what `unclip evaluate` takes behind a model's name.
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
from unclip.data.icons.captions import STYLE_PHRASES
from unclip.data.icons.drawings import Drawings
from unclip.data.icons.english import with_article
from unclip.data.icons.selection import Drawing
from unclip.data.order import Order
from unclip.errors import RequestError
from unclip.evaluate.distances import EYES, distances, look, spread
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import mean_figure, ratio_figure
from unclip.files import write_text
from unclip.images import grid, make_folder, save_lossy
from unclip.pipeline import UnCLIP, load
from unclip.request import Options

SIZE, SEEDS, RESAMPLES = 64, 16, 2000
ENOUGH = 0.5  # of the drawings' distance
SHOWN, SHEET_BYTES = 8, 1_000_000
KINDS = ("bare", "in a style")


class Thing(NamedTuple):
    """What is asked for, and its real drawings in the order of STYLE_PHRASES."""

    name: str
    style: str  # that a prompt names if it names one
    drawings: list[Image.Image]

    def prompt(self, kind: str) -> str:
        said = with_article(self.name)
        return said if kind == "bare" else f"{STYLE_PHRASES[self.style][0]} {said}"


def drawn_by_all(listing: Sequence[Drawing]) -> list[dict[str, Drawing]]:
    """The drawings by style of each thing that is drawn in all styles, in training in at least one."""
    things: dict[str, dict[str, Drawing]] = {}
    for drawing in listing:
        things.setdefault(drawing.thing, {})[drawing.style] = drawing
    return [
        by_style
        for by_style in things.values()
        if by_style.keys() == STYLE_PHRASES.keys() and any(one.split == "train" for one in by_style.values())
    ]


def choose(stream: IconStream, count: int, seed: int) -> list[Thing]:
    """The first `count` things in an order that `seed` decides; RequestError when there are not so many."""
    found, styles = drawn_by_all(stream.listing()), list(STYLE_PHRASES)
    if not 1 <= count <= len(found):
        raise RequestError(f"--prompts {count}: expected from 1 to {len(found)}, the things that all four styles draw")
    order = Order(len(found), seed)
    chosen = []
    for place in range(count):
        by_style = found[order(place)]
        shown = [Image.fromarray(stream.canonical(by_style[style].index, SIZE).image) for style in styles]
        chosen.append(Thing(by_style[styles[0]].names[0], styles[place % len(styles)], shown))
    return chosen


def paint(model: UnCLIP, things: list[Thing], kind: str, options: Options) -> list[list[Image.Image]]:
    """Of each thing the pictures of seeds 0 to 15, in one batch."""
    made = []
    for number, thing in enumerate(things, start=1):
        made.append(model.generate(thing.prompt(kind), n=SEEDS, size=SIZE, options=options, exact=False))
        note(f"{number} of {len(things)}: {thing.prompt(kind)}")
    return made


def apart(sets: Sequence[Sequence[Image.Image]], judge: ClipJudge) -> dict[str, np.ndarray]:
    """The mean distance between two pictures of each set, (sets,), by each pair of eyes."""
    seen = [look(pictures, judge) for pictures in sets]
    tables = [distances(one, one) for one in seen]
    return {eye: np.array([spread(table[eye]) for table in tables]) for eye in EYES}


def figures(pictures: np.ndarray, drawings: np.ndarray) -> dict[str, Any]:
    """Of the distances between pictures and between drawings of each prompt."""
    return {
        "pictures": mean_figure(pictures, resamples=RESAMPLES).rounded(),
        "drawings": mean_figure(drawings, resamples=RESAMPLES).rounded(),
        "ratio": ratio_figure(pictures, drawings, resamples=RESAMPLES).rounded(),
        "at_least_half": mean_figure(pictures >= ENOUGH * drawings, resamples=RESAMPLES).rounded(),
        "by_prompt": [round(float(ratio), 4) for ratio in pictures / drawings],
    }


def sheet(things: list[Thing], made: list[list[Image.Image]], told: dict[str, Any]) -> Image.Image:
    """The first things, a row each, and under it what their ratios are."""
    blank = Image.new("RGB", (SIZE, SIZE), "white")
    shown = [*zip(things, made, strict=True)][:SHOWN]
    rows = [grid([*thing.drawings, blank, *pictures], len(thing.drawings) + 1 + SEEDS) for thing, pictures in shown]
    captions = [
        f"{thing.prompt('bare')}: " + ", ".join(f"{told[eye]['by_prompt'][place]:.2f} by {eye}" for eye in EYES)
        for place, (thing, _) in enumerate(shown)
    ]
    return grid(rows, 1, captions)


def table(ways: dict[str, dict[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [("way", "prompt", "by", "16 pictures", "4 drawings", "ratio", "at least half")]
    for way, kinds in ways.items():
        for kind, told in kinds.items():
            for eye, found in told.items():
                cells = (_cell(found[name]) for name in ("pictures", "drawings", "ratio", "at_least_half"))
                rows.append((way or "as saved", kind, eye, *cells))
    return columns(rows)


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def measure(args: argparse.Namespace) -> None:
    ways = {way: Options.parse(apply_overrides({}, way.split()), where="options") for way in args.options}
    folder = make_folder(args.out)
    things = choose(IconStream(Drawings(args.data), 0), args.prompts, args.seed)
    model, judge = load(args.model), load_judge(args.judge, judged=args.model)
    assert isinstance(model, UnCLIP), "the figures ask an unCLIP"
    drawings = apart([thing.drawings for thing in things], judge)
    told: dict[str, dict[str, Any]] = {way: {} for way in ways}
    for way, options in ways.items():
        for kind in KINDS:
            made = paint(model, things, kind, options)
            pictures = apart(made, judge)
            told[way][kind] = {eye: figures(pictures[eye], drawings[eye]) for eye in EYES}
            if way == args.options[0] and kind == KINDS[0]:
                save_lossy([sheet(things, made, told[way][kind])], folder / "diversity.webp", limit=SHEET_BYTES)
    report = {
        "model": {"name": model.name, "version": model.source.version},
        "judge": judge.name,
        "seed": args.seed,
        "things": [thing.name for thing in things],
        "ways": told,
    }
    write_text(folder / "diversity.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(table(told))


def main() -> None:
    parser = argparse.ArgumentParser(description="How different the pictures of one prompt are.")
    parser.add_argument("model", nargs="?", default="icons")
    parser.add_argument("--judge", help="the shipped one by default")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of things")
    parser.add_argument("--options", nargs="+", default=[""], help='ways of sampling, as "steps=12 guidance=3"')
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures and the sheet")
    measure(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(guarded(main))
