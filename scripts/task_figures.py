"""How well the tasks keep what they promise, on held-out drawings: one JSON object of figures with their 95 % intervals.

    python scripts/task_figures.py --model runs/icons --data data/icons --judge icons-judge

reconstruct   PSNR and cosine of z of a picture drawn from its own (z, x_T), in 50 and in 250 steps
variations    1 - cosine between the z of one picture's variations, and their cosine to its z, by eta; what eta adds, paired
interpolate   share of pairs over whose nine frames the cosine to one end only falls and to the other only rises
text_diff     cosine between the judge's change of the picture and of the caption, by theta, and the share where it rises

Interpolation and text_diff are told for both paces, interpolation by both pairs of eyes. What is painted at the pace that is
seen was chosen by the model's CLIP so that none goes back: its own figure says how far that succeeds, the judge's how much
of it is really there. The judge never saw the model's CLIP, and gives the change of a picture from its reconstruction.

The pictures are the first of the split in the suite's order; what the tasks' defaults were chosen on are the 200th to the
299th. All is painted in batches at 64 px, the last three in `--steps` steps.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip import tasks, ways
from unclip.cli.console import guarded, note, print_json
from unclip.data.icons.canvas import BACKGROUNDS
from unclip.data.icons.captions import STYLE_PHRASES
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.metrics import mean_figure
from unclip.evaluate.suite import Item, icons_suite
from unclip.images import psnr, resize, to_images, to_tensor
from unclip.models.clip import Text
from unclip.pipeline import UnCLIP, load
from unclip.request import AS_SAVED, Options, retracing
from unclip.rng import Rng

SIZE, BATCH, FRAMES = 64, 32, 9
SPLIT = "pair"  # things that training shows in other styles
ETAS = (0.25, 0.5, 1.0)
SLACK = 0.02  # a cosine that goes back by no more is let pass in the second figure


class Known(NamedTuple):
    """The held-out pictures and their pairs."""

    items: list[Item]
    z: Tensor
    x_T: Tensor  # noqa: N815

    def first(self, count: int) -> "Known":
        return Known(self.items[:count], self.z[:count], self.x_T[:count])


def figure(values: Sequence[float] | Tensor | np.ndarray) -> dict[str, float]:
    return mean_figure(np.asarray(values, dtype=float), resamples=1000).rounded()


def draw(
    model: UnCLIP,
    z: Tensor,
    seeds: Sequence[int],
    x_T: Tensor | None = None,
    layout: Tensor | None = None,
    text: Text | None = None,
    options: Options = AS_SAVED,
) -> Tensor:
    """Pictures of z (N, E) at the decoder's side, so many at a time; from their own x_T, layout, text, if they have any."""
    made = []
    for rows in (slice(start, start + BATCH) for start in range(0, len(z), BATCH)):
        begun, drawn = (None if part is None else part[rows] for part in (x_T, layout))
        rng, told = Rng(seeds[rows], device=model.device), None if text is None else text.select(rows)
        made.append(model.decode(z[rows], rng, text=told, x_T=begun, layout=drawn, options=options))
    return torch.cat(made)


def enlarge(model: UnCLIP, small: Tensor, seeds: Sequence[int]) -> list[Image.Image]:
    batches = [slice(start, start + 4 * BATCH) for start in range(0, len(small), 4 * BATCH)]
    made = [model.upsample(small[rows], SIZE, Rng(seeds[rows], device=model.device)) for rows in batches]
    return [image for x in made for image in to_images(x)]


def look(model: UnCLIP, pictures: Sequence[Image.Image]) -> Tensor:
    """z (N, E)."""
    return torch.cat([model.embed(pictures[start : start + 128]) for start in range(0, len(pictures), 128)]).cpu()


def known_pairs(model: UnCLIP, items: list[Item], options: Options) -> Known:
    z = model.embed([item.real for item in items])
    x0 = model.pixels([item.real for item in items])
    inverted = [model.invert(*rows, options=options) for rows in zip(x0.split(BATCH), z.split(BATCH), strict=True)]
    return Known(items, z, torch.cat(inverted))


def reconstruct(model: UnCLIP, items: list[Item], options: Options) -> dict[str, Any]:
    known, seeds = known_pairs(model, items, options), range(len(items))
    small = draw(model, known.z, seeds, known.x_T, options=retracing(options))
    real, large = [item.real for item in items], enlarge(model, small, seeds)
    return {
        "n": len(real),
        "psnr_at_decoder": figure(psnr(small.clamp(-1, 1), model.pixels(real)).cpu()),
        f"psnr_at_{SIZE}": figure(psnr(to_tensor(large), resize(to_tensor(real), SIZE))),
        "cosine": figure(F.cosine_similarity(known.z.cpu(), look(model, large))),
        "x_T_std": round(known.x_T.std().item(), 4),
    }


