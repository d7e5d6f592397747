"""What people do with a picture in unCLIP besides typing a prompt: section 3 and figures 3 to 7 of the paper (2204.06125).

An image is two things, (z, x_T): what CLIP saw in it, and the noise from which the decoder, told that z, draws it, found by
running DDIM backwards. Keep one and move the other, and there is a task:

    reconstruct      z, x_T            how much of the picture the pair holds
    variations       z, another x_T    or the same one and DDIM's noise eta
    interpolate      z on the great circle between two or more pictures or prompts, x_T likewise
    text_diff        z towards what one caption has and another has not, x_T
    probe            z without its lesser principal components, one x_T: what CLIP tells first
    image_to_image   x_t of the picture itself, half noised (SDEdit, 2108.01073), with its z or a prompt's

Everything happens at the decoder's side, on the middle square of the picture; the upsamplers come after. Angles are taken
between raw z, whose length is kept: it varies little from picture to picture, and the decoder was trained with it.

`seed`, `size`, `options` and `progress` are `UnCLIP.generate`'s. Every picture says in `.info["unclip"]` what makes it again
and of which pictures it was made. All raise RequestError for a number out of its range, a picture that `check_picture`
refuses, and a model without the part they need. Dimension letters: E embedding, S the decoder's side.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.errors import RequestError
from unclip.images import check_picture, psnr, to_images, to_tensor
from unclip.pipeline import UnCLIP
from unclip.provenance import parent, tell
from unclip.request import AS_SAVED, Options, Progress, jobs, named, pick_size, retracing
from unclip.rng import Rng

THETAS = (0.1, 0.25, 0.4)
PUSH = 8.0  # by how much a whole theta raises the guidance of text_diff, see `pushed`
FURTHEST = 0.5  # theta of text_diff; the paper goes to between 0.25 and 0.5
GLANCES = 4  # pictures painted for each frame of an interpolation, to choose the frames from
GOES_BACK = 10.0  # what a step that goes back costs in the choice, in legs: more than any unevenness
DIMENSIONS = (20, 30, 40, 80, 120, 160, 200, 320)  # of figure 7
SAME = 1 - 1e-6  # the cosine above which two z are one


class Pair(NamedTuple):
    """An image as the decoder has it."""

    z: Tensor  # (1, E), raw
    x_T: Tensor  # noqa: N815  # (1, 3, S, S)


class Reconstruction(NamedTuple):
    """An image drawn from its own pair, and how near it came."""

    image: Image.Image
    psnr: float  # dB, at the decoder's side
    cosine: float  # of its z and the source's


def invert(model: UnCLIP, image: Image.Image, *, options: Options = AS_SAVED, progress: Progress | None = None) -> Pair:
    """The pair (z, x_T) of an image: CLIP's z, and x_T by DDIM inversion conditioned on it alone, without guidance."""
    z = _seen(model, image)
    return Pair(z, model.invert(model.pixels(image), z, options=options, on_step=named(progress, "inversion")))


