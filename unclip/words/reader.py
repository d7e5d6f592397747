"""Cutting a prompt into phrases: dynamic programming over its words, the cheapest cut wins."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from unclip.data.icons.english import is_plural, singulars, slips
from unclip.words.vocabulary import JOINT, WORD, Entry, Words, entries, plain, split
from unclip.words.writing import Piece, Reading, Token, write

SHORTEST = 6  # letters of a word that may have been misspelled
# Of a phrase of each kind: what is known costs nothing, so that it is never changed, what is unknown more than all else.
COST = {"known": 0, "between": 0, "tint": 0, "phrase": 1, "met": 2, "name": 3, "color": 3, "tag": 8, "unknown": 20}
LITTLE = re.compile(  # what no caption says and nobody needs to hear of
    "about|after|again|all|also|am|any|are|as|at|be|been|being|but|by|can|could|d|did|do|does|doing|for|from|get|give|had|has|have"
    "|he|her|here|hers|his|how|i|if|image|in|into|is|it|its|just|ll|m|make|me|mine|must|my|no|nor|not|now|off|or|other|our|ours"
    "|out|own|paint|picture|please|put|re|s|she|should|show|so|some|such|t|than|that|their|them|then|there|these|they|this|those"
    "|through|too|up|us|ve|very|was|we|were|what|when|where|which|while|who|whose|will|with|would|you|your"
)


class Reader:
    """Reads prompts with the words of a model."""

    def __init__(self, words: Words):
        self.words = words
        self._table: dict[tuple[str, ...], Entry] = {}
        for phrase, entry in entries(words):
            self._table.setdefault(split(phrase), entry)
        named = [*words.names, *(phrase for style in words.styles for phrase in style)]
        self._met = {word for phrase in named for word in split(phrase)}
        self._tags = {split(tag) for tag in words.tags}
        heard = {word for phrase in self._table for word in phrase}
        self._heard = heard | set(words.spelled)
        self._things = {name: thing for thing, others in words.things.items() for name in (thing, *others)}
        named = {word for phrase, entry in self._table.items() if entry.kind == "known" for word in phrase}
        self._spellable = {word for word in named if len(word) >= SHORTEST}
        self._longest_word = max(map(len, self._spellable), default=0)
        self._longest = max(map(len, self._table), default=1)
        self.read = lru_cache(maxsize=256)(self._read)

    def look_up(self, phrase: str) -> dict[str, Any]:
        """What is known of one word or phrase: what it is read as and why, or, of a known one, what is read as it."""
        key = split(phrase)
        entry = self._find(key)
        told: dict[str, Any] = {"word": phrase, "known": entry.kind in ("known", "between", "tint")}
        if entry.kind in ("name", "color", "phrase"):
            return told | {"read_as": entry.known, "source": entry.source}
        if not told["known"]:
            return told | {"met": key in self._tags or bool(key and self._met.issuperset(key))}
        thing = self._things.get(entry.known, entry.known)
        read = {source: readings[thing] for source, readings in self.words.readings.items() if thing in readings}
        return told | {"thing": thing, "names": self.words.things.get(thing, ()), "read_as_it": read}

    def _read(self, prompt: str) -> Reading:
        """The prompt in known words, as far as there are any for it."""
        typed = [Token(plain(found[0]), *found.span()) for found in WORD.finditer(prompt)]
        tokens = [token._replace(word=self._mended(token.word)) for token in typed]
        soft = [bool(JOINT.fullmatch(prompt[one.end : two.start])) for one, two in pairwise(tokens)]
        soft.append(False)
        pieces = self._joined(self._cut(prompt, tokens, soft), soft)
        return write(prompt, typed, tokens, list(self._checked(pieces, tokens, soft)), soft)

    def _mended(self, word: str) -> str:
        """The word, or the only one of the names' that it is one letter away from, if it is nothing else."""
        if not SHORTEST <= len(word) <= self._longest_word + 1 or not (word.isascii() and word.isalpha()):
            return word
        if LITTLE.fullmatch(word) or any(one in self._heard for one in (word, *singulars(word))):
            return word
        near = slips(word) & self._spellable
        return near.pop() if len(near) == 1 else word

    def _cut(self, prompt: str, tokens: Sequence[Token], soft: Sequence[bool]) -> list[Piece]:
        """The cut that costs least, and of such cuts one of the fewest pieces."""
        words, end = [token.word for token in tokens], len(tokens)
        behind = [False, *("," in prompt[one.end : two.start] for one, two in pairwise(tokens))]
        best: list[tuple[int, int, Piece | None]] = [(0, 0, None)] * (end + 1)
        for first in reversed(range(end)):
            choices = []
            for last in range(first + 1, min(end, first + self._longest) + 1):
                if last - first > 1 and not soft[last - 2]:
                    break
                entry = self._find(tuple(words[first:last]), alone=last - first == 1)
                closed = last == end or behind[last] or words[last] == "on"  # a background may follow the last tag
                tagged = behind[first] and closed and tuple(words[first:last]) in self._tags
                cost = 0 if tagged else COST[entry.kind]
                if last - first == 1 or entry.kind != "unknown":
                    piece = Piece(first, last, Entry("known", "") if tagged else entry)
                    choices.append((cost + best[last][0], 1 + best[last][1], piece))
            best[first] = min(choices, key=lambda choice: choice[:2])
        pieces, at = [], 0
        while (piece := best[at][2]) is not None:
            pieces.append(piece)
            at = piece.last
        return pieces

    def _find(self, words: tuple[str, ...], *, alone: bool = True) -> Entry:
        """What the words are as a whole; of one `alone`, if nothing else, whether it was met."""
        met = bool(words) and alone and self._is_met(words[0])
        entry = self._table.get(words)
        if entry is not None and not (met and entry.kind == "tag"):
            return entry._replace(many=entry.many or (entry.kind == "name" and is_plural(" ".join(words))))
        for one in singulars(words[-1]) if words else ():
            entry = self._table.get((*words[:-1], one))
            if entry is not None and (entry.kind == "name" or (entry.kind == "tag" and not met)):
                return entry._replace(many=True)
        return Entry("met" if met else "unknown", "")

    def _is_met(self, word: str) -> bool:
        return any(one in self._met or LITTLE.fullmatch(one) for one in (word, *singulars(word)))

    def _joined(self, pieces: Sequence[Piece], soft: Sequence[bool]) -> list[Piece]:
        """The pieces, a word that is read as the noun behind it made one with that: a "puppy dog" is one dog."""
        joined: list[Piece] = []
        for piece in pieces:
            before = joined[-1] if joined and soft[piece.first - 1] else None
            if before and before.entry.kind == "name" and self._same(before.entry, piece.entry):
                joined[-1] = Piece(before.first, piece.last, before.entry._replace(many=piece.entry.many))
            else:
                joined.append(piece)
        return joined

    def _same(self, one: Entry, other: Entry) -> bool:
        """Whether two nouns are of the same thing."""
        return other.kind in ("known", "name") and self._things.get(one.known) == self._things.get(other.known, "")

    def _checked(self, pieces: Sequence[Piece], tokens: Sequence[Token], soft: Sequence[bool]) -> Iterator[Piece]:
        """The pieces, less what the words around them say is not meant, which stays as it is.

        A noun before "of" says how much, or what kind of picture; a shade is one before a noun, or a background.
        """
        for number, piece in enumerate(pieces, 1):
            kind = piece.entry.kind
            after = pieces[number] if number < len(pieces) and soft[piece.last - 1] else None
            word = tokens[after.first].word if after else ""
            shade = after and (after.entry.kind != "between" or word in ("to", "gradient", "background"))
            if (kind == "name" and word == "of") or (kind == "color" and not shade):
                for at in range(piece.first, piece.last):
                    yield Piece(at, at + 1, Entry("met" if self._is_met(tokens[at].word) else "unknown", ""))
            else:
                yield piece
