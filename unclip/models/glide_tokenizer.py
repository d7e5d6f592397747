"""GLIDE's prompts as token ids: GPT-2's byte-level BPE on lower-cased text (glide-text2im, tokenizer/bpe.py).

A sequence is pieces, then the end token up to the context, and a mask that is True on pieces: nothing marks a beginning, and
the network puts padding vectors of its own where the mask is False. Text is lower-cased and else left alone, so two spaces
are not one; the name of the end token in a prompt is text like any other.

The vocabulary is not ours to ship: `from_gpt2` reads GPT-2's two files, encoder.json and vocab.bpe, gzipped or not, and
`to_json` gives what a bundle keeps.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from unclip.errors import RequestError, WeightsError
from unclip.tokenizer import Tokens

END = "<|endoftext|>"


class GlideTokenizer:
    """Encodes prompts to a fixed context length; called as `tokenizer.Tokenizer` is."""

    def __init__(self, core: tokenizers.Tokenizer, context: int):
        end = core.token_to_id(END)
        if end is None or end != core.get_vocab_size() - 1:
            raise WeightsError(f"the tokenizer's last token is not {END}: expected GPT-2's vocabulary, as GLIDE has it")
        self._core = core
        self.context = context
        self.end: int = end

    @classmethod
    def from_gpt2(cls, encoder: str | Path, merges: str | Path, *, context: int = 128) -> Self:
        """From encoder.json, piece to id, and vocab.bpe, a heading and then one merge a line; WeightsError where unfit."""
        try:
            vocab = json.loads(_read(encoder))
            pairs = [tuple(line.split()) for line in _read(merges).split("\n")[1:] if line]
            core = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=pairs))  # pyright: ignore[reportArgumentType]
        except WeightsError:
            raise
        except Exception as error:  # the library raises a bare Exception for every fault of its arguments
            fault = " ".join(str(error).split())
            raise WeightsError(f"{encoder} and {merges} are not GPT-2's encoder.json and vocab.bpe: {fault}") from None
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # splits as GPT-2 does
        core.decoder = decoders.ByteLevel()
        return cls(core, context)

    @classmethod
    def from_json(cls, text: str, *, context: int, where: str = "tokenizer.json") -> Self:
        """What `to_json` gave; `where` names its origin in errors."""
        try:
            core = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # as above
            raise WeightsError(f"{where} is not a tokenizer: {' '.join(str(error).split())}") from None
        return cls(core, context)

    def to_json(self) -> str:
        """What `from_json` reads."""
        return self._core.to_str()

    @property
    def vocab(self) -> int:
        return self._core.get_vocab_size()

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Encode B prompts as (B, context). RequestError for one with lone surrogates, which Python makes of stray bytes."""
        for prompt in prompts:
            if any("\ud800" <= letter <= "\udfff" for letter in prompt):
                raise RequestError(f"the prompt {prompt!r} is not text: it holds bytes that are no utf-8")
        ids = torch.full((len(prompts), self.context), self.end, dtype=torch.int64)
        mask = torch.zeros(len(prompts), self.context, dtype=torch.bool)
        cut = []
        # Lower-cased by Python, as GLIDE has it: the library goes letter by letter and has no final sigma.
        for row, encoding in enumerate(self._core.encode_batch([prompt.lower() for prompt in prompts])):
            pieces = encoding.ids[: self.context]
            cut.append(len(encoding.ids) > self.context)
            ids[row, : len(pieces)] = torch.tensor(pieces, dtype=torch.int64)
            mask[row, : len(pieces)] = True
        return Tokens(ids, mask, tuple(cut))


def _read(path: str | Path) -> str:
    try:
        content = Path(path).read_bytes()
        return (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read the vocabulary {path}: {' '.join(str(error).split())}") from None
