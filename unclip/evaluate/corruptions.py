"""The same pictures made harder to know: what ImageNet-Sketch (1905.13549) and ImageNet-C (1903.12261) are to photographs.

Each takes pictures (N, 3, S, S) in [-1, 1] and gives as many of the same size and range, the same ones every time. How hard
each is was set before any network had seen it: at 64 px a person still names what is in the picture.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.data.icons.canvas import LUMA
from unclip.images import resize

SIGMA = 2.0  # of the blur, in pixels of a picture of 64
INK = 0.5  # the step between neighbours whose outline is all black; black to white is 2
NOISE = 0.36  # a standard deviation: .18 of the range, ImageNet-C's third severity
COARSE = 16  # px, the side of a picture of low resolution
SIDE = 64  # px, of the pictures that these numbers are meant for; others are treated in proportion


def outline(x: Tensor) -> Tensor:
    """A drawing in black lines on white where the picture's colours step, by Sobel's filter, the strongest channel's."""
    down = torch.tensor([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]], device=x.device) / 8
    kernels = torch.stack([down, down.T])[:, None]
    padded = F.pad(x.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    steps = F.conv2d(padded, kernels).square().sum(1).sqrt().view_as(x) * 2
    return (1 - 2 * steps.amax(1, keepdim=True) / INK).clamp(-1, 1).expand_as(x)


def grey(x: Tensor) -> Tensor:
    """Its luma in all channels."""
    luma = torch.from_numpy(LUMA).to(x.device).view(3, 1, 1)
    return (x * luma).sum(1, keepdim=True).expand_as(x)


def blurred(x: Tensor) -> Tensor:
    """By a Gaussian; beyond the edge lies what is at it."""
    sigma = SIGMA * x.shape[-1] / SIDE
    reach = round(3 * sigma)
    ramp = torch.arange(-reach, reach + 1, device=x.device) / sigma
    weights = torch.exp(-(ramp**2) / 2)
    weights /= weights.sum()
    padded = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).view_as(x).clamp(-1, 1)


def turned(x: Tensor, degrees: float) -> Tensor:
    """Counter-clockwise; exact by whole quarters, else bilinear, the corners filled with what is at the edge."""
    if degrees % 90 == 0:
        return x.rot90(int(degrees // 90), dims=(-2, -1))
    angle = torch.deg2rad(torch.tensor(degrees))
    rows = [[angle.cos(), -angle.sin(), 0.0], [angle.sin(), angle.cos(), 0.0]]
    theta = torch.tensor(rows, device=x.device).expand(len(x), 2, 3)
    places = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, places, padding_mode="border", align_corners=False)


def inverted(x: Tensor) -> Tensor:
    """Its negative."""
    return -x


def coarse(x: Tensor) -> Tensor:
    """Shrunk to a quarter of its side and enlarged again."""
    return resize(resize(x, max(1, COARSE * x.shape[-1] // SIDE)), x.shape[-1])


def noisy(x: Tensor) -> Tensor:
    """With Gaussian noise on every channel, other noise on every picture."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + NOISE * noise.to(x.device)).clamp(-1, 1)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "outline": outline,
    "grey": grey,
    "blurred": blurred,
    "turned by 15": lambda x: turned(x, 15),
    "turned by 90": lambda x: turned(x, 90),
    "inverted": inverted,
    "low resolution": coarse,
    "noise": noisy,
}
"""By name, in the order of a table; the first is none."""
