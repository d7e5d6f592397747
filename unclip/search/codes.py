"""Rows of an index as bytes in memory: cosines within a bound that is known, from half the bytes of fp16.

A row of length one is taken for step * code, a code being E whole numbers up to 127. A query is the sum of two such vectors,
the second 254 times finer, so that it loses nothing beside what the rows lose. Products of whole numbers are exact, and
oneDNN's kernel for them keeps up with memory, where those for fp16 and bf16 wait for the processor.

Dimension letters: Q queries, E embedding, n rows.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from unclip.int8 import MOST, TINY, ZERO, codes_of, multiply, pack

FINER = 2 * MOST  # how much finer the second part of a query is: what the first leaves is half a step at most


class Codes:
    """Rows, packed for the kernel. `error`: by how much any row is off its code, as the length of the difference."""

    def __init__(self, parts: Iterable[Tensor], count: int):
        """parts: `count` rows of length one or zeros, few at a time, fp32 (m, E)."""
        done, self.error = 0, 0.0
        self._steps, codes = torch.empty(count), None
        for part in parts:
            codes = torch.empty(count, part.shape[1], dtype=torch.int8) if codes is None else codes
            rounded, steps = codes_of(part)
            here = slice(done, done + len(part))
            codes[here], self._steps[here] = rounded, steps
            self.error = max(self.error, float((part - rounded.mul_(steps[:, None])).norm(dim=1).max()))
            done = here.stop
        assert codes is not None, "a block has rows"
        self._packed = pack(codes)

    def cosines(self, q: Tensor) -> Tensor:
        """Nearly the cosines (Q, n) fp32 with unit vectors q (Q, E) fp32: off by `error` and `lost(q)` at most."""
        coarse, fine, step = _split(q)
        products = multiply((torch.cat([coarse, fine]) + ZERO).to(torch.uint8), self._packed, torch.ones(1))
        first, second = products.chunk(2)
        return first.add_(second, alpha=1 / FINER).mul_(step[:, None]).mul_(self._steps)


def lost(q: Tensor) -> Tensor:
    """How far (Q,) the vectors q (Q, E) are from what stands for them."""
    coarse, fine, step = _split(q)
    return (q.double() - step.double()[:, None] * (coarse.double() + fine.double() / FINER)).norm(dim=1).float()


def _split(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whole numbers (Q, E) each, from -MOST to MOST, and steps (Q,), of which q is nearly step * (coarse + fine / FINER)."""
    step = q.abs().amax(dim=1).div(MOST).clamp(min=TINY)
    scaled = q / step[:, None]
    coarse = scaled.round()
    return coarse, (FINER * (scaled - coarse)).round().clamp_(-MOST, MOST), step
