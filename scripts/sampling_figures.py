"""Ways of sampling one model side by side, by the judge, on the same prompts and seeds: one JSON object.

    python scripts/sampling_figures.py "" steps=12 "steps=12 guidance=3" --samples 200 --splits train,pair,scenes

Each way is what `unclip evaluate` takes behind the model's name, "" being the one that is saved. For each: the figures of
evaluate/score.py by split and network calls and seconds a picture; and, against the first way, the paired differences, whose
intervals are narrower than those of either. Seconds are of one run, batched, on a machine that may do other things.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unclip.cli.console import guarded, note, print_json
from unclip.config import apply_overrides
from unclip.evaluate.judge import load_judge
from unclip.evaluate.metrics import mean_figure
from unclip.evaluate.painters import from_prompts, paint_all
from unclip.evaluate.score import by_prompt
from unclip.evaluate.suite import Item, icons_suite
from unclip.images import to_tensor
from unclip.pipeline import UnCLIP, load
from unclip.request import Options
from unclip.rerank import draft_size

RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways of sampling side by side.")
    parser.add_argument("ways", nargs="+", help='as "steps=12 guidance=3"')
    parser.add_argument("--model", default="icons")
    parser.add_argument("--judge", help="the shipped one by default")
    parser.add_argument("--data", type=Path, default=Path("data/icons"))
    parser.add_argument("--samples", type=int, default=200, help="prompts of each split")
    parser.add_argument("--splits", default="train,pair,scenes")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and of the pictures")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    ways = {way: Options.parse(apply_overrides({}, way.split()), where="options") for way in args.ways}
    model, judge = load(args.model), load_judge(args.judge, judged=args.model)
    assert isinstance(model, UnCLIP), "the suite asks an unCLIP"
    splits = args.splits.split(",")
    items = icons_suite(args.data, samples=args.samples, size=judge.size, seed=args.seed, splits=splits)
    size = draft_size(model.sizes, judge.size)
    answers, told = [], {}
    for way, options in ways.items():
        began = time.perf_counter()
        answers.append(paint_all(from_prompts(model, size, options), items, batch=args.batch))
        seconds = (time.perf_counter() - began) / len(items)
        told[way] = {"calls": calls(model, size, options), "seconds": round(seconds, 4)}
        note(f"{way or 'as saved'}: {told[way]}")
    each = by_prompt(items, answers, judge)
    for way, answer, pictures in zip(ways, each, answers, strict=True):
        told[way]["splits"] = {split: figures(items, split, answer, each[0]) for split in splits}
        told[way]["off_the_first"] = round(distance(pictures, answers[0]), 5)
    print_json({"model": model.name, "judge": judge.name, "samples": args.samples, "size": size, "ways": told})


def calls(model: UnCLIP, size: int, options: Options) -> dict[str, int]:
    """Network calls of each stage for one picture."""
    counted: Counter[str] = Counter()
    model.generate("", size=size, options=options, progress=lambda stage, _: counted.update([stage]))
    return dict(counted)


def figures(items: list[Item], split: str, answer: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of one split, each figure and what it has more than the first way's."""
    rows = np.array([item.split == split for item in items])
    told: dict[str, Any] = {"n": int(rows.sum())}
    for name, values in answer.items():
        asked = rows & ~np.isnan(values)
        if asked.any():
            told[name] = mean_figure(values[asked], resamples=RESAMPLES).rounded()
            told[f"{name}, more"] = mean_figure((values - first[name])[asked], resamples=RESAMPLES).rounded()
    return told


def distance(pictures: list[Image.Image], others: list[Image.Image]) -> float:
    """The mean absolute difference of two answers' pixels, in [-1, 1]."""
    gaps = [(to_tensor([one]) - to_tensor([other])).abs().mean().item() for one, other in zip(pictures, others, strict=True)]
    return float(np.mean(gaps))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
