"""Tiny CLIPs of random weights, saved as bundles, for tests."""

from collections.abc import Sequence
from pathlib import Path

import torch

from unclip.models.clip import CLIP, SIZES
from unclip.tokenizer import Tokenizer
from unclip.weights.store import Part, save_bundle

MICRO = SIZES["micro"]
WORDS = ("a red disc", "a blue square", "a cat on a mat", "two green stars", "sunset over the sea")


def save_clip(folder: Path, seed: int, *, words: Sequence[str] = WORDS, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A bundle at `folder` with a CLIP of that seed, whose tokenizer knows `words`."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer.train(words, vocab=320, context=16)
    part = Part("clip", {"model": MICRO.model_dump(mode="json")}, CLIP(MICRO).state_dict())
    about = {"name": folder.name, "version": "1", "card": "", "provenance": {}}
    return save_bundle(folder, {"clip": part}, tokenizer_json=tokenizer.to_json(), dtype=dtype, **about)
