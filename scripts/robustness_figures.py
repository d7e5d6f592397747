"""Zero-shot CLIP against a network that was taught the labels, on pictures of the kind that both saw and on harder ones.

    unclip data embed data/train-64 --clip icons
    python scripts/robustness_figures.py --data data/icons --pool data/train-64 --run runs/supervised

prints one JSON object. CLIP's paper asks (2103.00020, section 3.3) how much of a network's accuracy is left where pictures
are of another kind than those it learned from. Here a picture shows a thing and the label is the thing, one of those of
which training has drawings and holds out another (split `pair`). It is named by

zero-shot    CLIP, by the mean of each name's embeddings in the styles' phrases (unclip/classify.py)
sentence     CLIP, by the nearest of the sentences that name it in a style or on a coloured ground, as its captions do
supervised   an encoder of the same shape from nothing, taught which thing it is on those pictures of CLIP's pool that show
             one thing, with the recipe of CLIP's own run: batch, rate, decay, masked patches, and as many pictures
probe        logistic regression on CLIP's z of those of the pictures that show one of the labels

and each picture is shown as it is and in the ways of `evaluate/corruptions.py`. `train` are new renders of training
drawings, at other places and on other grounds. A share is a mean over things, so that each counts once, with the 95 %
interval of a bootstrap over things; differences are paired. `drop` is what a network loses against `train` as it is,
`spared` the supervised network's drop less CLIP's. `effective` is CLIP's share above what the supervised network had when it
was as good as CLIP on `train`, by the line in logits through the two checkpoints around that (2007.00644). A quarter of the
pictures lies on a coloured ground, which CLIP's captions always tell: `on white` and `on a colour` are told apart too.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from unclip.classify import TEMPLATES, Classifier
from unclip.cli.console import guarded, note, print_json
from unclip.clip import Clip, load_clip, unit
from unclip.data.icons import IconStream
from unclip.data.icons.canvas import BACKGROUNDS
from unclip.data.icons.captions import STYLE_PHRASES
from unclip.data.icons.drawings import Drawings
from unclip.data.icons.english import with_article
from unclip.data.icons.scenes import describe_background
from unclip.data.pool import Embedded, Pool
from unclip.data.source import Sample
from unclip.evaluate.corruptions import CORRUPTIONS
from unclip.evaluate.metrics import INTERVAL, Figure, mean_figure, resample_counts
from unclip.evaluate.supervised import Labelled, LabelObjective, linear_probe, scores
from unclip.images import from_pixels, grid, save_png, to_images
from unclip.train.log import read_log
from unclip.train.loop import train
from unclip.train.recipe import load_recipe
from unclip.train.state import checkpoints, load_weights

TRAINING = {"plain": 0.75, "jitter": 0.3}  # how the pool was drawn
VALID_SEED, TEST_SEED = 501, 502
VALID = 2000  # new renders of training drawings: the supervised network's curve, and the probe's decay
DECAYS = (1e-5, 1e-4, 1e-3)
STYLED = ("{}", *(f"{phrase} {{}}" for phrases in STYLE_PHRASES.values() for phrase in phrases))
SPLITS = ("train", "pair")
AS_IT_IS = [f"{split}, {next(iter(CORRUPTIONS))}" for split in SPLITS]
EASY = AS_IT_IS[0]
FIRST = {"top1": 1, "top5": 5}
CHECKPOINTS = 12
RESAMPLES = 2000

Answer = Callable[[Tensor], dict[str, Tensor]]  # pictures (N, 3, S, S) -> by network, scores (N, K) of the labels
Shares = dict[str, dict[str, np.ndarray]]  # by test, 'pair, outline' for one, and network: right among the FIRST, (2, K)


class Test(NamedTuple):
    """Pictures (N, 3, S, S), of each the number of its label (N,), and whether it lies on white (N,)."""

    x: Tensor
    label: Tensor
    white: Tensor


def thing_shown(meta: dict[str, Any]) -> str | None:
    """What a sample shows, if it is one thing, be it several of it."""
    return meta["drawings"][0].partition("/")[2] if len(meta["drawings"]) == 1 else None


def renders(data: Drawings, split: str, seed: int, size: int, count: int | None = None) -> list[Sample]:
    """Pictures of the split's drawings in the manner of the pool: each drawing once, or so many."""
    stream = IconStream(data, seed, split=split, **TRAINING)
    return [stream.sample(position, size) for position in range(len(stream) if count is None else count)]