def variations(model: UnCLIP, known: Known, options: Options, n: int = 4) -> dict[str, Any]:
    count = len(known.z)
    z, x_T = (part.repeat_interleave(n, dim=0) for part in (known.z, known.x_T))
    seeds, source = list(range(n)) * count, known.z.cpu()
    spread: dict[str, Tensor] = {}
    report: dict[str, Any] = {"n": count, "of_each": n}
    for eta in (*ETAS, None):
        how = AS_SAVED if eta is None else retracing(options.model_copy(update={"eta": eta}))
        name = "fresh x_T" if eta is None else f"eta {eta}"
        small = draw(model, z, seeds, None if eta is None else x_T, options=how)
        seen = look(model, enlarge(model, small, seeds)).view(count, n, -1)
        among = F.cosine_similarity(seen[:, :, None], seen[:, None], dim=-1).sum((1, 2)) - n
        spread[name] = 1 - among / (n * (n - 1))
        to_all = F.cosine_similarity(seen[:, :, None], source, dim=-1)  # (count, n, count)
        own = to_all.diagonal(dim1=0, dim2=2).T
        report[name] = {
            "spread": figure(spread[name]),
            "cosine_to_source": figure(own.mean(1)),
            "nearest_to_its_source": figure((to_all.argmax(-1) == torch.arange(count)[:, None]).double().mean(1)),
        }
    for low, high in pairwise(ETAS):
        report[f"spread of eta {high} above {low}"] = figure(spread[f"eta {high}"] - spread[f"eta {low}"])
    cosines = F.cosine_similarity(source[:, None], source, dim=-1)
    different = cosines[~torch.eye(count, dtype=torch.bool)]
    report["cosine_of_different_icons"] = {
        "mean": round(different.mean().item(), 4),
        "max": round(different.max().item(), 4),
    }
    return report


