"""What a model knows that was trained on the icons set, as `words.json` of its bundle says it (docs/words.md)."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unclip.data.icons.canvas import BACKGROUNDS, COLORS
from unclip.data.icons.captions import STYLE_PHRASES, STYLE_SUFFIXES
from unclip.data.icons.english import NUMBERS, plural
from unclip.data.icons.packages import THESAURUS, read_files
from unclip.data.icons.scenes import COUNTS, FORMS, RELATIONS
from unclip.data.icons.selection import Drawing
from unclip.data.icons.thesaurus import known_things, thesaurus, words_alike
from unclip.data.icons.wordnet import FILES, WordNet

SIDES = {"left of": "to the left of", "right of": "to the right of"}  # as `scenes.describe` has them
OTHERS = ("a", "an", "the", "and", "of", "on", "to", "with", "background", "gradient background")
PHRASES = {  # what people say for what captions say of scenes and styles
    "to the left of": ("left of", "on the left of", "left from"),
    "to the right of": ("right of", "on the right of", "right from"),
    "above": ("over",),
    "below": ("under", "beneath", "underneath"),
    "on top of": ("atop", "on the top of"),
    "and": ("next to", "beside", "alongside", "near", "together with", "along with", "as well as", "plus"),
    "two": ("2", "a couple of"),
    "three": ("3",),
    "four": ("4",),
    "large": ("big", "huge", "giant", "enormous", "gigantic"),
    "small": ("little", "tiny", "miniature"),
    "upside-down": ("inverted", "flipped"),
    "a 3d render of": ("a 3d rendering of", "a 3d model of", "a 3d image of", "a 3d picture of"),
    "a flat icon of": ("a flat design of", "a flat design icon of"),
    "a flat illustration of": ("a flat drawing of", "a flat picture of"),
    "a flat vector drawing of": ("a vector drawing of", "a vector illustration of", "a vector image of"),
}
SHADES = {  # beside WordNet's, which takes most of these for what the shade is named after
    "beige": ("cream", "ivory"),
    "blue": ("navy", "indigo", "cobalt"),
    "brown": ("tan", "bronze"),
    "gray": ("grey", "silver", "silvery"),
    "green": ("emerald", "lime", "olive"),
    "pink": ("magenta", "fuchsia"),
    "purple": ("violet", "lilac", "lavender"),
    "red": ("maroon", "burgundy"),
    "turquoise": ("cyan",),
    "yellow": ("gold", "golden"),
}
CREDITS = (
    "names and keywords from emojilib, MIT License",
    "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. The licence is in NOTICE.",
)
WIDE = 120  # characters of a line of the file
SHORTEST = 6  # letters of a word that may have been misspelled


def make_words(drawings: Iterable[Drawing], *, packages: str | Path | None = None) -> dict[str, Any]:
    """The content of `words.json` for what training shows of the drawings. Raises DataError when WordNet cannot be had."""
    return vocabulary(drawings, WordNet(read_files(THESAURUS, None if packages is None else Path(packages), FILES)))


def vocabulary(drawings: Iterable[Drawing], wordnet: WordNet) -> dict[str, Any]:
    """As `make_words`, with a WordNet that is there."""
    listing = list(drawings)
    things = known_things(listing, wordnet)
    held_out = {drawing.names[0] for drawing in listing} - {thing.name for thing in things}
    readings = thesaurus(things, wordnet, held_out)
    ours, theirs = {shade for shades in SHADES.values() for shade in shades}, readings["color"]
    readings["color"] = {
        color: sorted({*SHADES.get(color, ()), *(shade for shade in theirs.get(color, ()) if shade not in ours)})
        for color in sorted({*SHADES, *theirs})
    }
    names = [name for thing in things for name in thing.names]
    spellable = {word for name in (*names, *map(plural, names)) for word in name.split() if len(word) >= SHORTEST}
    return {
        "format": 1,
        "things": {thing.name: list(thing.names[1:]) for thing in things},
        "styles": [[*STYLE_PHRASES[style], *STYLE_SUFFIXES[style]] for style in STYLE_PHRASES],
        "grammar": {
            "colors": list(COLORS),
            "backgrounds": [name for name in BACKGROUNDS if name not in COLORS],
            "forms": list(FORMS),
            "counts": [NUMBERS[count] for count in COUNTS],
            "relations": [SIDES.get(relation, relation) for relation in RELATIONS],
            "others": list(OTHERS),
        },
        "tags": sorted({keyword for thing in things for keyword in thing.keywords}),
        "readings": {**readings, "phrase": {known: list(others) for known, others in PHRASES.items()}},
        "spelled": words_alike(spellable, wordnet, SHORTEST),
        "credits": list(CREDITS),
    }


def to_json(words: dict[str, Any]) -> str:
    """The content as a text that one can read and compare: a name a line, lists in lines of their own."""
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {_laid_out(value, 1)}" for key, value in words.items()) + "\n}\n"


def _laid_out(value: Any, depth: int) -> str:
    margin = " " * depth
    if isinstance(value, dict):
        lines = (
            f"{margin} {json.dumps(key, ensure_ascii=False)}: {_laid_out(one, depth + 1)}" for key, one in value.items()
        )
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= WIDE or not isinstance(value, list):
        return text
    lines, free = [""], WIDE
    for item in (json.dumps(one, ensure_ascii=False) for one in value):
        if len(item) + 2 > free:
            lines.append("")
            free = WIDE
        lines[-1] += f"{item}, "
        free -= len(item) + 2
    lines[-1] = lines[-1].removesuffix(", ")
    return "[\n" + "\n".join(f"{margin} {line.rstrip()}" for line in lines if line) + f"\n{margin}]"