def labelled(samples: Sequence[Sample]) -> Labelled:
    return Labelled(np.stack([sample.image for sample in samples]), [thing_shown(sample.meta) for sample in samples])


def test_of(samples: Sequence[Sample], things: list[str]) -> Test:
    """Those that show one of these things."""
    kept = [sample for sample in samples if thing_shown(sample.meta) in things]
    pictures = labelled(kept)
    white = torch.tensor([not sample.meta["scene"]["background"] for sample in kept])
    return Test(from_pixels(pictures.pixels), numbers(pictures.labels, range(len(kept)), things), white)


def numbers(labels: Sequence[str | None], rows: Sequence[int], things: Sequence[str]) -> Tensor:
    number = {thing: place for place, thing in enumerate(things)}
    return torch.tensor([number[labels[row] or ""] for row in rows])


def names_of(data: Drawings) -> dict[str, str]:
    """Of each thing of which training has drawings and holds out another, what it is called."""
    kept = [drawing for drawing in data.listing if drawing.kept]
    known, asked = ({drawing.thing for drawing in kept if drawing.split == split} for split in SPLITS)
    return {drawing.thing: drawing.names[0] for drawing in kept if drawing.thing in known & asked}


def teach(clip: Clip, pictures: Labelled, valid: Labelled, args: argparse.Namespace) -> LabelObjective:
    """Trains the supervised network in `--run`, or goes on with it, or takes it from there."""
    recipe = load_recipe(args.recipe, [f"train.steps={args.steps}"])
    every = max(1, args.steps // CHECKPOINTS)
    torch.manual_seed(recipe.train.seed)  # the weights that it begins with
    objective = LabelObjective(clip.network.cfg, pictures, valid)
    told = {"pool": str(args.pool), "classes": len(objective.classes)}
    cfg = recipe.train.model_copy(update={"keep_every": every, "evaluate_every": every})
    outcome = train(objective, cfg, args.run, recipe=told)
    if outcome.exit_code:
        raise SystemExit(outcome.exit_code)
    load_weights(args.run, objective.module)
    objective.module.eval()
    return objective


def probe_of(
    clip: Clip, pool: Pool, pictures: Labelled, valid: Test, things: list[str]
) -> tuple[torch.nn.Linear, dict[str, float]]:
    """The linear probe by the decay that is best on `valid`, and the share of right answers there by decay."""
    rows = [row for row in pictures.rows if pictures.labels[row] in things]
    z, label = Embedded(pool, clip=clip.fingerprint).z[rows], numbers(pictures.labels, rows, things)
    z_valid = embed(clip, valid.x)
    seen: dict[str, float] = {}
    probes: dict[str, torch.nn.Linear] = {}
    for decay in DECAYS:
        probe = probes[f"{decay:g}"] = linear_probe(z, label, len(things), decay=decay)
        seen[f"{decay:g}"] = round(float((probe(z_valid).argmax(1) == valid.label).float().mean()), 4)
        note(f"probe, decay {decay:g}: {seen[f'{decay:g}']}")
    return probes[max(seen, key=lambda decay: seen[decay])], seen


def embed(clip: Clip, x: Tensor) -> Tensor:
    """z (N, E)."""
    return torch.cat([clip.pixels(part) for part in x.split(256)])


def per_thing(answers: Tensor, label: Tensor, k: int) -> np.ndarray:
    """Of each label (K,) the share of its pictures for which it is among the k highest, NaN without one; ties by lot."""
    own = answers.gather(1, label[:, None])
    above, level = (answers > own).sum(1), (answers == own).sum(1)
    right = torch.zeros(answers.shape[1]).index_add(0, label, ((k - above) / level).clamp(0, 1))
    return (right / torch.bincount(label, minlength=answers.shape[1])).double().numpy()


def shares(answer: Answer, tests: dict[str, Test]) -> Shares:
    """What is right of every test and network, by thing."""
    found: Shares = {}
    for split, test in tests.items():
        for corruption, corrupt in CORRUPTIONS.items():
            answers = answer(corrupt(test.x))
            parts = {corruption: torch.ones_like(test.white)}
            if f"{split}, {corruption}" in AS_IT_IS:
                parts |= {"on white": test.white, "on a colour": ~test.white}
            for name, rows in parts.items():
                found[f"{split}, {name}"] = {
                    network: np.stack([per_thing(given[rows], test.label[rows], k) for k in FIRST.values()])
                    for network, given in answers.items()
                }
    return found


def as_good(objective: LabelObjective, columns: list[int], tests: dict[str, Test], run: Path, easy: float) -> list[Shares]:
    """What the two checkpoints have right between which the supervised network's share on EASY passed `easy`."""

    def answer(x: Tensor) -> dict[str, Tensor]:
        return {"supervised": scores(objective.module, x)[:, columns]}

    folders = checkpoints(run)[::-1]
    on_easy = []
    for folder in folders:
        objective.module.load_state_dict(load_file(folder / "ema.safetensors"))
        on_easy.append(per_thing(answer(tests["train"].x)["supervised"], tests["train"].label, 1).mean())
        note(f"{folder.name}: {on_easy[-1]:.3f} of {EASY}")
    better = [place for place in range(1, len(folders)) if on_easy[place] > easy] or [len(folders) - 1]
    found = []
    for folder in folders[better[0] - 1 : better[0] + 1]:
        objective.module.load_state_dict(load_file(folder / "ema.safetensors"))
        found.append(shares(answer, tests))
    load_weights(run, objective.module)
    return found


def effective(right: Shares, matched: list[Shares], test: str) -> Figure:
    """CLIP's share of a test above that of the supervised network when it was as good on EASY."""
    things = right[test]["zero-shot"].shape[1]
    counts = np.vstack([np.ones(things), resample_counts(things, RESAMPLES, np.random.default_rng(0))])

    def share(by_thing: Shares, name: str, where: str) -> np.ndarray:
        return (counts @ by_thing[where][name][0] / things).clip(1e-4, 1 - 1e-4)

    x0, y0, x1, y1 = (logit(share(one, "supervised", where)) for one in matched for where in (EASY, test))
    way = np.divide(logit(share(right, "zero-shot", EASY)) - x0, x1 - x0, out=np.ones_like(x0), where=x1 > x0).clip(0, 1)
    expected = y0 + way * (y1 - y0)
    above = share(right, "zero-shot", test) - 1 / (1 + np.exp(-expected))
    low, high = np.percentile(above[1:], INTERVAL)
    return Figure(float(above[0]), float(low), float(high))


def logit(share: np.ndarray) -> np.ndarray:
    return np.log(share / (1 - share))


def told(right: Shares, matched: list[Shares]) -> dict[str, Any]:
    """The figures of every test."""
    table: dict[str, Any] = {}
    for test in right:
        table[test] = {first: _told(right, test, row) for row, first in enumerate(FIRST)}
        if not test.endswith(("on white", "on a colour")):  # where every thing has a picture
            table[test]["effective"] = effective(right, matched, test).rounded()
    return table


def _told(right: Shares, test: str, row: int) -> dict[str, Any]:
    share = {name: by_thing[row] for name, by_thing in right[test].items()}
    drop = {name: right[EASY][name][row] - of for name, of in share.items()}
    figures = {
        **share,
        **{f"{name} less supervised": of - share["supervised"] for name, of in share.items() if name != "supervised"},
        **{f"drop of {name}": of for name, of in drop.items()},
        "spared": drop["supervised"] - drop["zero-shot"],
    }
    return {name: figure(values) for name, values in figures.items()}


def figure(by_thing: np.ndarray) -> dict[str, float]:
    return mean_figure(by_thing[~np.isnan(by_thing)], resamples=RESAMPLES).rounded()


def sentences(clip: Clip, names: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """From unit z (N, E), of each name (N, K) the cosine of the nearest sentence that says it as captions do."""
    grounds = [f"{{}}{describe_background((colour,))}" for colour in BACKGROUNDS]
    each = [unit(clip.texts([template.format(name) for name in names])) for template in (*STYLED, *grounds)]
    return lambda z: torch.stack([z @ texts.T for texts in each]).amax(0)


def prompts(clip: Clip, names: Sequence[str], tests: dict[str, Test]) -> dict[str, Any]:
    """What the sentences are worth: CLIP's share of both splits as they are, by templates."""
    articled = [with_article(name) for name in names]
    ways = {
        "the bare name": Classifier(clip, names, ["{}"]),
        "with its article": Classifier(clip, articled, ["{}"]),
        "classify.TEMPLATES": Classifier(clip, names, TEMPLATES),
        "the styles' phrases": Classifier(clip, articled, STYLED),
    }
    z = {split: unit(embed(clip, test.x)) for split, test in tests.items()}
    return {
        way: {split: figure(per_thing(z[split] @ made.weights.T, tests[split].label, 1)) for split in tests}
        for way, made in ways.items()
    }


def sheet(test: Test, names: Sequence[str], path: Path, count: int = 3) -> None:
    """The first few pictures in every way that they are shown, twice as large."""
    made = {name: to_images(corrupt(test.x[:count])) for name, corrupt in CORRUPTIONS.items()}
    pictures = [
        image.resize((2 * image.width, 2 * image.height)) for row in zip(*made.values(), strict=True) for image in row
    ]
    captions = [caption for label in test.label[:count] for caption in (names[int(label)], *[*made][1:])]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(grid(pictures, len(made), captions).quantize(128), path)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    clip, data, pool = load_clip(args.clip), Drawings(args.data), Pool(args.pool)
    called = names_of(data)
    things, names = list(called), list(called.values())
    tests = {split: test_of(renders(data, split, TEST_SEED, clip.size), things) for split in SPLITS}
    if args.sheet:
        sheet(tests["pair"], names, args.sheet)
    pictures = Labelled(pool.images, [thing_shown(sample["meta"]) for sample in pool.samples])
    valid = renders(data, "train", VALID_SEED, clip.size, VALID)
    objective = teach(clip, pictures, labelled(valid), args)
    columns = [objective.classes.index(thing) for thing in things]
    probe, decays = probe_of(clip, pool, pictures, test_of(valid, things), things)
    articled = [with_article(name) for name in names]
    weights, nearest = Classifier(clip, articled, STYLED).weights, sentences(clip, articled)

    def answer(x: Tensor) -> dict[str, Tensor]:
        z = embed(clip, x)
        supervised = scores(objective.module, x)[:, columns]
        return {
            "zero-shot": unit(z) @ weights.T,
            "sentence": nearest(unit(z)),
            "supervised": supervised,
            "probe": probe(z),
        }

    right = shares(answer, tests)
    matched = as_good(objective, columns, tests, args.run, right[EASY]["zero-shot"][0].mean())
    curve = [entry["figures"] | {"step": entry["step"]} for entry in read_log(args.run) if entry["event"] == "evaluate"]
    return {
        "clip": clip.name,
        "labels": len(names),
        "pictures": {split: len(test.x) for split, test in tests.items()},
        "taught": {"classes": len(objective.classes), "pictures": len(pictures.rows), "steps": args.steps, "valid": curve},
        "probe_valid_by_decay": decays,
        "prompts": prompts(clip, names, tests),
        "as_good": [round(float(one[EASY]["supervised"][0].mean()), 4) for one in matched],
        "tests": told(right, matched),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Zero-shot CLIP against a network taught the labels, on harder pictures.")
    parser.add_argument("--clip", default="icons")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument(
        "--pool", type=Path, default=Path("data/train-64"), help="what both learn from, embedded by the CLIP"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/supervised"), help="of the supervised network")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/clip-icons.yaml"), help="of the CLIP")
    parser.add_argument("--steps", type=int, default=1800, help="of the supervised network; the shipped CLIP took 1,800")
    parser.add_argument("--sheet", type=Path, help="a sheet of pictures in each way that they are shown")
    print_json(measure(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
