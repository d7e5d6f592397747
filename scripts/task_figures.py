"""How well the tasks keep what they promise, on held-out drawings: one JSON object of figures with their 95 % intervals.

    python scripts/task_figures.py --data data/icons --judge runs/icons-judge

reconstruct   PSNR and cosine of z of a picture drawn from its own (z, x_T), in 50 steps and, of fewer pictures, in 250
variations    1 - cosine between the z of one picture's variations, and their cosine to its z, by eta
interpolate   share of pairs over whose nine frames the cosine to one end never rises and to the other never falls
text_diff     cosine between the judge's change of the picture and of the caption, by theta, and the share where it rises

Pictures are painted in batches at 64 px: the second figures of `reconstruct` are at that size. The judge never saw the
model's CLIP, and gives the change of the picture from its own reconstruction, theta 0.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip import tasks
from unclip.cli.console import guarded, note, print_json
from unclip.data.icons.canvas import BACKGROUNDS
from unclip.data.icons.captions import STYLE_PHRASES
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import mean_figure
from unclip.evaluate.suite import Item, icons_suite
from unclip.images import psnr, resize, to_images, to_tensor
from unclip.pipeline import UnCLIP, load
from unclip.request import AS_SAVED, Options, retracing
from unclip.rng import Rng

SIZE, BATCH = 64, 16
SPLIT = "pair"  # things that training shows in other styles
ETAS = (0.25, 0.5, 1.0)
THETAS = (0.1, 0.25, 0.4)


class Known(NamedTuple):
    """The held-out pictures and their pairs."""

    items: list[Item]
    z: Tensor
    x_T: Tensor  # noqa: N815


def figure(values: Sequence[float] | Tensor | np.ndarray) -> dict[str, float]:
    return mean_figure(np.asarray(values, dtype=float), resamples=1000).rounded()


def paint(model: UnCLIP, z: Tensor, seeds: Sequence[int], x_T: Tensor | None = None, options: Options = AS_SAVED):
    """Images of z (N, E) at 64 px, so many at a time."""
    made: list[Image.Image] = []
    for rows in (slice(start, start + BATCH) for start in range(0, len(z), BATCH)):
        own = None if x_T is None else x_T[rows]
        made += model.paint(z[rows], seeds[rows], x_T=own, size=SIZE, options=options, exact=False)
    return made


def pairs(model: UnCLIP, items: list[Item], options: Options) -> Known:
    z = model.embed([item.real for item in items])
    x0 = model.pixels([item.real for item in items])
    inverted = [model.invert(*rows, options=options) for rows in zip(x0.split(BATCH), z.split(BATCH), strict=True)]
    return Known(items, z, torch.cat(inverted))


def reconstruct(model: UnCLIP, known: Known, options: Options) -> dict[str, Any]:
    back, seeds = retracing(options), range(len(known.items))
    small = torch.cat(
        [
            model.decode(z, Rng(range(len(z)), device=model.device), x_T=x_T, options=back)
            for z, x_T in zip(known.z.split(BATCH), known.x_T.split(BATCH), strict=True)
        ]
    )
    real = [item.real for item in known.items]
    large = to_images(model.upsample(small, SIZE, Rng(seeds, device=model.device)))
    return {
        "n": len(real),
        "psnr_at_decoder": figure(psnr(small.clamp(-1, 1), model.pixels(real)).cpu()),
        f"psnr_at_{SIZE}": figure(psnr(to_tensor(large), resize(to_tensor(real), SIZE))),
        "cosine": figure(F.cosine_similarity(known.z, model.embed(large)).cpu()),
        "x_T_std": round(known.x_T.std().item(), 4),
    }


def variations(model: UnCLIP, known: Known, count: int, n: int = 3) -> dict[str, Any]:
    z, x_T = (part[:count].repeat_interleave(n, dim=0) for part in (known.z, known.x_T))
    seeds = list(range(n)) * count
    report: dict[str, Any] = {"n": count, "of_each": n}
    for eta in (*ETAS, None):
        how = AS_SAVED if eta is None else retracing(Options(eta=eta))
        seen = model.embed(paint(model, z, seeds, None if eta is None else x_T, how)).view(count, n, -1)
        among = F.cosine_similarity(seen[:, :, None], seen[:, None], dim=-1).sum((1, 2)) - n
        report["fresh x_T" if eta is None else f"eta {eta}"] = {
            "spread": figure(1 - among / (n * (n - 1))),
            "cosine_to_source": figure(F.cosine_similarity(seen, known.z[:count, None], dim=-1).mean(1)),
        }
    unit = F.normalize(known.z)
    others = (unit @ unit.T).sum() - len(unit)
    report["cosine_of_different_icons"] = round((others / (len(unit) * (len(unit) - 1))).item(), 4)
    return report


def interpolate(model: UnCLIP, known: Known, count: int, frames: int = 9) -> dict[str, Any]:
    """Pairs i, i + 1 + i // N of the N pictures, one noise a pair, the model's own sampling in ten steps."""
    size = len(known.z)
    ends = [(i % size, (i + 1 + i // size) % size) for i in range(count)]
    places = [frame / (frames - 1) for frame in range(frames)]
    z = torch.cat([tasks.along(known.z[list(pair)], places) for pair in ends])
    seeds = [i for i in range(count) for _ in places]
    seen = model.embed(paint(model, z, seeds, None, Options(steps=10))).view(count, frames, -1)
    first, last = (F.cosine_similarity(seen, known.z[[pair[k] for pair in ends], None], dim=-1).cpu() for k in (0, 1))
    steps = torch.cat([-first.diff(dim=1), last.diff(dim=1)], dim=1)
    return {
        "n": count,
        "monotone": figure((steps > 0).all(1).double()),
        "right_steps": figure((steps > 0).double().mean(1)),
        "ends_closer": figure(((first[:, 0] > first[:, -1]) & (last[:, -1] > last[:, 0])).double()),
    }


def text_diff(model: UnCLIP, known: Known, judge: ClipJudge) -> dict[str, Any]:
    old = [item.prompt for item in known.items]
    new = [changed(item, i) for i, item in enumerate(known.items)]
    texts = [F.normalize(model.encode_text(words).pooled) for words in (old, new)]
    directions = F.normalize(texts[1] - texts[0])
    told = judge.texts(new) - judge.texts(old)
    told /= np.linalg.norm(told, axis=1, keepdims=True)
    features = []
    for theta in (0.0, *THETAS):
        moved = [tasks.slerp(z, z.norm() * d, theta) for z, d in zip(known.z, directions, strict=True)]
        made = paint(model, torch.stack(moved), [0] * len(moved), known.x_T, retracing(AS_SAVED))
        features.append(judge.images(made))
    change = np.stack(features[1:]) - features[0]
    along = (change * told).sum(-1)
    cosine = along / np.linalg.norm(change, axis=-1).clip(min=1e-9)
    background = np.array([i % 2 == 0 for i in range(len(old))])
    return {
        "n": len(old),
        "directional_similarity": {f"theta {t}": figure(row) for t, row in zip(THETAS, cosine, strict=True)},
        "rises_at_every_theta": figure((np.diff(cosine, axis=0) > 0).all(0)),
        "rises_from_first_to_last": figure(cosine[-1] > cosine[0]),
        "projection_rises_at_every_theta": figure((np.diff(along, axis=0) > 0).all(0)),
        "background_rises_from_first_to_last": figure((cosine[-1] > cosine[0])[background]),
        "style_rises_from_first_to_last": figure((cosine[-1] > cosine[0])[~background]),
        "examples": [*zip(old, new, strict=True)][:4],
    }


def changed(item: Item, number: int) -> str:
    """A caption of the same thing, on a background for even numbers, in another style for odd ones."""
    if number % 2 == 0:
        colours = sorted(BACKGROUNDS)
        return f"{item.prompt} on a {colours[number // 2 % len(colours)]} background"
    phrases = [phrases[0] for style, phrases in STYLE_PHRASES.items() if style != item.meta["style"]]
    own = next(phrase for phrase in STYLE_PHRASES[item.meta["style"]] if item.prompt.startswith(phrase))
    return phrases[number // 2 % len(phrases)] + item.prompt.removeprefix(own)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    model = load(args.model)
    assert isinstance(model, UnCLIP), "the tasks ask an unCLIP"
    items = icons_suite(args.data, samples=args.icons, size=SIZE, splits=[SPLIT])
    known = pairs(model, items, AS_SAVED)
    report: dict[str, Any] = {"model": model.name, "split": SPLIT, "judge": str(args.judge.name)}
    long = Options(steps=250)
    for name, figures in (
        ("reconstruct_50", lambda: reconstruct(model, known, AS_SAVED)),
        ("reconstruct_250", lambda: reconstruct(model, pairs(model, items[: args.long], long), long)),
        ("variations", lambda: variations(model, known, args.varied)),
        ("interpolate", lambda: interpolate(model, known, args.pairs)),
        ("text_diff", lambda: text_diff(model, known, load_judge(args.judge))),
    ):
        report[name] = figures()
        note(f"{name}: {report[name]}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of the tasks on held-out icons.")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--judge", type=Path, default=Path("runs/icons-judge"), help="the folder of one trained apart")
    parser.add_argument("--icons", type=int, default=64, help="held-out pictures")
    parser.add_argument("--long", type=int, default=64, help="of them also inverted in 250 steps")
    parser.add_argument("--varied", type=int, default=16, help="of them varied")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of them to go between")
    print_json(measure(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
