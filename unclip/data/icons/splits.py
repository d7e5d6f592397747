"""What is held out of training, decided by a hash of names alone, so that it never moves when drawings come or go.

thing   5 % of things, in every style
pair    10 % of the (thing, style) pairs of the other things, where another style of the thing stays in training
scene   10 % of pairs of objects and 10 % of (object, colour) pairs, which no training scene holds
train   the rest
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache

THINGS_HELD_OUT = 0.05
STYLES_HELD_OUT = 0.10
COMBINATIONS_HELD_OUT = 0.10
SPLITS = ("train", "thing", "pair", "scene")


@lru_cache(maxsize=1 << 20)
def fraction(*names: str) -> float:
    """A number in [0, 1) that depends on the names only: the first 52 bits of sha256 of 'a|b|c'."""
    digest = hashlib.sha256("|".join(names).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 12) / (1 << 52)


def split_styles(thing: str, styles: Iterable[str]) -> dict[str, str]:
    """Each style's split for a thing drawn in `styles`: 'thing' for all, or 'train' for at least one and else 'pair'."""
    styles = sorted(styles)
    if fraction("thing", thing) < THINGS_HELD_OUT:
        return dict.fromkeys(styles, "thing")
    draws = {style: fraction("pair", thing, style) for style in styles}
    anchor = max(styles, key=draws.__getitem__)  # stays in training even if the dice would hold out every style
    return {style: "pair" if draws[style] < STYLES_HELD_OUT and style != anchor else "train" for style in styles}


def pair_held_out(first: str, second: str) -> bool:
    """Whether no training scene shows these two things together, in any order."""
    return fraction("objects", *sorted((first, second))) < COMBINATIONS_HELD_OUT


def color_held_out(thing: str, color: str) -> bool:
    """Whether no training scene shows this thing tinted in this colour."""
    return fraction("color", thing, color) < COMBINATIONS_HELD_OUT
