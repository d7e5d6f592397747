"""The average of the weights over training, which is what samples and bundles are made of."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Ema:
    """An exponential moving average of the trained parameters of `module`, in fp32 beside them.

    Update n (from 0) keeps `rate(n)` of the average:
    warm-up    min(decay, (1 + n) / (10 + n)), so that the random start is forgotten early;
    power form (1 - 1 / (n + 1)) ** (power + 1), whose width grows with the run (2312.02696, eq. 1); `decay` is not used.
    """

    def __init__(self, module: nn.Module, *, decay: float, power: float | None = None):
        self.decay = decay
        self.power = power
        self.live = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.reset()

    def rate(self, n: int) -> float:
        if self.power is not None:
            return (1 - 1 / (n + 1)) ** (self.power + 1)
        return min(self.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Takes in the weights as they are after step `n` (from 0)."""
        torch._foreach_lerp_(self.average, [*self.live], 1 - self.rate(n))  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def gap(self) -> float:
        """How far the weights are from their average, as a share of the weights' norm."""
        pairs = zip(self.live, self.average, strict=True)
        distance = torch.stack([torch.dist(live, average) for live, average in pairs]).norm()
        return float(distance / torch.stack([live.norm() for live in self.live]).norm())

    def reset(self) -> None:
        """Takes the weights as they are for the average, after somebody filled them."""
        self.average = [parameter.detach().clone() for parameter in self.live]

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the module has the averaged weights; storages change hands, nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, parameter in enumerate(self.live):
            parameter.data, self.average[i] = self.average[i], parameter.data
