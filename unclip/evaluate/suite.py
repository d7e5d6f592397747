"""What is asked of a model: prompts with their real renders, wrong captions to choose from, distractors to retrieve among.

The icons suite has five splits, each of its own prompts:

    train             drawings that training holds, under their canonical caption
    pair              (thing, style) pairs held out, where training holds the thing in another style
    thing             things held out altogether
    scenes            fresh compositions of training drawings, in GenEval's six categories (2310.11513)
    scenes-held-out   compositions that hold a pair of objects, or an object in a colour, which training never does

Everything is a pure function of (prepared icons, samples, seed).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from unclip.data.icons import IconStream
from unclip.data.icons.captions import STYLE_PHRASES
from unclip.data.icons.drawings import Drawings
from unclip.data.icons.scenes import CATEGORIES, counterfactuals
from unclip.data.icons.stream import HELD_OUT_CATEGORIES
from unclip.data.order import Order
from unclip.data.source import Sample
from unclip.errors import RequestError
from unclip.seeds import mix

DRAWING_SPLITS = ("train", "pair", "thing")
SCENE_SPLITS = {"scenes": ("train", CATEGORIES), "scenes-held-out": ("scene", HELD_OUT_CATEGORIES)}
SPLITS = (*DRAWING_SPLITS, *SCENE_SPLITS)
DISTRACTORS = 99  # the right caption among 100
BANK = 400  # captions of a split, at least, from which distractors are drawn
OTHERS = 4  # names that a drawing is not, for counterfactual captions


@dataclass(frozen=True)
class Item:
    """One prompt. `wrong`: captions of the same form that are false of it; `distractors`: captions of other items.

    `seed` is that of its picture, the same whichever other splits are asked for; `meta` says what is in the picture.
    """

    split: str
    category: str
    prompt: str
    seed: int
    real: Image.Image
    meta: dict[str, Any]
    wrong: tuple[str, ...]
    distractors: tuple[str, ...]


def icons_suite(
    data: str | Path | Drawings, *, samples: int, size: int, seed: int = 0, splits: Sequence[str] = SPLITS
) -> list[Item]:
    """At most `samples` prompts a split (a split of drawings may hold fewer), real renders at `size` px, split by split.

    The prompts of scenes are dealt evenly to their categories. Raises RequestError for a split that does not exist.
    """
    for split in splits:
        if split not in SPLITS:
            raise RequestError(f"the icons suite has no split {split!r}: choose among {', '.join(SPLITS)}")
    if samples < 1:
        raise RequestError(f"samples = {samples}: a suite needs at least one prompt a split")
    drawings = data if isinstance(data, Drawings) else Drawings(data)
    items: list[Item] = []
    for number, split in enumerate(SPLITS):
        if split in splits:
            key = mix(seed, number)
            draw = _drawings if split in DRAWING_SPLITS else _scenes
            items += _items(split, *draw(drawings, split, samples, size, key), key)
    return items


def _drawings(drawings: Drawings, split: str, samples: int, size: int, key: int) -> tuple[list[Sample], list[Sample]]:
    """The prompts and the bank: drawings of the split in an order that `key` decides, as they are."""
    stream = IconStream(drawings, key, split=split)
    order, rng = Order(len(stream.pool), key), Random(key)
    names = {style: [one.names[0] for one in stream.pool if one.style == style] for style in STYLE_PHRASES}
    bank = []
    for position in range(min(len(stream.pool), max(samples, BANK))):
        drawing = stream.pool[order(position)]
        sample = stream.canonical(drawing.index, size)
        drawn = rng.sample(names[drawing.style], min(len(names[drawing.style]), 2 * OTHERS))
        others = [name for name in drawn if name not in drawing.names]
        bank.append(Sample(sample.key, sample.image, sample.caption, {**sample.meta, "others": others[:OTHERS]}))
    return bank[:samples], bank


def _scenes(drawings: Drawings, split: str, samples: int, size: int, key: int) -> tuple[list[Sample], list[Sample]]:
    """The prompts, as many of each category, and the bank: the whole stretch of the stream they were taken from."""
    stream_split, categories = SCENE_SPLITS[split]
    stream = IconStream(drawings, key, split=stream_split, scenes=1.0)
    wanted = {name: len(range(samples)[turn :: len(categories)]) for turn, name in enumerate(categories)}
    prompts, bank = [], []
    while len(prompts) < samples or len(bank) < BANK:
        sample = stream.sample(len(bank), size)
        bank.append(sample)
        category = sample.meta["category"]
        if wanted[category]:
            wanted[category] -= 1
            prompts.append(sample)
    return prompts, bank


def _items(split: str, prompts: Sequence[Sample], bank: Sequence[Sample], key: int) -> Iterator[Item]:
    rng = Random(key)
    for number, sample in enumerate(prompts):
        shown = set(sample.meta["drawings"])
        # Another picture of the same drawings, or one that is called the same, is no fair distractor.
        fair = {other.caption for other in bank if other.caption != sample.caption and set(other.meta["drawings"]) != shown}
        yield Item(
            split=split,
            category=sample.meta["category"],
            prompt=sample.caption,
            seed=(key >> 33) + number,
            real=Image.fromarray(sample.image),
            meta=sample.meta,
            wrong=tuple(counterfactuals(sample.meta)),
            distractors=tuple(rng.sample(sorted(fair), min(DISTRACTORS, len(fair)))),
        )
