"""How many parameters each network has at each size, beside what the paper says of its own (2204.06125, Table 3).

Networks are built on the meta device: no memory, a second for all of them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from unclip.config import Config
from unclip.models import clip, decoder, prior, upsampler

SIZES = ("micro", "icons", "paper")
# Table 3, rounded there as here. It does not give CLIP's.
PAPER = {"prior": 1.0e9, "decoder": 3.5e9, "upsampler_256": 7.0e8, "upsampler_1024": 3.0e8}
EXPLAINED = {
    "prior": "24 blocks of width 2048 have 12 * 2048^2 = 50.3M each, 1.21B in all: the paper rounds down to 1B.",
    "decoder": "With the text transformer of its own, 1.31B, that the paper counts in; micro and icons take CLIP's states.",
}


class Row(NamedTuple):
    """A network's name in a bundle, its parameters by size, the paper's number or None."""

    part: str
    parameters: dict[str, int]
    paper: float | None

    @property
    def deviation(self) -> float | None:
        """Our `paper` size over the paper's number, minus 1; None where the paper gives none."""
        return None if self.paper is None else self.parameters["paper"] / self.paper - 1


def table() -> list[Row]:
    """A row for each network, in the order in which a prompt meets them."""
    sides = dict.fromkeys(side for by_side in upsampler.SIZES.values() for side in by_side)
    networks = [
        ("clip", clip.CLIP, clip.SIZES),
        ("prior", prior.Prior, prior.SIZES),
        ("decoder", decoder.Decoder, decoder.SIZES),
    ]
    networks += [(f"upsampler_{side}", upsampler.Upsampler, _of_side(side)) for side in sides]
    return [Row(part, dict(_counts(make, sizes)), PAPER.get(part)) for part, make, sizes in networks]


def _of_side(side: int) -> dict[str, Config]:
    return {size: by_side[side] for size, by_side in upsampler.SIZES.items() if side in by_side}


def _counts(make: Callable[..., nn.Module], sizes: dict[str, Config]) -> Iterator[tuple[str, int]]:
    for size, cfg in sizes.items():
        with torch.device("meta"):
            yield size, sum(parameter.numel() for parameter in make(cfg).parameters())
