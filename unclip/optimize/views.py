"""Random views of a picture, for CLIP to look at: what scores in one view alone is no picture of anything.

Each is a square of the picture, smaller or a little larger than it, anywhere on it, turned, and noised. `strength` scales
all of that; at 0 every view is the whole picture as it is. Plain torch: one bilinear look each, at the picture made so
small, by the antialiased resize of everything here, that no pixel of it is passed over.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.images import resize

# At strength 1:
CLOSEST, FURTHEST = math.log(0.6), math.log(1.1)  # the side of a view in sides of the picture, as a logarithm
SHIFT = 0.1  # half sides that a view may go over the edge; what lies there is the picture mirrored
TURN = math.radians(15)
NOISE = 0.1


def look(x: Tensor, side: int, count: int, *, strength: float, generator: torch.Generator) -> Tensor:
    """`count` views (V, 3, side, side) of a picture (1, 3, S, S), drawn from the CPU's `generator`, differentiable."""
    scale, turn, right, down = torch.rand(4, count, generator=generator).double()
    noise = torch.randn(count, 3, side, side, generator=generator)
    scale = (strength * (CLOSEST + (FURTHEST - CLOSEST) * scale)).exp()
    room = (1 - scale).clamp(min=0) + strength * SHIFT
    turn = strength * TURN * (2 * turn - 1)
    rows = [turn.cos() * scale, -turn.sin() * scale, room * (2 * right - 1)]
    rows += [turn.sin() * scale, turn.cos() * scale, room * (2 * down - 1)]
    places = torch.stack(rows, dim=1).view(count, 2, 3).float()
    views = [_view(x, place[None], round(side / float(s)), side) for place, s in zip(places, scale, strict=True)]
    return torch.cat(views) + strength * NOISE * noise.to(x.device)


def _view(x: Tensor, place: Tensor, whole: int, side: int) -> Tensor:
    """One view (1, 3, side, side), laid by the affine map `place` (1, 2, 3); `whole` is the picture's side at its scale."""
    if whole < x.shape[-1]:
        x = resize(x, whole, clamped=False)
    grid = F.affine_grid(place.to(x.device), [1, 3, side, side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
