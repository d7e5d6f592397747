"""No seam around what was painted: a membrane over the hole, after Poisson image editing (Perez et al., SIGGRAPH 2003).

A network's white is not quite white, and beside a ground that is one colour two bytes show as a line. Where a pixel of the
hole differs from its known neighbours by so little that no edge was meant, the difference is what the network got wrong;
spread smoothly over the hole, as a membrane hangs in its frame, and added, it takes the line away and leaves every edge in
the hole as it was painted. Where they differ by more, something was painted that ends there: that is left, and the membrane
goes past it.

Differs from the paper: the membrane is hung by pull and push (Gortler et al., SIGGRAPH 1996), halving and doubling the
picture's side, in place of solving Laplace's equation, and holds on to the frame only where there is no edge.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SURE, DOUBTFUL = 12, 24  # bytes in any channel: a smaller step is no edge, a larger one is


def without_seam(painted: np.ndarray, pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """What was painted, uint8 (H, W, 3), with its colours brought to those of the known `pixels` (H, W, 3) at the border.

    `hole` (H, W) is True where painted pixels are taken; the others of the result mean nothing.
    """
    inside = torch.from_numpy(hole)[None, None]
    own, known = (torch.from_numpy(part).permute(2, 0, 1)[None].float() for part in (painted, pixels))
    around, count = (_neighbours(part) for part in (known * ~inside, (~inside).float()))
    step = around / count.clamp(min=1) - own
    sure = (DOUBTFUL - step.abs().amax(1, keepdim=True)) / (DOUBTFUL - SURE)
    weight = sure.clamp(0, 1) * (inside & (count > 0))
    made = (own + _membrane(step * weight, weight)).round().clamp(0, 255)
    return made[0].permute(1, 2, 0).to(torch.uint8).numpy()


def _neighbours(x: Tensor) -> Tensor:
    """The sum of each pixel's four neighbours; beyond the picture there are none."""
    padded = F.pad(x, (1, 1, 1, 1))
    return padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]


def _membrane(held: Tensor, weight: Tensor) -> Tensor:
    """A smooth (1, C, H, W) that is `held` / `weight` where that is 1, and follows what is near where it is less.

    Zero where nothing is held anywhere.
    """
    shape = held.shape[-2:]
    value = held / weight.clamp(min=1e-6)
    if max(shape) == 1:
        return value
    halves = [F.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (held, weight)]
    coarse = _membrane(*(4 * half / (4 * halves[1]).clamp(min=1) for half in halves))
    return torch.lerp(F.interpolate(coarse, size=shape, mode="bilinear"), value, weight)
