"""Prompts to token ids: byte-level BPE in CLIP's manner, with CLIP's own vocabulary or a small one trained on the captions.

A sequence is [start] pieces [end], padded with `pad` to the context length. Text is NFC-normalised, lower-cased and has its
white space collapsed, as in CLIP. Bytes are the base alphabet, so that no prompt in any language is unencodable; the names
of special tokens in a prompt are text like any other. A prompt that does not fit is cut before [end], and `Tokens.cut` says
so.

OpenAI's own code first mends the text (ftfy, HTML entities). This one does not, nor does Hugging Face's, whose ids are these
for the same vocabulary.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

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
_MERGES = 49152 - 256 - 2  # of the lines in OpenAI's file, those that CLIP takes (clip/simple_tokenizer.py)


class Tokens(NamedTuple):
    """ids (B, L) int64; mask (B, L) bool, True on [start] pieces [end]; cut (B,): did the prompt lose its tail?"""

    ids: Tensor
    mask: Tensor
    cut: tuple[bool, ...]


class Tokenizer:
    """Encodes prompts to a fixed context length."""

    def __init__(self, core: tokenizers.Tokenizer, context: int):
        core.encode_special_tokens = True  # as text: only this class puts them in
        self._padding = core.padding
        core.no_padding()  # this class pads and cuts, to the context
        core.no_truncation()
        self._core = core
        self.context = context
        ids = [core.token_to_id(token) for token in (START, END)]
        if None in ids:
            raise WeightsError(f"the tokenizer lacks {START} or {END}: it is not one of CLIP's kind")
        self.start, self.end = ids
        # A published vocabulary says what it is padded with, one trained here has <|pad|>; without either it is id 0.
        self.pad: int = self._padding["pad_id"] if self._padding else core.token_to_id(PAD) or 0

    @classmethod
    def train(cls, captions: Iterable[str], *, vocab: int, context: int) -> Self:
        """A new vocabulary of at most `vocab` entries, learnt on `captions`: the same captions, the same vocabulary.

        As in CLIP, every byte is an entry, and another where it ends a word: with three special tokens at least 515 entries.
        """
        core = _core()
        core.model = _learn(core, captions, vocab)
        core.add_special_tokens([PAD, START, END])
        return cls(core, context)

    @classmethod
    def from_hugging_face(cls, folder: str | Path, *, context: int) -> Self:
        """The vocabulary of a Hugging Face folder: its `tokenizer.json`, else its `vocab.json` and `merges.txt`.

        Only the vocabulary, the merges and the pad token are the folder's; the ids are those of transformers' CLIPTokenizer.
        There is one difference: that takes the folder's special tokens out of a prompt wherever it meets them, the pad token
        too, which in Karlo and Stable Diffusion 2 is "!". Here, as in OpenAI's own code, an exclamation mark is one.
        WeightsError when files are missing or are not those of CLIP's tokenizer.
        """
        folder = Path(folder)
        whole = folder / "tokenizer.json"
        if whole.is_file():
            entries, merges = _vocabulary(whole)
        else:
            files = folder / "vocab.json", folder / "merges.txt"
            for file in files:
                if not file.is_file():
                    raise WeightsError(f"{folder} has no {file.name}: expected tokenizer.json, or vocab.json and merges.txt")
            try:
                entries, merges = models.BPE.read_file(*map(str, files))
            except Exception as error:  # the library raises a bare Exception for every fault of the files
                raise WeightsError(f"{files[0]} and merges.txt are not a vocabulary: {_one_line(error)}") from None
        pad = _pad_token(folder)
        if not isinstance(pad, str) or pad not in entries:
            raise WeightsError(
                f"{folder} pads with {pad!r}, which is not in its vocabulary: correct its tokenizer_config.json"
            )
        return cls._published(entries, merges, pad, context, where=str(folder))

    @classmethod
    def from_openai(cls, path: str | Path, *, context: int) -> Self:
        """The vocabulary of OpenAI's CLIP and of open_clip: `bpe_simple_vocab_16e6.txt`, or that with .gz. Pads with id 0.

        Ids count the letters of bytes, these at the ends of words, the merges in their order, then the two special tokens.
        """
        try:
            content = Path(path).read_bytes()
            text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise WeightsError(f"cannot read the vocabulary {path}: {_one_line(error)}") from None
        first, *lines = text.split("\n")
        merges = [line.split() for line in lines[:_MERGES] if line.strip()]
        if "#version" not in first or not merges or any(len(merge) != 2 for merge in merges):
            raise WeightsError(
                f"{path} is not OpenAI's list of merges: expected a line with #version, then two pieces a line"
            )
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokens = [*letters, *(letter + _END_OF_WORD for letter in letters), *map("".join, merges), START, END]
        entries = {token: index for index, token in enumerate(tokens)}
        return cls._published(entries, [(left, right) for left, right in merges], tokens[0], context, where=str(path))

    @classmethod
    def _published(
        cls, entries: dict[str, int], merges: list[tuple[str, str]], pad: str, context: int, *, where: str
    ) -> Self:
        core = _core()
        try:
            core.model = models.BPE(vocab=entries, merges=merges, end_of_word_suffix=_END_OF_WORD, unk_token=END)
        except Exception as error:  # as above
            raise WeightsError(f"{where} has merges that do not fit its vocabulary: {_one_line(error)}") from None
        core.enable_padding(pad_id=entries[pad], pad_token=pad)
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
        """What `load` reads. What a published vocabulary is padded with is in its section `padding`."""
        if not self._padding:
            return self._core.to_str()
        core = tokenizers.Tokenizer.from_str(self._core.to_str())
        core.enable_padding(pad_id=self.pad, pad_token=self._padding["pad_token"])
        return core.to_str()

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


def _core() -> tokenizers.Tokenizer:
    """CLIP's way with text, without a vocabulary."""
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
    return core


def _vocabulary(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The entries and merges in a `tokenizer.json`, whose older versions write a merge as one string."""
    values = _read_json(path)
    try:
        model = values["model"]
        added = {token["content"]: token["id"] for token in values.get("added_tokens", ())}
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        entries, merges = {**model["vocab"], **added}, [(left, right) for left, right in pairs]
        suffix = model["end_of_word_suffix"]
    except (LookupError, TypeError, ValueError, AttributeError):
        suffix = None
    if suffix != _END_OF_WORD:
        raise WeightsError(
            f"{path} is not a tokenizer of CLIP's kind: expected BPE with {_END_OF_WORD} at the ends of words"
        )
    return entries, merges


def _pad_token(folder: Path) -> Any:
    """The token that transformers would pad with: what the folder's files say, else [end]."""
    names = ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
    config, special, whole = (_read_json(folder / name) if (folder / name).is_file() else {} for name in names)
    said = config if "added_tokens_decoder" in config else {**config, **special}  # which replaced the special tokens' map
    padding = whole.get("padding")
    pad = said.get("pad_token") or (padding.get("pad_token") if isinstance(padding, dict) else END)
    return pad.get("content") if isinstance(pad, dict) else pad


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds a {type(values).__name__}, expected an object")
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


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
