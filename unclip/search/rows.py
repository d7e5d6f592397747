"""One side of an index, its pictures or its captions, as one long matrix that is mapped and never in memory whole.

The pictures' rows of our own indices have length one. Others' have any length, are zeros or NaN, and a caption's are zeros
where there is none: there, lengths are measured once, when a block is first read. Nobody finds a row without a direction.

A process that asks often holds them in memory as bytes, which are multiplied at the speed of memory (codes.py).
"""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from unclip import int8
from unclip.errors import DataError
from unclip.search import codes
from unclip.search.layout import TEXTS, Index

Among = Literal["image", "text"]
"""What is looked through: embeddings of pictures, or those of their captions."""

BLOCK = 1 << 20  # rows that are multiplied at once: threads that wait for each other should do so seldom
WIDENED = 1 << 24  # numbers that are in fp32 at once, 64 MB: for the same reason
HELD = 1 << 31  # bytes of codes of one side that a process keeps at most: four million rows of 512 numbers
NARROW = (2.0**-4, 2.0**15)  # lengths between which a product in fp16 neither overflows nor loses more than its rounding


class Block:
    """Rows (n, E) that follow one another, as they are mapped, fp16 or fp32; the first one's id is `start`.

    `unit`: they are known to have length one, but for what fp16 rounds.
    """

    def __init__(self, start: int, rows: Tensor, *, unit: bool):
        self.start, self.rows, self._unit = start, rows, unit

    def widened(self) -> Iterator[Tensor]:
        """The rows in fp32, few at a time, each in the place of the ones before."""
        parts = self.rows.split(max(1, WIDENED // self.rows.shape[1]))
        wide = torch.empty(parts[0].shape)
        for part in parts:
            yield part if part.dtype == wide.dtype else wide[: len(part)].copy_(part)

    @cached_property
    def codes(self) -> codes.Codes:
        """The rows' directions as bytes, in memory; zeros for a row without one."""

        def directions() -> Iterator[Tensor]:
            done = 0
            for part in self.widened():
                inverse = self.inverse[done : done + len(part), None]
                yield (part * inverse).nan_to_num_(nan=0, posinf=0, neginf=0)
                done += len(part)

        return codes.Codes(directions(), len(self.rows))

    @cached_property
    def lengths(self) -> Tensor:
        """(n,) fp32; 0 for a row without a direction."""
        if self._unit:
            return torch.ones(len(self.rows))
        lengths = [torch.linalg.vector_norm(part, dim=1) for part in self.widened()]
        return torch.cat(lengths).nan_to_num_(nan=0, posinf=0)

    @cached_property
    def inverse(self) -> Tensor:
        """(n,) fp32: what makes products with the rows cosines."""
        return self.lengths.reciprocal().masked_fill_(self.lengths == 0, 0)

    @cached_property
    def void(self) -> Tensor | None:
        """Which rows have no direction, (n,) bool; None where all have one."""
        without = self.lengths == 0
        return without if bool(without.any()) else None

    @cached_property
    def narrow(self) -> bool:
        """Whether fp16 holds the rows and their products with a unit vector."""
        lengths = self.lengths[self.lengths > 0]
        fits = len(lengths) > 0 and NARROW[0] <= float(lengths.min()) and float(lengths.max()) <= NARROW[1]
        return self.rows.dtype == torch.float16 and fits


class Side:
    """The rows of some shards, one after the other; `unit`: they are known to have length one."""

    def __init__(self, shards: Sequence[np.ndarray], *, unit: bool = False):
        self._shards, self.unit = shards, unit
        self.held = False  # as bytes too
        self._ends = np.cumsum([len(shard) for shard in shards])
        self.width = shards[0].shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that nobody may write: nobody does
            tensors = [torch.from_numpy(shard) for shard in shards if len(shard)]
        rows = [part for tensor in tensors for part in tensor.split(BLOCK)]
        starts = np.cumsum([0, *map(len, rows)]).tolist()
        self.blocks = [Block(start, part, unit=unit) for start, part in zip(starts, rows, strict=False)]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def hold(self) -> None:
        """Keeps the rows as bytes too, if they are not too many and the processor can. Others may ask meanwhile."""
        if len(self) * self.width <= HELD and int8.available():
            for block in self.blocks:
                _ = block.codes
            self.held = True

    def take(self, ids: Tensor) -> Tensor:
        """Some rows in fp32, of the length that they have: ids of any shape (...) give (..., E)."""
        flat = ids.flatten().numpy()
        where = np.searchsorted(self._ends, flat, side="right")
        rows = np.empty((len(flat), self.width), np.float32)
        for shard in np.unique(where):
            chosen = where == shard
            rows[chosen] = self._shards[shard][flat[chosen] - self._ends[shard] + len(self._shards[shard])]
        return torch.from_numpy(rows).reshape(*ids.shape, self.width)


_SIDES: WeakKeyDictionary[Index, dict[Among, Side]] = WeakKeyDictionary()


def side_of(index: Index, among: Among) -> Side:
    """A side of an index, the same one each time, so that lengths are measured once. DataError where it is not there."""
    sides = _SIDES.setdefault(index, {})
    if among not in sides:
        shards = index.images if among == "image" else index.texts
        if shards is None:
            raise DataError(f"{index.folder} knows no captions: it has no {TEXTS}; look among the pictures")
        sides[among] = Side(shards, unit=among == "image" and index.manifest is not None)
    return sides[among]
