"""What the ascent moves: a picture's pixels, or its waves.

Adam moves every number of a canvas about as far at a step. So the basis decides what is easy: in `Pixels` the grain of
single pixels, in `Fourier` what photographs are made of, large shapes first, and light before colour (Feature Visualization,
Olah et al. 2017, "Preconditioning and Parameterization"). Dimension letters: S the side, W = S // 2 + 1 waves of a real row.
"""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

Basis = Literal["pixels", "fourier"]

# The principal axes of natural colours, in rows (light, red against blue, green against both), and how far colours spread
# along each, the first as 1: orthonormal axes next to those that Olah et al. measured on ImageNet.
AXES = (
    (1 / math.sqrt(3),) * 3,
    (1 / math.sqrt(2), 0.0, -1 / math.sqrt(2)),
    (-1 / math.sqrt(6), 2 / math.sqrt(6), -1 / math.sqrt(6)),
)
SPREAD = (1.0, 0.28, 0.13)
FURTHEST = 1 - 1 / 255  # of a pixel from grey: the bytes 0 and 255 would be infinitely far where tanh bounds them


class Canvas(Protocol):
    """Numbers that a picture is made of. It begins as the picture it is given, (1, 3, S, S) in [-1, 1]."""

    values: Tensor
    """What is moved; it asks for gradients."""

    def picture(self) -> Tensor:
        """(1, 3, S, S) in [-1, 1], with its graph."""
        ...

    def settle(self) -> None:
        """Brings the values back to where a picture is, after they were moved."""
        ...


class Pixels:
    """The pixels themselves, pushed back into [-1, 1] after each step."""

    def __init__(self, start: Tensor):
        self.values = start.detach().float().clamp(-1, 1).clone().requires_grad_()

    def picture(self) -> Tensor:
        return self.values

    @torch.no_grad()
    def settle(self) -> None:
        self.values.clamp_(-1, 1)


class Fourier:
    """The waves of the three decorrelated colours, each as much larger as it is slower (1/f); tanh bounds the pixels.

    `values` (1, 3, S, W, 2) of unit variance give pixels of about unit variance before tanh.
    """

    def __init__(self, start: Tensor):
        self._side = start.shape[-1]
        self._weights = falling(self._side).to(start.device)
        self._colours = _colours().to(start.device)
        plain = torch.atanh(start.detach().float().clamp(-FURTHEST, FURTHEST))
        colours = torch.einsum("cr,brhw->bchw", torch.linalg.inv(self._colours), plain)
        waves = torch.fft.rfft2(colours, norm="ortho") / self._weights
        self.values = torch.view_as_real(waves).clone().requires_grad_()

    def picture(self) -> Tensor:
        waves = torch.view_as_complex(self.values) * self._weights
        colours = torch.fft.irfft2(waves, s=(self._side, self._side), norm="ortho")
        return torch.einsum("rc,bchw->brhw", self._colours, colours).tanh()

    def settle(self) -> None:
        """Every wave is one."""


def falling(side: int) -> Tensor:
    """How large each wave (S, W) of a picture is, as 1/f; their mean square over all S x S waves is one half.

    One half, since a wave is two numbers, its real and its imaginary part. The mean itself counts as the slowest wave.
    """
    down, across = torch.fft.fftfreq(side, dtype=torch.float64), torch.fft.fftfreq(side, dtype=torch.float64)
    whole = 1 / (down[:, None].square() + across.square()).sqrt().clamp(min=1 / side)
    return (whole / (2 * whole.square().mean()).sqrt())[:, : side // 2 + 1].float()


def _colours() -> Tensor:
    """From decorrelated colours to red, green and blue, (3, 3); their mean variance stays."""
    spread = torch.tensor(SPREAD, dtype=torch.float64)
    return (torch.tensor(AXES, dtype=torch.float64).T * spread * math.sqrt(3) / spread.norm()).float()


def make_canvas(basis: Basis, start: Tensor) -> Canvas:
    """The canvas of that basis, which begins as the picture `start`."""
    return Pixels(start) if basis == "pixels" else Fourier(start)
