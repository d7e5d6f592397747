"""Princeton's WordNet 3.1 as far as a thesaurus needs it: what nouns and adjectives mean, and what is a kind of what.

A sense of a word is a synset, the words that share it; nouns have others above them, of which they are a kind. Files are
read in the format of its manual page wndb(5WN). WordNet says how often a sense was met in a text that people had tagged,
for some words; senses are in that order.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

FILES = r"(data|index)\.(noun|verb|adj)|index\.sense"
NOUN, VERB, ADJECTIVE = "noun", "verb", "adj"
_PARTS = {"1": NOUN, "2": VERB, "3": ADJECTIVE, "5": ADJECTIVE}  # in a sense's key; 4 are adverbs
_HYPERNYM, _DERIVED = "@", "+"


class Synset(NamedTuple):
    """A meaning: its words as WordNet writes them, the number of its lexicographer's file, and what the file says of it.

    `above`: the senses that it is a kind of; `kin`: nouns that one of its words comes from, or that come from one.
    """

    words: tuple[str, ...]
    file: int
    above: tuple[str, ...]
    kin: tuple[str, ...]
    gloss: str


class WordNet:
    """Senses by their part of speech and offset in its file.

    `senses[part][word]` are the word's, in lower case, the most frequent first; `met[part][word]` how often each was met.
    """

    def __init__(self, files: Mapping[str, bytes]):
        lines = {name: data.decode("latin-1").splitlines() for name, data in files.items()}
        self.nouns = dict(map(_synset, _content(lines["data.noun"])))
        self.adjectives = dict(map(_synset, _content(lines["data.adj"])))
        self.senses = {part: dict(map(_index, _content(lines[f"index.{part}"]))) for part in (NOUN, VERB, ADJECTIVE)}
        self.met: dict[str, dict[str, dict[str, int]]] = {part: defaultdict(dict) for part in self.senses}
        for line in lines["index.sense"]:
            key, offset, _, count = line.split()
            word, _, rest = key.partition("%")
            if count != "0" and rest[0] in _PARTS:
                self.met[_PARTS[rest[0]]][_plain(word)][offset] = int(count)
        self.below: dict[str, list[str]] = defaultdict(list)
        for offset, synset in self.nouns.items():
            for higher in synset.above:
                self.below[higher].append(offset)
        self.ancestors = lru_cache(maxsize=None)(self._ancestors)

    def often(self, part: str, word: str) -> int:
        """How often the word's most frequent sense of that part of speech was met."""
        return max(self.met[part].get(word, {"": 0}).values())

    def likeness(self, one: str, other: str) -> float:
        """How near two nouns' senses are, 0 to 1: twice the depth of what is above both, over both depths.

        Wu and Palmer, "Verb semantics and lexical selection" (1994), section 4.
        """
        ours, theirs = self.ancestors(one), self.ancestors(other)
        shared = ours.keys() & theirs.keys()
        if not shared:
            return 0.0
        deepest = max(shared, key=lambda offset: (self._depth(offset), offset))
        depth = 2 * self._depth(deepest)
        return depth / (depth + ours[deepest] + theirs[deepest])

    def _ancestors(self, offset: str) -> dict[str, int]:
        """Everything above a sense, itself among it, and in how many steps it is reached."""
        found, edge, steps = {offset: 0}, [offset], 0
        while edge:
            steps += 1
            edge = [higher for lower in edge for higher in self.nouns[lower].above if higher not in found]
            found |= dict.fromkeys(edge, steps)
        return found

    def _depth(self, offset: str) -> int:
        return 1 + max(self.ancestors(offset).values())


def _content(lines: list[str]) -> Iterator[str]:
    """The lines after the licence, whose lines begin with two blanks."""
    return (line for line in lines if not line.startswith("  "))


def _synset(line: str) -> tuple[str, Synset]:
    values, _, gloss = line.partition(" | ")
    fields = values.split()
    count = int(fields[3], 16)
    words = tuple(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    pointers = fields[5 + 2 * count :]
    targets = list(zip(pointers[::4], pointers[1::4], pointers[2::4], strict=False))
    above = tuple(target for kind, target, _ in targets if kind == _HYPERNYM)
    kin = tuple(target for kind, target, part in targets if kind == _DERIVED and part == "n")
    return fields[0], Synset(words, int(fields[1]), above, kin, gloss.strip())


def _index(line: str) -> tuple[str, tuple[str, ...]]:
    fields = line.split()
    return _plain(fields[0]), tuple(fields[-int(fields[2]) :])


def _plain(word: str) -> str:
    return word.replace("_", " ")
