"""Which drawings are worth training on, and which drawings of the four sets show the same thing.

The sets are aligned by the emoji's code points; a thing is called by noto's slug, else twemoji's, else Fluent's. Left out:
skin tones, flags, symbols, keycaps, letters, clock faces, families and couples, mirrored copies; of man / woman / person
triplets the person is kept, else the first.
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from unclip.data.icons.english import PREPOSITION, is_countable
from unclip.data.icons.names import names
from unclip.data.icons.splits import split_styles

CATEGORIES = {
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Travel & Places",
}
SHAPES = re.compile(r"(red|orange|yellow|green|blue|purple|brown|black)-(circle|square)")  # the symbols that teach colours
LEFT_OUT = re.compile(
    r".*-(oclock|thirty|facing-right|holding-hands)|family.*|couple-with-.*|kiss(-(wo)?man.*)?|right(wards)?-.*"
    r"|pregnant-(man|person)|mx-claus|backhand-index-pointing-(left|right|down)|.*-(wo)?men-.*"
)
SKIN_TONE = re.compile(r"1f3f[b-f]")
GENDER_SUFFIX = re.compile(r"-200d-(2640|2642)$")
GENDER_PREFIX = re.compile(r"^(1f468|1f469)-200d-")
NAMING_ORDER = ("noto", "twemoji", "fluent-emoji-flat", "fluent-emoji")
OBJECT_CATEGORIES = {"Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places"}
OBJECTS_TOO = {
    "ghost",
    "robot",
    "alien",
    "skull",
    "clown-face",
    "red-heart",
    "baby",
    "ninja",
    "astronaut",
    "princess",
    "snowman",
}
SCENERY = re.compile(  # fills its square, or is no object
    r".*(scape|sunset|sunrise|fireworks|sparkler|night|rainbow|tornado|cyclone|volcano|mount|mountain|desert|park|land|stadium"
    r"|motorway|railway|track|milky-way|comet|meteor|wave|-face|framed-picture|map|bridge|camping|foggy|fog|cloud|landslide"
    r"|station|construction|site|slide|-arrival|-departure|ceremony|ball-8|slot-machine|-suit|globe.*|volume|dash.*|bubbles|small-.*|oncoming-.*)"
)
SLICES = {"slice of pizza", "slice of watermelon"}
KEYWORD = re.compile(r"[a-z][a-z' -]{2,24}")


@dataclass(frozen=True)
class Drawing:
    """One drawing: its row in the stored arrays, what it shows, in which style, in which split.

    `names`: what the thing is called, canonical first; `keywords`: words that go with it; `kept`: False where it cannot be
    rendered.
    """

    index: int
    thing: str
    style: str
    category: str
    split: str
    names: tuple[str, ...]
    keywords: tuple[str, ...]
    kept: bool = True

    @property
    def key(self) -> str:
        return f"{self.style}/{self.thing}"

    def record(self) -> dict[str, Any]:
        """As it stands in drawings.jsonl."""
        return {"key": self.key, **asdict(self)}


def composable(drawing: Drawing) -> bool:
    """Whether a scene can use it: one countable object with a short name, not scenery."""
    if drawing.category not in OBJECT_CATEGORIES:
        return drawing.thing in OBJECTS_TOO
    name = drawing.names[0]
    simple = name.count(" ") < 3 and " and " not in name and (not PREPOSITION.search(name) or name in SLICES)
    return simple and is_countable(name) and not SCENERY.fullmatch(drawing.thing)


def select(sets: dict[str, dict[str, Any]], words: dict[str, list[str]]) -> tuple[list[Drawing], list[str], Counter[str]]:
    """The drawings worth keeping, sorted by (thing, style), their SVG texts, and how many were left out, by reason.

    `sets`: style -> the package's JSON files; `words`: emoji -> name and keywords (emojilib).
    """
    slugs = {style: _slugs(files, sets["fluent-emoji-flat"]["chars.json"]) for style, files in sets.items()}
    categories = {
        slug: category
        for style in reversed(NAMING_ORDER)
        for category, members in sets[style]["metadata.json"].get("categories", {}).items()
        for slug in members
    }
    keywords = {_code_points(emoji): entry for emoji, entry in words.items()}
    everything = {code for mapping in slugs.values() for code in mapping}
    left_out: Counter[str] = Counter()
    found = []
    for code in everything:
        styles = {style: slugs[style][code] for style in NAMING_ORDER if code in slugs[style]}
        thing = next(iter(styles.values()))
        reason = _reason_to_leave_out(code, styles, categories, everything)
        if reason:
            left_out[reason] += len(styles)
        else:
            found.append((thing, code, styles))
    drawings, svgs = [], []
    for thing, code, styles in sorted(found):
        split = split_styles(thing, styles)
        category = next(categories[slug] for slug in styles.values() if slug in categories)
        called = _names(thing, code, sets, slugs)
        tags = _keywords(keywords.get(code, []), called)
        for style in sorted(styles):
            drawings.append(Drawing(len(drawings), thing, style, category, split[style], called, tags))
            svgs.append(_svg(sets[style]["icons.json"], styles[style]))
    return drawings, svgs, left_out


def _slugs(files: dict[str, Any], fallback: dict[str, str]) -> dict[str, str]:
    """Code points -> slug of the drawing. fluent-emoji ships no characters; its slugs are those of the flat set."""
    icons, aliases = files["icons.json"]["icons"], files["icons.json"].get("aliases", {})
    slugs = {}
    for code, slug in (files.get("chars.json") or fallback).items():
        while slug in aliases:
            slug = aliases[slug]["parent"]
        if slug in icons and not icons[slug].get("hidden"):
            slugs.setdefault(_without_selector(code), slug)
    return slugs


def _without_selector(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != "fe0f")


def _code_points(emoji: str) -> str:
    return "-".join(f"{ord(char):04x}" for char in emoji if char != "\ufe0f")


def _reason_to_leave_out(code: str, styles: dict[str, str], categories: dict[str, str], everything: set[str]) -> str | None:
    if SKIN_TONE.search(code):
        return "skin tone"
    category = next((categories[slug] for slug in styles.values() if slug in categories), "none")
    if category not in CATEGORIES and not any(SHAPES.fullmatch(slug) for slug in styles.values()):
        return category.lower()
    if any(LEFT_OUT.fullmatch(slug) for slug in styles.values()):
        return "look-alike"
    person = GENDER_PREFIX.sub("1f9d1-200d-", GENDER_SUFFIX.sub("", code))
    man = re.sub(r"^1f469-", "1f468-", re.sub(r"2640$", "2642", code))
    if (person != code and person in everything) or (man != code and man in everything):
        return "gender variant"
    return None


def _names(thing: str, code: str, sets: dict[str, dict[str, Any]], slugs: dict[str, dict[str, str]]) -> tuple[str, ...]:
    """What the thing is called, canonical first: our words, then what the sets call it and their aliases."""
    aliases: list[str] = []
    for style in NAMING_ORDER:
        slug = slugs[style].get(code)
        if slug is None:
            continue
        aliases.append(slug)
        for alias, entry in sets[style]["icons.json"].get("aliases", {}).items():
            if entry["parent"] == slug and not {"hFlip", "vFlip", "rotate"} & entry.keys():
                aliases.append(alias)
    return names(thing, aliases)


def _keywords(entry: list[str], called: tuple[str, ...]) -> tuple[str, ...]:
    """emojilib's words for the emoji, less its own name (the first) and emoticons."""
    tags = (word.replace("_", " ").lower() for word in entry[1:])
    return tuple(dict.fromkeys(tag for tag in tags if KEYWORD.fullmatch(tag) and tag not in called))


def _svg(icons: dict[str, Any], slug: str) -> str:
    icon = icons["icons"][slug]
    left, top, width, height = (
        icon.get(side, icons.get(side, default))
        for side, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    side = max(width, height)  # a few are not square: centred in the square that holds them
    box = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side:g} {side:g}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{box}">{icon["body"]}</svg>'