def reconstruct(
    model: UnCLIP,
    image: Image.Image,
    *,
    seed: int = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> Reconstruction:
    """The image drawn again from its (z, x_T); `seed` is the upsamplers'."""
    size, rng = pick_size(model.name, model.sizes, size), Rng([seed], device=model.device)
    z, x_T = invert(model, image, options=options, progress=progress)
    x = model.decode(z, rng, x_T=x_T, options=retracing(options), on_step=named(progress, "decoder"))
    pictures = to_images(model.upsample(x, size, rng, options=options, progress=progress))
    near = psnr(to_tensor(to_images(x)), model.pixels(image).cpu())
    cosine = F.cosine_similarity(z, model.embed(pictures))
    tell(model.name, "reconstruct", pictures, [{"seed": seed, "size": size}], options, [parent(image)])
    return Reconstruction(pictures[0], near.item(), cosine.item())


def variations(
    model: UnCLIP,
    image: Image.Image,
    *,
    n: int = 4,
    seed: int = 0,
    eta: float | None = None,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """`n` images that keep what CLIP saw (section 3.1): the same z, and a fresh x_T each, image i of the seed + i.

    With `eta`, from 0 to 1, they start from the image's own x_T, and DDIM adds as much noise on the way: at 0 all are the
    reconstruction, and the higher eta, the more they differ.
    """
    seeds, size = [job.seed for job in jobs("", seed, n)], pick_size(model.name, model.sizes, size)
    if eta is None:
        z, x_T, how = _seen(model, image), None, options
    else:
        _check_range("eta", eta, 0, 1)
        (z, x_T), how = invert(model, image, options=options, progress=progress), retracing(_with(options, eta=eta))
        x_T = x_T.expand(n, *x_T.shape[1:])
    pictures = model.paint(z.expand(n, -1), seeds, x_T=x_T, size=size, options=how, progress=progress)
    each = [{"seed": seed, "eta": eta, "size": size} for seed in seeds]
    return tell(model.name, "variations", pictures, each, options, [parent(image)])


def interpolate(
    model: UnCLIP,
    ends: Sequence[Image.Image | str],
    *,
    frames: int = 9,
    noise: Literal["slerp", "fixed"] = "slerp",
    pace: Literal["even", "seen"] = "even",
    seed: int = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """`frames` images on the way from the first of `ends` through the others to the last (section 3.2).

    Ends are pictures, whose z CLIP gives, and prompts, whose z the prior gives. `noise`: "slerp" takes x_T along, from each
    picture's own, so that pictures at the ends come back, and drawn for each prompt; "fixed" draws one x_T for all frames.

    `pace`: "even" takes even steps of z, which the painted picture follows in leaps, and at times back. "seen" paints four
    times as many at the decoder's side besides, and takes as frames those in which CLIP sees even steps from end to end,
    none of them back where that can be.
    """
    _check_way(ends, frames, noise, pace)
    size = pick_size(model.name, model.sizes, size)
    pictures = any(isinstance(end, Image.Image) for end in ends)
    z = torch.cat([_end(model, end, seed + i, options, progress) for i, end in enumerate(ends)])
    for i, cosine in enumerate(F.cosine_similarity(z[1:], z[:-1]).tolist()):
        if cosine > SAME:
            raise RequestError(f"ends {i + 1} and {i + 2} are the same to {model.name}: there is nothing between them")
    places = torch.linspace(0, len(ends) - 1, frames, dtype=torch.float64).tolist()
    starts, how = None, options
    if noise == "slerp":
        how = retracing(options) if pictures else options
        on_step = named(progress, "inversion")
        own = [
            model.noise(Rng([seed + i], device=model.device))
            if isinstance(end, str)
            else model.invert(model.pixels(end), z[i : i + 1], options=options, on_step=on_step)
            for i, end in enumerate(ends)
        ]
        starts = torch.cat(own)

    def paint(places: Sequence[float], size: int, progress: Progress | None) -> list[Image.Image]:
        x_T = None if starts is None else along(starts, places)
        return model.paint(along(z, places), [seed] * len(places), x_T=x_T, size=size, options=how, progress=progress)

    if pace == "seen":
        told = None if progress is None else lambda _, step: progress("pace", step)
        fine = fine_places(len(ends), frames)
        places = paced(fine, model.embed(paint(fine, model.sizes[0], told)), z, frames)
    made = paint(places, size, progress)
    each = [{"seed": seed, "noise": noise, "pace": pace, "frames": frames, "frame": i, "size": size} for i in range(frames)]
    return tell(model.name, "interpolate", made, each, options, [parent(end) for end in ends])


def text_diff(
    model: UnCLIP,
    image: Image.Image,
    old: str,
    new: str,
    *,
    thetas: Sequence[float] = THETAS,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """The image moved from what `old` says towards what `new` says, one for each theta from 0 to 0.5 (section 3.3).

    z turns by theta of the angle to norm(z_text(new) - z_text(old)) and x_T stays. `old` describes the image as it is, or is
    empty. Unless `options` say how much, guidance grows with theta: see `pushed`.
    """
    for theta in thetas:
        _check_range("theta", theta, 0, FURTHEST)
    size = pick_size(model.name, model.sizes, size)
    both = F.normalize(model.encode_text([old, new]).pooled)
    if F.cosine_similarity(both[:1], both[1:]).item() > SAME:
        raise RequestError(f"{old!r} and {new!r} are the same to {model.name}: say what is to change")
    z, x_T = invert(model, image, options=options, progress=progress)
    direction = z.norm() * F.normalize(both[1] - both[0], dim=0)
    moved = torch.stack([slerp(z[0], direction, theta) for theta in thetas])
    pictures = []
    for place, theta in zip(moved, thetas, strict=True):
        how = pushed(options, theta)
        pictures += model.paint(place[None], [0], x_T=x_T, size=size, options=how, progress=progress)
    each = [{"old": old, "new": new, "theta": theta, "size": size} for theta in thetas]
    return tell(model.name, "text_diff", pictures, each, options, [parent(image)])


def image_to_image(
    model: UnCLIP,
    image: Image.Image,
    prompt: str | None = None,
    *,
    strength: float = 0.6,
    seed: int | Sequence[int] = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """The image drawn anew from where `strength` of the way to noise ends, in (0, 1]; a picture for each seed.

    It becomes what the prompt says, or, without one, another drawing of what CLIP saw in it.
    """
    _check_range("strength", strength, 0, 1, above=True)
    size, seeds = pick_size(model.name, model.sizes, size), [seed] if isinstance(seed, int) else list(seed)
    check_picture(image)
    if prompt is None:
        text, z = None, model.embed(image).expand(len(seeds), -1)
    else:
        text, z = model.imagine([prompt] * len(seeds), seeds, options=options, progress=progress)
    rng = Rng(seeds, device=model.device)
    x_t, how = model.noised(model.pixels(image), rng, strength=strength, options=options)
    pictures = model.paint(z, seeds, text=text, x_T=x_t, size=size, options=how, progress=progress)
    each = [{"prompt": prompt, "seed": seed, "strength": strength, "size": size} for seed in seeds]
    return tell(model.name, "image_to_image", pictures, each, options, [parent(image)])


def probe(
    model: UnCLIP,
    image: Image.Image,
    among: Sequence[Image.Image] | Tensor,
    *,
    dims: Sequence[int] | None = None,
    seed: int = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """What a part of z says (figure 7): for each of `dims` the image of z with so many principal components, in one x_T.

    The components are those of the z of `among`, pictures of the training data's kind or their z (N, E), more of them than
    components asked for; `dims` are the paper's by default, as far as there are so many.
    """
    size, z = pick_size(model.name, model.sizes, size), _seen(model, image)
    others = among if isinstance(among, Tensor) else torch.cat([z[:0], *(_seen(model, other) for other in among)])
    mean, axes = principal_axes(others)
    dims = [count for count in DIMENSIONS if count <= len(axes)] if dims is None else list(dims)
    if not dims or min(dims) < 0 or max(dims) > len(axes):
        raise RequestError(f"dims = {dims}: {len(among)} pictures give components from 0 to {len(axes)}")
    parts = torch.cat([mean + (z - mean) @ axes[:count].T @ axes[:count] for count in dims])
    pictures = model.paint(parts, [seed] * len(dims), size=size, options=options, progress=progress)
    each = [{"seed": seed, "dims": count, "among": len(among), "size": size} for count in dims]
    return tell(model.name, "probe", pictures, each, options, [parent(image)])


def pushed(options: Options, theta: float) -> Options:
    """`options` for text_diff at theta: retracing, with guidance 1 + 8 theta unless they say how much.

    At 0 that is none, so the image comes back. Beyond, the decoder alone follows a small turn of z too faintly, while as
    much guidance at every theta would change the image where z has not moved. The paper does not say what it guides by.
    """
    return retracing(options if options.guidance is not None else options.model_copy(update={"guidance": 1 + PUSH * theta}))


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


def along(points: Tensor, places: Sequence[float]) -> Tensor:
    """(F, ...): the points (K, ...) slerped at each place, from 0, the first of them, to K - 1, the last."""
    legs = [min(int(place), len(points) - 2) for place in places]
    return torch.stack([slerp(points[i], points[i + 1], place - i) for i, place in zip(legs, places, strict=True)])


def fine_places(ends: int, frames: int) -> list[float]:
    """The places, from 0 to K - 1 for K ends, that the frames of an interpolation are chosen from; every end is one."""
    leg = GLANCES * math.ceil((frames - 1) / (ends - 1))
    return [i / leg for i in range(leg * (ends - 1) + 1)]


def paced(places: Sequence[float], seen: Tensor, ends: Tensor, frames: int) -> list[float]:
    """Of P ascending `places`, as many as there are frames, where z of what was painted goes evenly from end to end.

    `seen` (P, E) is that z, `ends` (K, E) the ends'. How far a picture has come on its leg is its angle to the leg's first
    end as a share of its angles to both. The choice is the most even one (dynamic programming) among those in which the
    fewest steps lead nearer to the end that is left or further from the one ahead. Frames that belong at an end stay there.
    """
    seen, ends, grid = seen.cpu().double(), ends.cpu().double(), (len(places) - 1) // (len(ends) - 1)
    come = torch.tensor(places, dtype=torch.float64)
    back = torch.full((len(places), len(places)), torch.inf).double().tril()  # from the row's picture to the column's
    for leg in range(len(ends) - 1):
        rows = slice(leg * grid, (leg + 1) * grid + 1)
        left, ahead = (F.cosine_similarity(seen[rows], ends[leg + k][None]).clamp(-1, 1) for k in (0, 1))
        share = left.acos() / (left.acos() + ahead.acos())
        if share[-1] > share[0]:
            come[rows] = leg + ((share - share[0]) / (share[-1] - share[0])).clamp(0, 1)
        back[rows, rows] += GOES_BACK * ((left >= left[:, None]).double() + (ahead <= ahead[:, None]))
    wanted = torch.linspace(0, len(ends) - 1, frames, dtype=torch.float64)
    uneven = (come - wanted[:, None]).abs()
    for row, place in zip(uneven, wanted.tolist(), strict=True):
        if abs(place - round(place)) < 1e-9:
            row[torch.arange(len(places)) != round(place) * grid] = torch.inf
    best, came_from = uneven[0], []
    for row in uneven[1:]:
        least = (best[:, None] + back).min(dim=0)
        best = least.values + row
        came_from.append(least.indices)
    chosen = [len(places) - 1]
    for previous in reversed(came_from):
        chosen.append(int(previous[chosen[-1]]))
    return [places[i] for i in reversed(chosen)]


def principal_axes(z: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (E,) of z (N, E), and its principal axes in rows, longest first: at most N - 1 of them."""
    centred = z.cpu().double() - z.cpu().double().mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[: max(len(z) - 1, 0)]
    return z.mean(0), axes.to(z)


def _seen(model: UnCLIP, image: Image.Image) -> Tensor:
    """z (1, E) of a picture that is fit to be read."""
    check_picture(image)
    return model.embed(image)


def _end(model: UnCLIP, end: Image.Image | str, seed: int, options: Options, progress: Progress | None) -> Tensor:
    if isinstance(end, str):
        return model.imagine([end], [seed], options=options, progress=progress)[1]
    return _seen(model, end)


def _with(options: Options, *, eta: float) -> Options:
    if options.eta is not None:
        raise RequestError("eta is given twice: as the task's and among the options")
    return options.model_copy(update={"eta": eta})


def _check_way(ends: Sequence[Image.Image | str], frames: int, noise: str, pace: str) -> None:
    if isinstance(ends, str) or len(ends) < 2:
        raise RequestError("one end: give two or more pictures or prompts to go between")
    if frames < 2:
        raise RequestError(f"frames = {frames}: expected at least 2, the ends")
    if noise not in ("slerp", "fixed"):
        raise RequestError(f"noise = {noise!r}: expected slerp or fixed")
    if pace not in ("even", "seen"):
        raise RequestError(f"pace = {pace!r}: expected even or seen")


def _check_range(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """RequestError unless low <= value <= high, or low < value with `above`; NaN is in no range."""
    if not low <= value <= high or (above and value == low):
        raise RequestError(f"{name} = {value:g}: expected {'more than ' if above else ''}{low:g} to {high:g}")
