"""What a single drawing is called: its names, the words that go with it, and its style in words people use."""

from random import Random

from unclip.data.icons.english import with_article
from unclip.data.icons.selection import Drawing

STYLE_PHRASES = {  # canonical first
    "fluent-emoji": ("a 3d render of", "a 3d icon of", "a glossy 3d emoji of", "a fluent emoji of"),
    "fluent-emoji-flat": ("a flat icon of", "a flat illustration of", "a flat vector drawing of", "a flat emoji of"),
    "noto": ("a noto emoji of", "a google emoji of", "an android emoji of"),
    "twemoji": ("a twemoji of", "a twitter emoji of", "a simple twemoji icon of"),
}
STYLE_SUFFIXES = {
    "fluent-emoji": ("3d render", "3d icon", "fluent emoji"),
    "fluent-emoji-flat": ("flat icon", "flat illustration", "vector art"),
    "noto": ("noto emoji", "google emoji"),
    "twemoji": ("twemoji", "twitter emoji"),
}


def name(drawing: Drawing) -> str:
    """The thing's canonical name: 'red apple'."""
    return drawing.names[0]


def canonical(drawing: Drawing) -> str:
    """The one caption a drawing always answers to: 'a 3d render of a red apple'."""
    return f"{STYLE_PHRASES[drawing.style][0]} {with_article(name(drawing))}"


def caption(drawing: Drawing, rng: Random) -> str:
    """One of the many captions of a drawing, its background unsaid: names, synonyms, keywords, style or none."""
    thing = rng.choice(drawing.names) if rng.random() < 0.2 else name(drawing)
    tags = ""
    if drawing.keywords and rng.random() < 0.15:
        tags = ", " + ", ".join(rng.sample(drawing.keywords, min(len(drawing.keywords), rng.randint(1, 3))))
    form = rng.random()
    if form < 0.55:
        return f"{rng.choice(STYLE_PHRASES[drawing.style])} {with_article(thing)}{tags}"
    if form < 0.70:
        return f"{with_article(thing)}{tags}, {rng.choice(STYLE_SUFFIXES[drawing.style])}"
    return f"{with_article(thing) if form < 0.92 else thing}{tags}"


def style_prefix(style: str, rng: Random) -> str:
    """How a scene's caption begins: a style phrase and a blank, or nothing (a third of the time)."""
    return "" if rng.random() < 1 / 3 else f"{rng.choice(STYLE_PHRASES[style])} "
