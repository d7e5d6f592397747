"""The clouds of a map: the pictures' z, their captions' text embeddings, and the z that a prior makes of those captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unclip.clip import unit
from unclip.maps.rows import Rows
from unclip.pipeline import UnCLIP
from unclip.rng import Rng

BATCH = 64  # captions that go through the prior together
PICTURES, CAPTIONS, PRIOR = "pictures", "captions", "prior"

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Cloud:
    """Points of one kind."""

    name: str
    points: Tensor
    """(n, E), of unit length."""
    rows: list[int]
    """Whose each is."""


def clouds_of(rows: Rows, prior: Tensor | None = None) -> list[Cloud]:
    """Pictures, captions where there are any, and `prior` (N, E), the z of those, if it is given."""
    captioned = [row for row, caption in enumerate(rows.captions) if caption]
    clouds = [Cloud(PICTURES, rows.z, list(range(len(rows))))]
    if captioned:
        clouds.append(Cloud(CAPTIONS, rows.text[captioned], captioned))
        clouds += [] if prior is None else [Cloud(PRIOR, prior[captioned], captioned)]
    return clouds


def predict(model: UnCLIP, captions: Sequence[str], *, seed: int = 0, progress: Progress | None = None) -> Tensor:
    """The prior's z for captions, of unit length (N, E); zeros for empty ones.

    One sample each, as the bundle says how to sample, without choosing the better of two as painting does, which costs twice
    as much. Captions that are the same have one z; distinct caption i has the seed `seed` + i. RequestError for a model
    without a prior.
    """
    distinct = list(dict.fromkeys(caption for caption in captions if caption))
    batches = [slice(start, start + BATCH) for start in range(0, len(distinct), BATCH)]
    texts = [model.encode_text(distinct[batch]) for batch in batches]
    model.null()  # while CLIP is in memory
    found: dict[str, Tensor] = {}
    for batch, text in zip(batches, texts, strict=True):
        seeds = [seed + i for i in range(len(distinct))[batch]]
        z = model.sample_z(text, Rng(seeds, device=model.device), candidates=1).float().cpu()
        found |= zip(distinct[batch], unit(z), strict=True)
        if progress is not None:
            progress(len(found), len(distinct))
    return torch.stack([found.get(caption, torch.zeros(model.clip.cfg.embed)) for caption in captions])
