"""Writing a prompt anew where words of it are read as others: articles, plurals and capitals follow, the rest stays."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from unclip.data.icons.english import WITH_THE, article, is_countable, plural, with_article
from unclip.words.vocabulary import Entry

BEFORE_AN_ARTICLE = ("above", "and", "below", "of", "on")  # the last words of styles and relations
COUNTS = ("two", "three", "four")
MOST_TOLD = 8  # words of a prompt that are not known


class Read(NamedTuple):
    """A word of a prompt, what it was read as, and where that comes from."""

    word: str
    known: str
    source: str


class Reading(NamedTuple):
    """A prompt as it was typed and as the model is given it; the words that were changed, and those that are not known."""

    typed: str
    text: str
    read: tuple[Read, ...] = ()
    unknown: tuple[str, ...] = ()

    def told(self, name: str = "read") -> dict[str, str]:
        """What a picture's settings keep of it beside the prompt, under `name`; nothing where it was left as it is."""
        return {} if self.text == self.typed else {name: self.text}

    def notes(self, model: str) -> list[str]:
        """What whoever asks has to hear, by the line: each word that was read as another, and those that are not known."""
        told = [f"{word}: read as {known}" for word, known, _ in self.read]
        if not self.unknown:
            return told
        more = len(self.unknown) - MOST_TOLD
        strangers = ", ".join(self.unknown[:MOST_TOLD]) + (f" and {more} more" if more > 0 else "")
        return [*told, f"{strangers}: not known to {model}, painted all the same"]

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        words = [one._asdict() for one in self.read]
        return {"prompt": self.typed, "read": self.text, "words": words, "unknown": list(self.unknown)}


class Token(NamedTuple):
    """A word in lower case, and where it stands."""

    word: str
    start: int
    end: int


class Piece(NamedTuple):
    """The tokens from `first` to before `last`, as what they are taken."""

    first: int
    last: int
    entry: Entry


class Edit(NamedTuple):
    """What stands in place of the prompt's characters from `start` to before `end`."""

    start: int
    end: int
    text: str


def write(
    prompt: str, typed: Sequence[Token], tokens: Sequence[Token], pieces: Sequence[Piece], soft: Sequence[bool]
) -> Reading:
    """The prompt in the words of its pieces. `tokens`: the `typed` ones, spelled right; `soft`: whether the next is near."""
    edits: dict[int, Edit] = {}
    read: list[Read] = []
    unknown: dict[str, str] = {}
    for index, piece in enumerate(pieces):
        start, end = tokens[piece.first].start, tokens[piece.last - 1].end
        was = prompt[start:end]
        if piece.entry.kind in ("name", "color", "phrase"):
            new, others = _noun(tokens, pieces, index, soft) if piece.entry.kind == "name" else (piece.entry.known, [])
            edits[start] = Edit(start, end, _as_capital(was, new))
            edits |= {edit.start: edit for edit in others}
            read.append(Read(was, new, piece.entry.source))
        elif piece.entry.kind in ("unknown", "tag"):
            unknown.setdefault(was.lower(), was)
        else:
            for before, after in zip(typed[piece.first : piece.last], tokens[piece.first : piece.last], strict=True):
                if before.word != after.word:
                    was = prompt[before.start : before.end]
                    edits[before.start] = Edit(before.start, before.end, _as_capital(was, after.word))
                    read.append(Read(was, after.word, "spelling"))
    _agree(prompt, tokens, soft, edits)
    return Reading(prompt, _apply(prompt, sorted(edits.values())), tuple(dict.fromkeys(read)), tuple(unknown.values()))


def _noun(tokens: Sequence[Token], pieces: Sequence[Piece], index: int, soft: Sequence[bool]) -> tuple[str, list[Edit]]:
    """A noun in its number, with an article where captions have one; and what becomes of the article before it."""
    piece = pieces[index]
    noun, countable = piece.entry.known, is_countable(piece.entry.known)
    before = _before(pieces, index, soft)
    word = "" if before is None else _last_word(before, tokens)
    many = piece.entry.many or word in COUNTS
    new = plural(noun) if many and countable else noun
    if word in ("a", "an") and before:
        token, after = tokens[before.last - 1], tokens[before.last]
        if noun in WITH_THE:
            return new, [Edit(token.start, token.end, "the")]
        return new, [] if countable and not many else [Edit(token.start, after.start, "")]
    bare = before is not None and before.last == piece.first and word in BEFORE_AN_ARTICLE
    return (with_article(noun) if bare and not many else new), []


def _before(pieces: Sequence[Piece], index: int, soft: Sequence[bool]) -> Piece | None:
    """The piece before a noun and the adjectives that belong to it."""
    while index and soft[pieces[index].first - 1]:
        index -= 1
        kind, last = pieces[index].entry.kind, pieces[index].entry.known.rpartition(" ")[2]
        if kind in ("known", "between", "name") or (kind == "phrase" and last in (*BEFORE_AN_ARTICLE, *COUNTS)):
            return pieces[index]
    return None


def _last_word(piece: Piece, tokens: Sequence[Token]) -> str:
    """That which will stand there."""
    return piece.entry.known.rpartition(" ")[2] if piece.entry.kind == "phrase" else tokens[piece.last - 1].word


def _agree(prompt: str, tokens: Sequence[Token], soft: Sequence[bool], edits: dict[int, Edit]) -> None:
    """Makes "a" and "an" sound right before what was written anew."""
    for token, following, near in zip(tokens, tokens[1:], soft, strict=False):
        if near and token.word in ("a", "an") and following.start in edits and token.start not in edits:
            was, new = prompt[token.start : token.end], article(edits[following.start].text)
            edits[token.start] = Edit(token.start, token.end, _as_capital(was, new))


def _as_capital(was: str, new: str) -> str:
    """`new` in capitals as `was` is: all of it, its first letter, or none."""
    if len(was) > 1 and was.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if was[:1].isupper() else new


def _apply(prompt: str, edits: Sequence[Edit]) -> str:
    return "".join(_parts(prompt, edits))


def _parts(prompt: str, edits: Sequence[Edit]) -> Iterator[str]:
    at = 0
    for edit in edits:
        yield from (prompt[at : edit.start], edit.text)
        at = edit.end
    yield prompt[at:]
