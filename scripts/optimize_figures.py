"""Why a prior: pictures of the same prompts by the chain, from text embeddings, and by gradient alone, and who likes them.

    python scripts/optimize_figures.py --data data/icons --keep pictures --out docs/why-a-prior

The prompts are the first of the suite's `pair` and `train` (seed 0), nothing is picked by hand. Of each way: the mean
cosine of picture and prompt, and the right caption among 100, by the CLIP that was climbed, which is the model's, and by the
judge, which was trained apart. Prints one JSON object and draws a sheet, a row a way. With `--keep`, pictures that are there
are not made again.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unclip.cli.console import guarded, note, print_json
from unclip.clip import unit
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import mean_figure
from unclip.evaluate.score import score
from unclip.evaluate.suite import Item, icons_suite
from unclip.images import grid, make_folder, save_png
from unclip.models.clip import Text
from unclip.optimize.climb import Ascent, optimize
from unclip.pipeline import UnCLIP, load

SPLITS = ("pair", "train")
SIZE = 64
AMONG = 300  # training drawings, which say where the two clouds lie
RESAMPLES = 1000
STEPS = 200
SHOWN = 6  # prompts of a split on the sheet
COLOURS = 128  # of its PNG: noise is large


class Painter:
    """The ways from a prompt to a picture; the same seed, and so the same noise, in all of them."""

    def __init__(self, model: UnCLIP, known: Sequence[Item]):
        self.model, self.clip = model, model.eyes()
        pictures = unit(self.clip.images([item.real for item in known]))
        captions = unit(self.clip.texts([item.prompt for item in known]))
        self.gap = pictures.mean(dim=0) - captions.mean(dim=0)

    def imagine(self, item: Item) -> tuple[Text, Tensor]:
        return self.model.imagine([item.prompt], [item.seed])

    def paint(self, z: Tensor, item: Item, text: Text | None) -> Image.Image:
        return self.model.paint(z, [item.seed], text=text, size=SIZE)[0]

    def chain(self, item: Item) -> Image.Image:
        text, z = self.imagine(item)
        return self.paint(z, item, text)

    def chain_without_caption(self, item: Item) -> Image.Image:
        return self.paint(self.imagine(item)[1], item, None)

    def text_embedding(self, item: Item) -> Image.Image:
        """In the place of the prior's z, and as long."""
        text, z = self.imagine(item)
        return self.paint(unit(text.pooled) * z.norm(), item, text)

    def text_embedding_without_caption(self, item: Item) -> Image.Image:
        text, z = self.imagine(item)
        return self.paint(unit(text.pooled) * z.norm(), item, None)

    def moved_text_embedding(self, item: Item) -> Image.Image:
        """Moved by what lies between the means of the two clouds."""
        text, z = self.imagine(item)
        return self.paint(unit(unit(text.pooled) + self.gap) * z.norm(), item, text)

    def climb(self, item: Item, **how: Any) -> Image.Image:
        *_, last = optimize(self.clip, item.prompt, seed=item.seed, how=Ascent(steps=STEPS, size=SIZE, **how))
        return last.image()

    def pixels_one_view(self, item: Item) -> Image.Image:
        return self.climb(item, basis="pixels", views=1, strength=0)

    def pixels(self, item: Item) -> Image.Image:
        return self.climb(item, basis="pixels")

    def fourier(self, item: Item) -> Image.Image:
        return self.climb(item, basis="fourier")

    @property
    def ways(self) -> dict[str, Callable[[Item], Image.Image]]:
        ways = (self.chain, self.text_embedding, self.moved_text_embedding)
        ways += (self.chain_without_caption, self.text_embedding_without_caption)
        ways += (self.pixels_one_view, self.pixels, self.fourier)
        return {way.__name__: way for way in ways}


def figures(items: Sequence[Item], ways: dict[str, list[Image.Image]], judge: ClipJudge) -> dict[str, Any]:
    """Of each way, over all prompts: the mean cosine, how much it is above the first way's, the right caption among 100."""
    alike, texts = [replace(item, split="all") for item in items], judge.texts([item.prompt for item in items])
    cosines = {way: (judge.images(pictures) * texts).sum(axis=1) for way, pictures in ways.items()}
    first = next(iter(cosines.values()))
    return {
        way: {
            "cosine": mean_figure(cosines[way], resamples=RESAMPLES).rounded(),
            "above_the_first": mean_figure(cosines[way] - first, resamples=RESAMPLES).rounded(),
            "top1": score(alike, pictures, judge, resamples=RESAMPLES)[0]["all"]["generated"]["top1"],
        }
        for way, pictures in ways.items()
    }


def sheet(items: Sequence[Item], ways: dict[str, list[Image.Image]], each: int) -> Image.Image:
    """A row a way, of the first prompts of each split; prompts stand under the first row, ways under the first column."""
    columns = [i for split in SPLITS for i in [i for i, item in enumerate(items) if item.split == split][:each]]
    words = [items[i].prompt for i in columns]
    for way in list(ways)[1:]:
        words += [way.replace("_", " "), *[""] * (len(columns) - 1)]
    return grid([pictures[i] for pictures in ways.values() for i in columns], len(columns), words)


def made(way: Callable[[Item], Image.Image], items: Sequence[Item], keep: Path | None) -> list[Image.Image]:
    pictures = []
    for number, item in enumerate(items):
        path = None if keep is None else keep / f"{way.__name__}-{number:02d}.png"
        if path is not None and path.exists():
            with Image.open(path) as kept:
                pictures.append(kept.convert("RGB"))
            continue
        note(f"{way.__name__}: {number + 1} of {len(items)}, {item.prompt}")
        pictures.append(way(item))
        if path is not None:
            save_png(pictures[-1], path)
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures by the chain, from text embeddings, and by gradient alone.")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--judge", help="the shipped one by default")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--prompts", type=int, default=12, help="of each split")
    parser.add_argument("--ways", help="some of them, with commas; all by default")
    parser.add_argument("--keep", type=Path, help="a folder for the single pictures")
    parser.add_argument("--out", type=Path, help="a folder for the sheet")
    args = parser.parse_args()
    torch.set_num_threads(min(torch.get_num_threads(), 2))
    model, judge = load(args.model), load_judge(args.judge, judged=args.model)
    assert isinstance(model, UnCLIP), "a GLIDE has no z"
    items = icons_suite(args.data, samples=args.prompts, size=SIZE, splits=SPLITS)
    keep = None if args.keep is None else make_folder(args.keep)
    painter = Painter(model, icons_suite(args.data, samples=AMONG, size=SIZE, splits=["train"]))
    chosen = painter.ways if args.ways is None else {name: painter.ways[name] for name in args.ways.split(",")}
    pictures = {name: made(way, items, keep) for name, way in chosen.items()}
    if args.out is not None:
        save_png(sheet(items, pictures, SHOWN).quantize(COLOURS), make_folder(args.out) / "ways.png")
    ways = {**pictures, "real": [item.real for item in items]}
    told = {name: figures(items, ways, one) for name, one in (("climbed", ClipJudge(painter.clip)), ("judge", judge))}
    print_json({"model": model.name, "judge": judge.name, "prompts": [item.prompt for item in items], **told})


if __name__ == "__main__":
    raise SystemExit(guarded(main))
