"""What the loop has to know of a network that it trains: its batches, its loss, its pictures, its figures."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn


class Objective(Protocol):
    """One network's training task. The loop moves `module` and the batches to its device; the rest follows the batch."""

    module: nn.Module
    """What is trained: its parameters with requires_grad. Saved whole, frozen parts and persistent buffers too."""

    def prepare(self, say: Callable[[str], object]) -> None:
        """Called once, before step 0 of a run that starts from nothing: what has to be trained first. `say` takes notes."""
        ...

    def batch(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """The samples at these positions of the endless stream, on the CPU.

        A pure function of the positions, called from other threads, ahead of time, and again after a restart.
        """
        ...

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The scalar fp32 loss, a mean over the batch, and the metrics to log beside it (scalars, left on the device).

        Every random number comes from `generator`, which lives on the batch's device, except dropout's, whose global
        generator the loop seeds alike. Runs under the loop's autocast.
        """
        ...

    def preview(self, module: nn.Module) -> Image.Image | None:
        """A grid of samples at fixed noise; `module` is in eval mode with averaged weights. None: nothing to draw."""
        ...

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Validation figures of `module`, which is in eval mode with averaged weights; may be empty."""
        ...
