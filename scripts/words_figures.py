"""What reading words is worth, by the judge: prompts in words that no caption says, as typed and as read. One JSON object.

    python scripts/words_figures.py --model icons --data data/icons --each 40 --steps 10 --sheet words.png

The prompts are taken by rule: of each source of words.json (synonym, kind, keyword, feeling) `--each` words, evenly spaced
in the alphabet, with the canonical phrase of a style in which training shows the thing. Both pictures have the same seed.
What is judged is whether the caption of the thing that is meant is the best of itself and 99 of other drawings. Intervals
are bootstrapped over prompts; `gain` is that of the difference.
"""

import argparse
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from unclip.cli.console import guarded, note, print_json
from unclip.data.icons.captions import STYLE_PHRASES, canonical
from unclip.data.icons.drawings import Drawings
from unclip.data.icons.english import with_article
from unclip.data.icons.selection import Drawing
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import credit, mean_figure
from unclip.images import grid, save_png
from unclip.pipeline import UnCLIP, load
from unclip.request import Options
from unclip.words import Words

SOURCES = ("synonym", "kind", "keyword", "feeling")
RESAMPLES, DISTRACTORS, BATCH = 1000, 99, 20


class Asked(NamedTuple):
    """A prompt, the drawing that is meant, and captions of others."""

    source: str
    prompt: str
    meant: Drawing
    distractors: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Words that training never said, as typed and as read.")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--judge", help="The shipped one by default.")
    parser.add_argument("--data", type=Path, default=Path("data/icons"))
    parser.add_argument("--each", type=int, default=40, help="Words of each source.")
    parser.add_argument("--steps", type=int, default=10, help="Of the decoder.")
    parser.add_argument("--sheet", type=Path, help="Write a dozen of them here: as typed above, as read below.")
    args = parser.parse_args()
    model, judge = load(args.model), load_judge(args.judge, judged=args.model)
    assert isinstance(model, UnCLIP), "a GLIDE comes without words"
    assert model.words is not None, "this model comes without words"
    asked = prompts(model.words, Drawings(args.data).listing, args.each)
    painted = {way: paint(model, asked, args.steps, way) for way in ("typed", "read")}
    seen = {way: np.array(marks(asked, pictures, judge)) for way, pictures in painted.items()}
    if args.sheet:
        save_png(sheet(asked, painted), args.sheet)
    groups = {"all": list(range(len(asked)))}
    groups |= {source: [i for i, one in enumerate(asked) if one.source == source] for source in SOURCES}
    told = {name: figures({way: values[rows] for way, values in seen.items()}) for name, rows in groups.items() if rows}
    print_json({"model": model.name, "judge": judge.name, "steps": args.steps, "top1": told})


def prompts(words: Words, listing: list[Drawing], each: int) -> list[Asked]:
    """`each` prompts a source, or as many as there are."""
    shown: dict[str, list[Drawing]] = {}
    for drawing in listing:
        if drawing.kept and drawing.split == "train":
            shown.setdefault(drawing.names[0], []).append(drawing)
    everything = [drawing for drawings in shown.values() for drawing in drawings]
    asked = []
    for source in SOURCES:
        pairs = sorted((word, name) for name, others in words.readings.get(source, {}).items() for word in others)
        for place in np.linspace(0, len(pairs) - 1, min(each, len(pairs))).round().astype(int):
            word, name = pairs[place]
            rng = Random(f"{source} {word}")
            meant = rng.choice(shown[name])
            others = [canonical(one) for one in rng.sample(everything, 2 * DISTRACTORS) if one.names[0] != name]
            prompt = f"{STYLE_PHRASES[meant.style][0]} {with_article(word)}"
            asked.append(Asked(source, prompt, meant, others[:DISTRACTORS]))
    return asked


def paint(model: UnCLIP, asked: list[Asked], steps: int, way: str) -> list[Image.Image]:
    """A picture at the judge's side for each prompt, its seed its place."""
    options = Options(steps=steps, as_typed=True if way == "typed" else None)
    pictures: list[Image.Image] = []
    for start in range(0, len(asked), BATCH):
        some = [one.prompt for one in asked[start : start + BATCH]]
        seeds = list(range(start, start + len(some)))
        pictures += model.generate(some, seed=seeds, size=64, options=options, candidates=1, exact=False)
        note(f"{way}: {len(pictures)} of {len(asked)}")
    return pictures


def marks(asked: list[Asked], pictures: list[Image.Image], judge: ClipJudge) -> list[float]:
    """Whether the judge prefers the caption that is meant, a share where captions tie."""
    found = []
    for one, x in zip(asked, judge.images(pictures), strict=True):
        own, *others = judge.texts([canonical(one.meant), *one.distractors]) @ x
        found.append(credit(own, np.array(others)))
    return found


def figures(seen: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of each way, and of what one has over the other."""
    told = {way: mean_figure(values, resamples=RESAMPLES).rounded() for way, values in seen.items()}
    gain = mean_figure(seen["read"] - seen["typed"], resamples=RESAMPLES).rounded()
    return {"n": len(seen["read"]), **told, "gain": gain}


def sheet(asked: list[Asked], painted: dict[str, list[Image.Image]]) -> Image.Image:
    """Twelve, evenly spaced: four a row as typed, below each as read."""
    chosen = np.linspace(0, len(asked) - 1, 12).round().astype(int)
    pictures, labels = [], []
    for row in range(0, 12, 4):
        for way in ("typed", "read"):
            some = chosen[row : row + 4]
            pictures += [painted[way][i] for i in some]
            settings = [painted[way][i].info["unclip"] for i in some]
            labels += [made.get("read", made["prompt"]) for made in settings]
    return grid(pictures, 4, labels)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
