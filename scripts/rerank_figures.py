"""What choosing the best of N by the model's own CLIP gains, as the judge sees it: one JSON object.

    python scripts/rerank_figures.py --model icons --data data/icons --prompts 60

Of each prompt so many pictures are painted at 64 px as the largest N; those of the smaller N are the first of them. For each
N: the judge's right caption among 100 and its counterfactual choice (evaluate/score.py), its cosine between picture and
caption, and the climbed one, the cosine of the CLIP that chose. `real` is what renders score. Intervals are over prompts.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unclip.cli.console import guarded, note, print_json
from unclip.clip import unit
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import mean_figure
from unclip.evaluate.score import score
from unclip.evaluate.suite import Item, icons_suite
from unclip.pipeline import UnCLIP, load
from unclip.rerank import draft_size

SPLITS = ("pair", "scenes", "scenes-held-out")
RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="The gain of the best of N, by an independent judge.")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--judge", help="The shipped one by default.")
    parser.add_argument("--data", type=Path, default=Path("data/icons"))
    parser.add_argument("--prompts", type=int, default=60, help="Of each split.")
    parser.add_argument("--most", type=int, default=64, help="The largest N; the others are the powers of two below it.")
    parser.add_argument("--splits", default=",".join(SPLITS))
    args = parser.parse_args()
    model, judge = load(args.model), load_judge(args.judge, judged=args.model)
    assert isinstance(model, UnCLIP), "a GLIDE has no CLIP that chooses"
    items = icons_suite(args.data, samples=args.prompts, size=judge.size, splits=args.splits.split(","))
    pictures = [paint(model, item, args.most, number, len(items)) for number, item in enumerate(items)]
    climbed = [cosines(model, item, made) for item, made in zip(items, pictures, strict=True)]
    counts = [1 << power for power in range(args.most.bit_length())]
    rows = {str(count): figures(items, pictures, climbed, judge, min(count, args.most)) for count in counts}
    print_json({"model": model.name, "judge": judge.name, "prompts": args.prompts, "among": rows})


def paint(model: UnCLIP, item: Item, count: int, number: int, total: int) -> list[Image.Image]:
    """The candidates, of the item's seed and the next ones."""
    note(f"{number + 1} of {total}: {item.prompt}")
    size = draft_size(model.sizes, model.eyes().size)
    return model.generate(item.prompt, n=count, seed=item.seed, size=size, exact=False)


def cosines(model: UnCLIP, item: Item, pictures: Sequence[Image.Image]) -> Tensor:
    """What the model's own CLIP says of each."""
    eyes = model.eyes()
    return unit(eyes.images(pictures)) @ unit(eyes.texts([item.prompt]))[0]


def figures(
    items: list[Item], pictures: list[list[Image.Image]], climbed: list[Tensor], judge: ClipJudge, count: int
) -> dict[str, Any]:
    """By split, of the best of the first `count` of each item."""
    best = [int(torch.argmax(scores[:count])) for scores in climbed]
    chosen = [made[place] for made, place in zip(pictures, best, strict=True)]
    report, _ = score(items, chosen, judge, resamples=RESAMPLES)
    seen = (judge.images(chosen) * judge.texts([item.prompt for item in items])).sum(axis=1)
    own = np.array([float(scores[place]) for scores, place in zip(climbed, best, strict=True)])
    told: dict[str, Any] = {}
    for split, group in report.items():
        rows = [i for i, item in enumerate(items) if item.split == split]
        told[split] = {
            **{name: group["generated"][name] for name in ("top1", "choice")},
            "judged_cosine": mean_figure(seen[rows], resamples=RESAMPLES).rounded(),
            "climbed_cosine": mean_figure(own[rows], resamples=RESAMPLES).rounded(),
            "real": {name: group["real"][name]["value"] for name in ("top1", "choice")},
        }
    return told


if __name__ == "__main__":
    raise SystemExit(guarded(main))
