"""The part of a picture that an inpainting network is shown and keeps (GLIDE, 2112.10741, section 2.4).

Four channels stand beside x_t: the picture, black-grey (0) where it is not known, and the mask. Networks and samplers say 1
for known; the masks that people give say white for "repaint", and are turned round once, at the edge (`images.holes`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.images import resize

CHANNELS = 4  # beside x_t: the picture's three and the mask


class Known(NamedTuple):
    """The part of a picture to be kept: image (B, 3, H, W) in [-1, 1], mask (B, 1, H, W), 1 where known and 0 where not."""

    image: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "Known":
        return Known(self.image.to(device), self.mask.to(device))

    def rows(self, count: int) -> "Known":
        """For `count` pictures, from one or as many."""
        return Known(*(part.expand(count, *part.shape[1:]) for part in self))

    def at(self, side: int) -> "Known":
        """The square picture at another side; what is not known has no influence on it.

        A pixel is known there if all is known that it covers. Its colour is the resized one over the weights of what is
        known, so that nothing shines through from the hole.
        """
        if side == self.image.shape[-1]:
            return self
        weight = resize(self.mask, side, clamped=False)
        image = resize(self.image * self.mask, side, clamped=False) / weight.clamp(min=0.1)
        mask = 1 - F.adaptive_max_pool2d(1 - self.mask, side)
        return Known(image.clamp(-1, 1) * mask, mask)

    def select(self, rows: slice) -> "Known":
        return Known(self.image[rows], self.mask[rows])

    def twice(self) -> "Known":
        """For a guided batch: the conditional rows, then the unconditional ones."""
        return Known(torch.cat([self.image, self.image]), torch.cat([self.mask, self.mask]))

    def keep(self, x0: Tensor) -> Tensor:
        """A predicted x_0 (B, 3, H, W), or (2 B, ...) of a guided batch, with the known part in its place."""
        own = self if len(x0) == len(self.image) else self.twice()
        return torch.lerp(x0, own.image.to(x0.dtype), own.mask.to(x0.dtype))


def beside(known: Known | None, x_t: Tensor) -> Tensor:
    """What stands beside x_t (B, 3, H, W): (B, 4, H, W), zeros where nothing is known."""
    if known is None:
        return torch.zeros_like(x_t[:, :1]).expand(-1, CHANNELS, -1, -1)
    return torch.cat([known.image * known.mask, known.mask], dim=1).to(x_t.dtype)
