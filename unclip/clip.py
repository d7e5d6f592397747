"""A CLIP by itself, which looks at pictures and reads sentences: what search, labels, maps and reranking are made of.

Any CLIP that `weights.opening` can open, with nothing of the model around it: its embeddings are raw, in fp32 and on the
CPU, whatever multiplied them. Dimension letters: N pictures or captions, E embedding, S the side that CLIP looks at.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.device import Precision, autocast, pick_device
from unclip.errors import WeightsError
from unclip.images import rgb, shrink, square_crop, to_tensor
from unclip.int8 import to_int8
from unclip.models.clip import CLIP
from unclip.shelf import Network, Shelf
from unclip.tokenizer import Tokenizer
from unclip.weights.opening import open_file, open_model
from unclip.weights.store import fingerprint

BATCH = 128
INT8_BATCH = 32  # of more, the widest layer leaves a processor's cache, and what is rounded is gone over several times
SUFFIXES = (".pt", ".bin", ".safetensors")  # of a CLIP in one file


class Clip:
    """A CLIP with its tokenizer, on one device. WeightsError for one that only reads, as some repositories hold."""

    def __init__(
        self,
        network: CLIP,
        tokenizer: Tokenizer,
        *,
        name: str,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
    ):
        if network.cfg.vision is None:
            raise WeightsError(f"{name} reads captions only: give a CLIP with an image encoder")
        self.name = name
        self.size = network.cfg.vision.image_size
        self.width = network.cfg.embed
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.tokenizer = tokenizer
        self._precision: Precision = precision
        self.int8 = False

    def use_int8(self) -> "Clip":
        """From now on the image encoder multiplies bytes (`unclip.int8`), for all its users. ConfigError where it cannot."""
        assert self.network.vision is not None
        if not self.int8:
            self.fingerprint  # noqa: B018  # of the weights as they were: it names the CLIP, not how it multiplies
            to_int8(self.network.vision)
            self.int8 = True
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Says which CLIP embedded something; embeddings of two CLIPs do not compare."""
        return fingerprint(self.network.state_dict())

    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """z (N, E) of pictures of any size, raw; what is outside of the middle square is not seen."""
        rows = [
            self.pixels(to_tensor([look(picture, self.size) for picture in pictures[start : start + BATCH]]))
            for start in range(0, len(pictures), BATCH)
        ]
        return torch.cat(rows) if rows else torch.zeros(0, self.width)

    def pixels(self, x: Tensor) -> Tensor:
        """z (N, E) of pictures as tensors (N, 3, S, S) in [-1, 1]."""
        with self._running():
            parts = x.split(INT8_BATCH) if self.int8 else [x]
            return torch.cat([self.network.encode_image(part.to(self.device)).float().cpu() for part in parts])

    def texts(self, captions: Sequence[str]) -> Tensor:
        """The text embeddings (N, E) of captions, raw; longer ones are cut, as `tokenizer(captions).cut` says."""
        rows = []
        for start in range(0, len(captions), BATCH):
            tokens = self.tokenizer(captions[start : start + BATCH])
            with self._running():
                text = self.network.encode_text(tokens.ids.to(self.device), tokens.mask.to(self.device))
            rows.append(text.pooled.float().cpu())
        return torch.cat(rows) if rows else torch.zeros(0, self.width)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with torch.inference_mode(), autocast(self.device, self._precision):
            yield


def load_clip(
    model: str | Path = "icons",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    tokenizer: Path | None = None,
) -> Clip:
    """The CLIP of whatever `model` names: a shipped model, a bundle, a repository of the hub, a folder, or one file.

    `tokenizer`: the vocabulary of a CLIP in one file, where it does not lie beside it. WeightsError where there is none.
    """
    one_file = Path(model).suffix in SUFFIXES and Path(model).is_file()
    source = open_file(model, tokenizer) if one_file else open_model(model)
    where = pick_device(device)
    shelf = Shelf(source, device=where, precision=precision, offload=True)  # no other part of the model is read
    names = shelf.names("clip")
    if not names:
        raise WeightsError(f"{model} has no CLIP")
    network = Network(shelf, names[0])
    words = source.tokenizer(network.cfg.text.context)
    assert isinstance(words, Tokenizer), "a model with a CLIP has CLIP's tokenizer"
    return Clip(network.module, words, name=source.name, device=where, precision=precision)


def look(picture: Image.Image, side: int) -> Image.Image:
    """The middle square of a picture at `side` px, as CLIP is shown it: upright, on white, by antialiased bicubic."""
    square = square_crop(rgb(picture))
    return square if square.width == side else Image.fromarray(shrink(square, side))


def unit(embeddings: Tensor) -> Tensor:
    """Rows of length one, which dot products compare; a row of zeros stays one."""
    return F.normalize(embeddings.float(), dim=-1)
