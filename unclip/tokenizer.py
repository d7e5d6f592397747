"""Prompts to token ids: byte-level BPE in CLIP's manner, with CLIP's own vocabulary or a small one trained on the captions.

A sequence is [start] pieces [end], padded with `pad` to the context length. Text is NFC-normalised, lower-cased and has its
white space collapsed, as in CLIP. Bytes are the base alphabet, so that no prompt in any language is unencodable; the names
of special tokens in a prompt are text like any other. A prompt that does not fit is cut before [end], and `Tokens.cut` says
so.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import tokenizers
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from unclip.errors import RequestError, WeightsError

START, END, PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"
# CLIP's split (clip/simple_tokenizer.py): contractions, runs of letters, single digits, runs of anything else.
_SPLIT = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
_END_OF_WORD = "</w>"
_PRIVATE = 0xE000  # of Unicode's private use area


class Tokens(NamedTuple):
    """ids (B, L) int64; mask (B, L) bool, True on [start] pieces [end]; cut (B,): did the prompt lose its tail?"""

    ids: Tensor
    mask: Tensor
    cut: tuple[bool, ...]


class Tokenizer:
    """Encodes prompts to a fixed context length."""

    def __init__(self, core: tokenizers.Tokenizer, context: int):
        core.encode_special_tokens = True  # as text: only this class puts them in
        self._core = core
        self.context = context
        ids = [core.token_to_id(token) for token in (START, END)]
        if None in ids:
            raise WeightsError(f"the tokenizer lacks {START} or {END}: it is not one of CLIP's kind")
        self.start, self.end = ids
        pad = core.token_to_id(PAD)
        self.pad = 0 if pad is None else pad  # CLIP has no pad token and pads with id 0

    @classmethod
    def train(cls, captions: Iterable[str], *, vocab: int, context: int) -> Self:
        """A new vocabulary of at most `vocab` entries, learnt on `captions`: the same captions, the same vocabulary.

        As in CLIP, every byte is an entry, and another where it ends a word: with three special tokens at least 515 entries.
        """
        core = tokenizers.Tokenizer(models.BPE())
        core.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase(), normalizers.Strip()]
        )
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(_SPLIT, behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        core.decoder = decoders.Sequence([decoders.BPEDecoder(suffix=_END_OF_WORD)])
        core.model = _learn(core, captions, vocab)
        core.add_special_tokens([PAD, START, END])
        return cls(core, context)

    @classmethod
    def load(cls, path: str | Path, *, context: int) -> Self:
        """A `tokenizer.json` of the `tokenizers` library; WeightsError when it is missing or is something else."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WeightsError(f"cannot read the tokenizer {path}: {error}") from None
        return cls.from_json(text, context=context, where=str(path))

    @classmethod
    def from_json(cls, text: str, *, context: int, where: str = "tokenizer.json") -> Self:
        """What `to_json` gave; `where` names its origin in errors."""
        try:
            core = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises a bare Exception for every fault of the text
            raise WeightsError(f"{where} is not a tokenizer: {error}") from None
        return cls(core, context)

    def to_json(self) -> str:
        """What `load` reads."""
        return self._core.to_str()

    @property
    def vocab(self) -> int:
        return self._core.get_vocab_size()

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Encode B prompts as (B, context). RequestError for one with lone surrogates, which Python makes of stray bytes."""
        for prompt in prompts:
            if not prompt.isascii() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
                raise RequestError(f"the prompt {prompt!r} is not text: it holds bytes that are no utf-8")
        room = self.context - 2
        ids = torch.full((len(prompts), self.context), self.pad, dtype=torch.int64)
        mask = torch.zeros(len(prompts), self.context, dtype=torch.bool)
        cut = []
        for row, encoding in enumerate(self._core.encode_batch(list(prompts), add_special_tokens=False)):
            pieces = encoding.ids[:room]
            cut.append(len(encoding.ids) > room)
            sequence = [self.start, *pieces, self.end]
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = True
        return Tokens(ids, mask, tuple(cut))


def _learn(core: tokenizers.Tokenizer, captions: Iterable[str], vocab: int) -> models.BPE:
    """A vocabulary for `core`, learnt on captions that it has normalised and split into words of one letter a byte.

    The library's trainer numbers the letters that end words in the order of a randomly seeded hash map, and leaves out those
    it did not meet. Each is handed to it as a letter of its own, from the private use area, and gets its suffix afterwards.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[PAD, START, END],
        initial_alphabet=[*alphabet, *(chr(_PRIVATE + ord(letter)) for letter in alphabet)],
        show_progress=False,
    )
    bare = tokenizers.Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bare.train_from_iterator((_with_private_endings(core, caption) for caption in captions), trainer)
    learnt = json.loads(bare.to_str())["model"]
    suffixed = {_PRIVATE + ord(letter): letter + _END_OF_WORD for letter in alphabet}
    entries = {token.translate(suffixed): index for token, index in learnt["vocab"].items()}
    merges = [(left.translate(suffixed), right.translate(suffixed)) for left, right in learnt["merges"]]
    return models.BPE(vocab=entries, merges=merges, end_of_word_suffix=_END_OF_WORD)


def _with_private_endings(core: tokenizers.Tokenizer, caption: str) -> str:
    words = core.pre_tokenizer.pre_tokenize_str(core.normalizer.normalize_str(caption))
    return " ".join(word[:-1] + chr(_PRIVATE + ord(word[-1])) for word, _ in words)
