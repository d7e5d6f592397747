"""A model that can be loaded, wherever it lies and in whatever layout: what is known of it before a weight is read.

`opening.open_model` finds one; `pipeline.load` builds networks of it; `store.save_bundle` writes it as a bundle, reading one
part at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.models.glide_tokenizer import GlideTokenizer
from unclip.tokenizer import Tokenizer
from unclip.weights.store import Part, put_words, save_bundle


@dataclass(frozen=True)
class PartSource:
    """One network: its kind, its config as JSON values, and how to read its state dict, in our names, when it is wanted."""

    kind: str
    config: dict[str, Any]
    read: Callable[[], Mapping[str, Tensor]]
    where: str  # for messages: the file or folder that it comes from


@dataclass(frozen=True)
class ModelSource:
    """The networks of a model by name, in the order in which a prompt meets them."""

    name: str
    where: str
    networks: Mapping[str, PartSource]
    tokenizer: Callable[[int], Tokenizer | GlideTokenizer]
    """The tokenizer for a context of so many tokens."""
    words: Callable[[], str | None] = lambda: None
    """The text of its `words.json`; None of a model that comes without."""
    version: str = "1"
    card: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)


class Parts(Mapping[str, Part]):
    """The parts of a source as `store.save_bundle` takes them; each is read when it is asked for, and not kept."""

    def __init__(self, source: ModelSource):
        self._networks = source.networks

    def __getitem__(self, name: str) -> Part:
        network = self._networks[name]
        return Part(network.kind, network.config, network.read())

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)


def types() -> dict[str, torch.dtype | None]:
    """What weights may be saved as, by the word for it; None: as they are."""
    return {"as-is": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def save(source: ModelSource, folder: str | Path, *, name: str, dtype: torch.dtype | None = None) -> Path:
    """Writes the model as a bundle, a part at a time; `dtype` None keeps each tensor as it was published."""
    context = max(_contexts(source))
    bundle = save_bundle(
        folder,
        Parts(source),
        name=name,
        version=source.version,
        tokenizer_json=source.tokenizer(context).to_json(),
        card=source.card or f"# {name}\n",
        provenance=source.provenance,
        dtype=dtype,
    )
    if (words := source.words()) is not None:
        put_words(bundle, words)
    return bundle


def _contexts(source: ModelSource) -> list[int]:
    """How many tokens each text transformer among the parts reads."""
    return [part.config["model"]["text"]["context"] for part in source.networks.values() if part.config["model"].get("text")]
