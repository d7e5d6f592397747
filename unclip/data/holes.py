"""Which parts of a picture are erased when a decoder learns to repaint: boxes, what is outside a box, sides, brush strokes.

GLIDE erases "random regions" (2112.10741, section 2.4) and does not say which. These are those that people make: an object
boxed, a frame grown outwards (outpainting, to all sides or to one), and the strokes of a brush.
"""

import torch
from torch import Tensor

KINDS = 4
POINTS = 4  # of a stroke


def random_known(count: int, side: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Masks (B, 1, S, S) in float32, 1 where a picture is known and 0 where it is erased; each kind is as likely.

    A row of dice each, whatever the others' kinds: what happens to one picture does not depend on those beside it.
    """
    dice = torch.rand(count, 1 + 2 * POINTS + 1, generator=generator, device=device)
    kind = (KINDS * dice[:, 0]).long()
    place = dice[:, 1:]
    masks = torch.stack([_box(place, side), 1 - _box(place, side), _side(place, side), _stroke(place, side)])
    return masks[kind, torch.arange(count, device=device)][:, None]


def _grid(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (S, 1) and columns (1, S) of the pixels' middles, from 0 to 1."""
    middles = (torch.arange(side, device=device) + 0.5) / side
    return middles[:, None], middles[None]


def _box(dice: Tensor, side: int) -> Tensor:
    """All is known but a box, a fifth to nine tenths of the picture's side high and wide."""
    y, x = _grid(side, dice.device)
    height, width = (0.2 + 0.7 * dice[:, i, None, None] for i in (0, 1))
    top, left = (1 - height) * dice[:, 2, None, None], (1 - width) * dice[:, 3, None, None]
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    return (~inside).float()


def _side(dice: Tensor, side: int) -> Tensor:
    """One of the four sides is known, to between a quarter and three quarters of the way across."""
    y, x = _grid(side, dice.device)
    across = torch.stack([part.expand(side, side) for part in (y, 1 - y, x, 1 - x)])
    chosen = across[(4 * dice[:, 0]).long()]
    return (chosen < 0.25 + 0.5 * dice[:, 1, None, None]).float()


def _stroke(dice: Tensor, side: int) -> Tensor:
    """All is known but the stroke of a round brush, a tenth to three tenths of the side wide, through four points."""
    y, x = _grid(side, dice.device)
    points = dice[:, : 2 * POINTS].unflatten(1, (POINTS, 2))
    nearest = torch.full((len(dice), side, side), torch.inf, device=dice.device)
    for start, end in zip(points[:, :-1].unbind(1), points[:, 1:].unbind(1), strict=True):
        (top, left), (down, right) = start[:, :, None, None].unbind(1), (end - start)[:, :, None, None].unbind(1)
        share = ((y - top) * down + (x - left) * right) / (down**2 + right**2).clamp(min=1e-9)
        share = share.clamp(0, 1)
        away = (y - top - share * down) ** 2 + (x - left - share * right) ** 2
        nearest = torch.minimum(nearest, away)
    radius = 0.05 + 0.1 * dice[:, 2 * POINTS, None, None]
    return (nearest > radius**2).float()
