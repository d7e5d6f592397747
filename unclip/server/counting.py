"""What becomes of a prompt before it is painted: how many tokens it has, where the text encoder stops, and how it is read.

A bundle's vocabulary is a file that the `tokenizers` library reads by itself, so the server's process counts without torch.
Models in other layouts keep theirs where only their loader finds it, and GLIDE's is of another kind: those are not counted.
Only a bundle brings words to read prompts with (docs/words.md).
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from unclip.errors import WeightsError
from unclip.server.jobs import PROMPT_LIMIT
from unclip.words import Reader, Words

SHIPPED = Path(__file__).parents[1] / "bundles"


class Counted(NamedTuple):
    """`count` tokens, of which `limit` are taken: the first `kept` code points of the prompt."""

    count: int
    limit: int
    kept: int


class Counter:
    """Counts by the vocabulary of one bundle."""

    def __init__(self, vocabulary: tokenizers.Tokenizer, limit: int):
        vocabulary.encode_special_tokens = True  # as text, as `unclip.tokenizer` has it
        vocabulary.no_padding()
        vocabulary.no_truncation()
        self._vocabulary, self._limit = vocabulary, limit

    def __call__(self, prompt: str) -> Counted:
        ends = [end for _, end in self._vocabulary.encode(prompt, add_special_tokens=False).offsets]
        kept = len(prompt) if len(ends) <= self._limit else ends[self._limit - 1]
        return Counted(len(ends), self._limit, kept)


@lru_cache(maxsize=16)
def counter(model: str) -> Counter | None:
    """The counter of a served model, as its config names it; None for one that cannot be counted. Reads it once."""
    for folder in (SHIPPED / model, Path(model)):
        try:
            context = json.loads((folder / "clip/config.json").read_text(encoding="utf-8"))["model"]["text"]["context"]
            vocabulary = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # the library raises a bare Exception for every fault of a file
            continue
        return Counter(vocabulary, context - 2)  # less the marks of its start and its end
    return None


@lru_cache(maxsize=16)
def reader(model: str) -> Reader | None:
    """What reads the prompts of a served model, as its config names it; None where they are painted as they are."""
    for folder in (SHIPPED / model, Path(model)):
        path = folder / "words.json"
        try:
            return Reader(Words.of(path.read_text(encoding="utf-8"), where=str(path)))
        except (OSError, UnicodeDecodeError, WeightsError):  # whoever loads the model says what is wrong with it
            continue
    return None


def told(model: str, prompt: str, *, as_typed: bool) -> dict[str, Any]:
    """What becomes of a prompt, as `/api/tokens` tells it; None is what cannot be told.

    Counted is what the model is given, which is not always what was typed. A prompt that no job takes is not read: it would
    hold up everybody else for half a second.
    """
    own = None if as_typed or len(prompt) > PROMPT_LIMIT else reader(model)
    reading = None if own is None else own.read(prompt)
    count = counter(model)
    counted = None if count is None else count(prompt if reading is None else reading.text)
    read = dict.fromkeys(("read", "words", "unknown")) if reading is None else reading.record()
    return {
        **(dict.fromkeys(Counted._fields) if counted is None else counted._asdict()),
        **{key: value for key, value in read.items() if key != "prompt"},
    }
