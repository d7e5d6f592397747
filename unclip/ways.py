"""The way from one picture to another (section 3.2): what its ends are, what lies between them, and where its frames are.

Places go from 0, the first of K ends, to K - 1, the last; a leg is what lies between two of them. Angles are taken between
raw z, whose length is kept: it varies little from picture to picture, and the decoder was trained with it.

Not in the paper, whose decoder draws no layout: between two ends ours fades from the layout of one to that of the other. The
network that draws layouts has seen z of pictures only, and from z between two of them it draws neither (docs/log.md).

Dimension letters: E embedding, F frames, P places that frames are chosen from, S the decoder's side.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.errors import RequestError
from unclip.pairs import End, noise_of, source, z_of
from unclip.pipeline import UnCLIP
from unclip.request import Options, Progress, retracing

GLANCES = 4  # places for each frame, to choose the frames from
GOES_BACK = 10.0  # what a step that goes back costs in the choice, in legs: more than any unevenness
STEP = 0.03  # of a cosine; a shorter step costs too, up to as much: another pair of eyes might see it go back
SAME = 1 - 1e-6  # the cosine above which two z are one


class Way(NamedTuple):
    """The pairs of the ends, and how what lies between them is painted."""

    z: Tensor  # (K, E)
    x_T: Tensor | None  # noqa: N815  # (K, 3, S, S); None: drawn from the seed, the same everywhere
    layout: Tensor | None  # (K, 3, s, s); None: the decoder draws none
    seed: int
    options: Options

    def paint(self, model: UnCLIP, places: Sequence[float], size: int, progress: Progress | None) -> list[Image.Image]:
        """The picture at each place."""
        return model.paint(
            along(self.z, places),
            [self.seed] * len(places),
            x_T=None if self.x_T is None else along(self.x_T, places),
            layout=None if self.layout is None else along(self.layout, places, torch.lerp),
            size=size,
            options=self.options,
            progress=progress,
        )


def between(
    model: UnCLIP, ends: Sequence[End], *, fixed: bool, seed: int, options: Options, progress: Progress | None
) -> Way:
    """The way through two or more ends, those that are prompts from the seed + their place.

    `fixed`: one x_T everywhere, in place of the ends' own. RequestError for neighbours that are the same to the model.
    """
    given = [{"seed": seed + i, "options": options, "progress": progress} for i in range(len(ends))]
    zs = [z_of(model, end, **how) for end, how in zip(ends, given, strict=True)]
    z = torch.cat(zs)
    for i, cosine in enumerate(F.cosine_similarity(z[1:], z[:-1]).tolist()):
        if cosine > SAME:
            raise RequestError(f"ends {i + 1} and {i + 2} are the same to {model.name}: there is nothing between them")
    layout = model.layout(z)
    if fixed:
        return Way(z, None, layout, seed, options)
    x_T = torch.cat([noise_of(model, end, z, **how) for end, z, how in zip(ends, zs, given, strict=True)])
    prompts_only = all(isinstance(source(end), str) for end in ends)
    return Way(z, x_T, layout, seed, options if prompts_only else retracing(options))


def slerp(a: Tensor, b: Tensor, theta: float) -> Tensor:
    """From `a` at theta 0 to `b` at 1 along the great circle between their directions; the length goes evenly."""
    u, v = a.cpu().double(), b.cpu().double()
    cosine = (u * v).sum() / (u.norm() * v.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if angle < 1e-6:  # nearly parallel: the circle is a line
        return torch.lerp(a, b, theta)
    direction = ((1 - theta) * angle).sin() * u / u.norm() + (theta * angle).sin() * v / v.norm()
    length = (1 - theta) * u.norm() + theta * v.norm()
    return (length * direction / angle.sin()).to(a)


def along(ends: Tensor, places: Sequence[float], go: Callable[[Tensor, Tensor, float], Tensor] = slerp) -> Tensor:
    """(F, ...): at each place what lies between its two ends of (K, ...), slerped or as `go` goes."""
    legs = [min(int(place), len(ends) - 2) for place in places]
    return torch.stack([go(ends[i], ends[i + 1], place - i) for i, place in zip(legs, places, strict=True)])


def even_places(ends: int, frames: int) -> list[float]:
    """The places of as many frames, all as far apart."""
    return torch.linspace(0, ends - 1, frames, dtype=torch.float64).tolist()


def fine_places(ends: int, frames: int) -> list[float]:
    """The places that as many frames are to be chosen from; every end is one."""
    leg = GLANCES * math.ceil((frames - 1) / (ends - 1))
    return [i / leg for i in range(leg * (ends - 1) + 1)]


def glance_side(model: UnCLIP, size: int) -> int:
    """The side at which to paint what frames of that size are chosen from: the least that CLIP looks at all of, if smaller.

    What an upsampler adds moves CLIP's z too: frames chosen before it, at the decoder's side, went back more often.
    """
    vision = model.clip.cfg.vision
    seen = size if vision is None else vision.image_size
    return min([side for side in model.sizes if side >= seen], default=size) if size > seen else size


def paced(places: Sequence[float], seen: Tensor, ends: Tensor, frames: int) -> list[float]:
    """Of `fine_places`, as many as there are frames, where z of what was painted goes evenly from end to end.

    `seen` (P, E) is that z, `ends` (K, E) the ends'. How far a picture has come on its leg is its angle to the leg's first
    end as a share of its angles to both. The choice is the most even one among those in which the fewest steps lead nearer
    to the end that is left, or further from the one ahead, or hardly on. Frames that belong at an end stay there.
    """
    seen, ends, leg = seen.cpu().double(), ends.cpu().double(), (len(places) - 1) // (len(ends) - 1)
    come = torch.tensor(places, dtype=torch.float64)
    back = torch.full((len(places), len(places)), torch.inf).double().tril()  # from the row's picture to the column's
    for i in range(len(ends) - 1):
        rows = slice(i * leg, (i + 1) * leg + 1)
        left, ahead = (F.cosine_similarity(seen[rows], end[None]).clamp(-1, 1) for end in ends[i : i + 2])
        share = left.acos() / (left.acos() + ahead.acos())
        if share[-1] > share[0]:
            come[rows] = i + ((share - share[0]) / (share[-1] - share[0])).clamp(0, 1)
        for gain in (left[:, None] - left, ahead - ahead[:, None]):
            back[rows, rows] += _for_going_back(gain)
    wanted = even_places(len(ends), frames)
    uneven = (come - torch.tensor(wanted, dtype=torch.float64)[:, None]).abs()
    for row, place in zip(uneven, wanted, strict=True):
        if abs(place - round(place)) < 1e-9:
            row[torch.arange(len(places)) != round(place) * leg] = torch.inf
    return [places[i] for i in _cheapest(uneven, back)]


def fine_thetas(thetas: Sequence[float]) -> list[float]:
    """From the first of two or more thetas to the last, evenly: what as many are to be chosen from."""
    places = torch.linspace(thetas[0], thetas[-1], GLANCES * (len(thetas) - 1) + 1, dtype=torch.float64)
    return [round(place, 4) for place in places.tolist()]  # a picture says its theta, and is made again from that


def risen(seen: Tensor, count: int) -> list[int]:
    """Of P pictures, each going further from one, as many in which what is `seen` (P,) rises evenly from the first.

    `seen` is the cosine of what changed in the picture with what changed in the caption. It rises, then falls where more
    only spoils the picture: the last chosen is where it is highest. The others are chosen as frames are.
    """
    seen = seen.cpu().double()
    last = count - 1 + int(seen[count - 1 :].argmax())
    uneven = (seen[: last + 1] - torch.linspace(float(seen[0]), float(seen[last]), count).double()[:, None]).abs()
    uneven[0, 1:] = uneven[-1, :-1] = torch.inf
    gain = seen[: last + 1] - seen[: last + 1, None]
    return _cheapest(uneven, torch.full_like(gain, torch.inf).tril() + _for_going_back(gain))


def _for_going_back(gain: Tensor) -> Tensor:
    """What steps cost that gain so much of a cosine."""
    return GOES_BACK * ((gain <= 0).double() + (1 - gain / STEP).clamp(0, 1))


def _cheapest(costs: Tensor, steps: Tensor) -> list[int]:
    """A column for each row of `costs` (F, P), the last for the last, so that with their `steps` (P, P) they cost least."""
    best, came_from = costs[0], []
    for row in costs[1:]:
        least = (best[:, None] + steps).min(dim=0)
        best = least.values + row
        came_from.append(least.indices)
    chosen = [len(best) - 1]
    for previous in reversed(came_from):
        chosen.append(int(previous[chosen[-1]]))
    return chosen[::-1]