def interpolate(model: UnCLIP, known: Known, count: int, judge: ClipJudge, options: Options) -> dict[str, Any]:
    """Pairs i, i + 1 + i // N of the N pictures, x_T slerped and the layout faded, as the task's defaults are."""
    size = len(known.z)
    ends = [(i % size, (i + 1 + i // size) % size) for i in range(count)]
    fine = ways.fine_places(2, FRAMES)
    even = [fine[i * (len(fine) - 1) // (FRAMES - 1)] for i in range(FRAMES)]
    made: dict[str, list[Image.Image]] = {"seen": [], "even": []}
    for pair in ends:
        z, x_T = known.z[list(pair)], known.x_T[list(pair)]
        layout = model.layout(z)
        faded = None if layout is None else ways.along(layout, fine, torch.lerp)
        seeds = [0] * len(fine)
        small = draw(model, ways.along(z, fine), seeds, ways.along(x_T, fine), faded, options=retracing(options))
        glances = enlarge(model, small, seeds)
        chosen = ways.paced(fine, look(model, glances), z, FRAMES)
        for pace, places in (("seen", chosen), ("even", even)):
            made[pace] += [glances[fine.index(place)] for place in places]
    real = [item.real for item in known.items]
    eyes: dict[str, Callable[[list[Image.Image]], Tensor]] = {
        "clip": lambda pictures: look(model, pictures),
        "judge": lambda pictures: torch.from_numpy(judge.images(pictures)),
    }
    report: dict[str, Any] = {"n": count}
    for eye, see in eyes.items():
        targets = see(real)
        for pace, pictures in made.items():
            report[f"pace {pace}, by the {eye}"] = progress(see(pictures).view(count, FRAMES, -1), targets, ends)
    return report


def progress(seen: Tensor, targets: Tensor, ends: list[tuple[int, int]]) -> dict[str, Any]:
    """How the pairs' frames, seen (P, FRAMES, D), go from one target to the other."""
    first, last = (F.cosine_similarity(seen, targets[[pair[k] for pair in ends], None], dim=-1) for k in (0, 1))
    steps = torch.cat([-first.diff(dim=1), last.diff(dim=1)], dim=1)
    return {
        "monotone": figure((steps > 0).all(1).double()),
        f"monotone within {SLACK}": figure((steps > -SLACK).all(1).double()),
        "right_steps": figure((steps > 0).double().mean(1)),
        "cosine_at_the_ends": figure((first[:, 0] + last[:, -1]) / 2),
    }


def text_diff(
    model: UnCLIP, known: Known, judge: ClipJudge, options: Options, thetas: Sequence[float], push: float
) -> dict[str, Any]:
    old = [item.prompt for item in known.items]
    new = [changed(item, i) for i, item in enumerate(known.items)]
    texts = [model.encode_text(words) for words in (old, new)]
    directions = F.normalize(F.normalize(texts[1].pooled) - F.normalize(texts[0].pooled))
    told = judge.texts(new) - judge.texts(old)
    told /= np.linalg.norm(told, axis=1, keepdims=True)
    features: dict[float, np.ndarray] = {}
    cosines: dict[float, Tensor] = {}
    fine = ways.fine_thetas(thetas)
    for theta in sorted({0.0, *thetas, *fine}):
        moved = [ways.slerp(z, z.norm() * d, theta) for z, d in zip(known.z, directions, strict=True)]
        seeds, how = [0] * len(moved), tasks.pushed(options, theta, push)
        made = draw(model, torch.stack(moved), seeds, known.x_T, text=texts[1] if theta else None, options=how)
        pictures = enlarge(model, made, seeds)
        features[theta] = judge.images(pictures)
        change = F.normalize(look(model, pictures)) - F.normalize(known.z).cpu()
        cosines[theta] = F.cosine_similarity(change, directions.cpu())
    seen = torch.stack([cosines[theta] for theta in fine], dim=1)
    chosen = np.array([[fine[i] for i in ways.risen(row, len(thetas))] for row in seen]).T  # a row for each theta
    even = np.broadcast_to(np.array(thetas)[:, None], chosen.shape)
    report: dict[str, Any] = {"n": len(old), "examples": [*zip(old, new, strict=True)][:4]}
    for pace, taken in (("even", even), ("seen", chosen)):
        after = np.stack([[features[theta][i] for i, theta in enumerate(row)] for row in taken])
        report[f"pace {pace}"] = {"thetas": [figure(row) for row in taken]} | turned(features[0.0], after, told)
    return report


def turned(before: np.ndarray, after: np.ndarray, told: np.ndarray) -> dict[str, Any]:
    """How pictures `after` (T, N, D), each theta further than the one before, turn from (N, D) the way they are told."""
    change = after - before
    along = (change * told).sum(-1)
    cosine = along / np.linalg.norm(change, axis=-1).clip(min=1e-9)
    rising, rises, background = np.diff(cosine, axis=0) > 0, cosine[-1] > cosine[0], np.arange(len(told)) % 2 == 0
    return {
        "directional_similarity": [figure(row) for row in cosine],
        "rises_at_every_theta": figure(rising.all(0)),
        "rises_at_each": [round(float(row.mean()), 3) for row in rising],
        "rises_from_first_to_last": figure(rises),
        "projection_rises_at_every_theta": figure((np.diff(along, axis=0) > 0).all(0)),
        "background_rises_from_first_to_last": figure(rises[background]),
        "style_rises_from_first_to_last": figure(rises[~background]),
        "kept_of_the_picture_at_last": figure((before * after[-1]).sum(-1)),
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
    model, judge = load(args.model), load_judge(args.judge)
    assert isinstance(model, UnCLIP), "the tasks ask an unCLIP"
    icons, pairs = (6, 4) if args.quick else (args.icons, args.pairs)
    items = icons_suite(args.data, samples=args.skip + max(icons, pairs), size=SIZE, splits=[SPLIT])[args.skip :]
    steps = Options(steps=args.steps)
    moving = {"variations", "interpolate", "text_diff"} & set(args.only)
    known = known_pairs(model, items if moving else items[:1], steps)
    report: dict[str, Any] = {"model": model.name, "split": SPLIT, "judge": judge.name, "steps": args.steps}
    figures: dict[str, Callable[[], dict[str, Any]]] = {
        "reconstruct_50": lambda: reconstruct(model, items[:icons], Options(steps=50)),
        "reconstruct_250": lambda: reconstruct(model, items[:icons], Options(steps=250)),
        "variations": lambda: variations(model, known.first(icons), steps),
        "interpolate": lambda: interpolate(model, known, pairs, judge, steps),
        "text_diff": lambda: text_diff(model, known.first(pairs), judge, steps, args.thetas, args.push),
    }
    for name in args.only:
        report[name] = figures[name]()
        note(f"{name}: {report[name]}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of the tasks on held-out icons.")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--judge", default="icons-judge", help="a shipped one, or the folder of one trained apart")
    parser.add_argument("--icons", type=int, default=64, help="held-out pictures, reconstructed and varied")
    parser.add_argument("--pairs", type=int, default=100, help="interpolations, and text diffs")
    parser.add_argument("--skip", type=int, default=0, help="so many pictures of the split, to try things on the others")
    parser.add_argument("--steps", type=int, default=20, help="of all but reconstruct")
    parser.add_argument("--thetas", type=float, nargs="+", default=tasks.THETAS, help="of text_diff")
    parser.add_argument("--push", type=float, default=tasks.PUSH, help="of text_diff's guidance, by theta")
    every = ("reconstruct_50", "reconstruct_250", "variations", "interpolate", "text_diff")
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--quick", action="store_true", help="few of everything: whether it runs, no figures to tell")
    print_json(measure(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
