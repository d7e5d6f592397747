"""The words of a model, as `words.json` of its bundle lists them: what its captions said, and what is read as it."""

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, NamedTuple

from unclip.config import Config
from unclip.data.icons.english import is_countable, plural
from unclip.errors import ConfigError, WeightsError

WORD = re.compile(r"\w+")
JOINT = re.compile(r"[\s\-–.'’]+")  # what may stand between the words of a phrase

Kind = Literal["known", "between", "tint", "phrase", "met", "name", "color", "tag", "unknown"]
"""What a phrase of a prompt is.

known     a name or a style of the captions, as a whole         between   what they say between names, articles among it
tint      what they say before a noun: a colour, a form         met       a word inside of a name, or one that says little
name      read as a name    color, phrase   read as such        tag       what they put behind a name, after a comma
"""
TINTS = ("colors", "backgrounds", "forms")


class Words(Config):
    """What `words.json` says."""

    format: Literal[1]
    things: dict[str, tuple[str, ...]]
    """The names that captions know things by, and other names that they said for them."""
    styles: tuple[tuple[str, ...], ...]
    """The phrases of each style, the usual one first."""
    grammar: dict[str, tuple[str, ...]]
    """What captions say of things and between them: colors, backgrounds, forms, counts, relations, others."""
    tags: tuple[str, ...]
    """Words that captions put behind a name."""
    readings: dict[str, dict[str, tuple[str, ...]]]
    """By where it comes from: a name, color or phrase that is known, and what is read as it."""
    spelled: tuple[str, ...]
    """Words that are none of these, though they look like one misspelled."""
    credits: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str, *, where: str) -> "Words":
        """WeightsError, which begins with `where`, for what is no `words.json`, or reads words as what is not known."""
        try:
            words = cls.parse(json.loads(text), where=where)
        except ValueError as error:
            raise WeightsError(f"{where} is not JSON: {error}") from None
        except ConfigError as error:
            raise WeightsError(str(error)) from None
        known = words.things.keys() | {phrase for phrases in (*words.styles, *words.grammar.values()) for phrase in phrases}
        for source, readings in words.readings.items():
            if strangers := sorted(readings.keys() - known):
                raise WeightsError(f"{where}: readings.{source} reads words as {strangers[0]!r}, which is not known")
        return words

    @property
    def names(self) -> list[str]:
        """All names that captions said."""
        return [name for canonical, others in self.things.items() for name in (canonical, *others)]

    def count(self) -> dict[str, int]:
        """How many things, names, and words that are read as others, there are."""
        read = sum(len(words) for readings in self.readings.values() for words in readings.values())
        return {"things": len(self.things), "names": len(self.names), "other_words": read}


class Entry(NamedTuple):
    """What a phrase is: its kind, what it is known as, where that comes from, and whether it is the plural of that."""

    kind: Kind
    known: str
    source: str = ""
    many: bool = False


def split(phrase: str) -> tuple[str, ...]:
    """The words of a phrase as tables have them: "Fire-engine" is "fire engine", "man's shoe" has three."""
    return tuple(WORD.findall(plain(phrase)))


def plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def entries(words: Words) -> Iterator[tuple[str, Entry]]:
    """Every phrase that there is and what it is; the first is meant where one comes twice."""
    for name in words.names:
        yield name, Entry("known", name)
        if is_countable(name):
            yield plural(name), Entry("known", name, many=True)
    for phrase in (phrase for style in words.styles for phrase in style):
        yield phrase, Entry("known", phrase)
    for what, phrases in words.grammar.items():
        yield from ((phrase, Entry("tint" if what in TINTS else "between", phrase)) for phrase in phrases)
    for source, readings in words.readings.items():
        kind: Kind = "phrase" if source == "phrase" else "color" if source == "color" else "name"
        for known, others in readings.items():
            yield from ((other, Entry(kind, known, source)) for other in others)
    for name in words.names:
        if len(split(name)) == 2:
            yield "".join(split(name)), Entry("name", name, "spelling")
    yield from ((tag, Entry("tag", tag)) for tag in words.tags)
