"""What a model knows, as `unclip models show` tells it: a few lines, all of it, or one word."""

from typing import Any, NamedTuple

from unclip.errors import RequestError
from unclip.weights.source import ModelSource
from unclip.words.reader import Reader
from unclip.words.vocabulary import Words

SAID = {  # of a source in readings
    "synonym": "another word for it, WordNet",
    "kind": "a kind of it, WordNet",
    "keyword": "a keyword of it, emojilib and WordNet",
    "feeling": "what it shows, WordNet and emojilib",
    "color": "a shade of it, WordNet",
    "phrase": "the same, as captions say it",
    "spelling": "the same, spelled as captions do",
}


class Told(NamedTuple):
    """An answer for people, and the same as JSON values."""

    lines: list[str]
    record: dict[str, Any]


def words_of(source: ModelSource) -> Words | None:
    """The words of a model that is not loaded; None where it comes without."""
    text = source.words()
    return None if text is None else Words.of(text, where=f"{source.where}/words.json")


def summary(words: Words) -> dict[str, Any]:
    """How much there is, the usual phrase of each style, and what goes between names."""
    grammar = {what: list(phrases) for what, phrases in words.grammar.items() if what != "others"}
    return {**words.count(), "styles": [style[0] for style in words.styles], "grammar": grammar}


def summary_lines(name: str, words: Words) -> list[str]:
    """The same for people, and how to hear more."""
    counts, told = words.count(), summary(words)
    known = (
        f"{counts['things']:,} things by {counts['names']:,} names; {counts['other_words']:,} other words are read as these"
    )
    phrases = [f"{what}: {', '.join(said)}" for what, said in {"styles": told["styles"], **told["grammar"]}.items()]
    return [
        f"knows: {known}",
        *phrases,
        f"all of it: unclip models show {name} --words, or with a word behind, what it reads",
    ]


def listing(name: str, words: Words | None) -> Told:
    """Every thing with its other names and, in brackets, what is read as it; then the rest."""
    words = _some(name, words)
    lines = []
    for thing, others in words.things.items():
        read = [word for readings in words.readings.values() for word in readings.get(thing, ())]
        lines.append(", ".join((thing, *others)) + (f" ({', '.join(read)})" if read else ""))
    rest = {known: said for source in ("color", "phrase") for known, said in words.readings.get(source, {}).items()}
    lines += [f"{known} ({', '.join(said)})" for known, said in rest.items()]
    return Told([*lines, *summary_lines(name, words)[1:-1]], words.model_dump(mode="json"))


def look_up(name: str, words: Words | None, phrase: str) -> Told:
    """What the model makes of a word or phrase."""
    record = Reader(_some(name, words)).look_up(phrase)
    if "read_as" in record:
        return Told([f"{phrase}: read as {record['read_as']} ({SAID.get(record['source'], record['source'])})"], record)
    if record["known"]:
        names = ", ".join((record["thing"], *record["names"]))
        read = [f"{source}: {', '.join(said)}" for source, said in record["read_as_it"].items()]
        return Told([f"{phrase}: known ({names})", *read], record)
    met = "no name, but met inside of names or behind them" if record["met"] else f"not known to {name}"
    return Told([f"{phrase}: {met}"], record)


def _some(name: str, words: Words | None) -> Words:
    if words is None:
        raise RequestError(f"{name} comes without a list of what it knows")
    return words
