"""What people do with a picture in unCLIP besides typing a prompt: section 3 and figures 3 to 7 of the paper (2204.06125).

An image is two things, (z, x_T): what CLIP saw in it, and the noise from which the decoder, told that z, draws it, found by
running DDIM backwards. Keep one and move the other, and there is a task:

    reconstruct      z, x_T            how much of the picture the pair holds
    variations       z, another x_T    or the same one and DDIM's noise eta
    interpolate      z on the great circle between two or more pictures or prompts, x_T likewise
    text_diff        z towards what one caption has and another has not, x_T
    probe            z without its lesser principal components, one x_T: what CLIP tells first
    image_to_image   x_t of the picture itself, half noised (SDEdit, 2108.01073), with its z or a prompt's

Everything happens at the decoder's side, on the middle square of the picture; the upsamplers come after. Inversion takes as
long as painting: who asks for much of one picture makes its pair once (`pair_of`) and gives that in the picture's place.

`n`, `seed`, `size`, `options` and `progress` are `UnCLIP.generate`'s. Every picture says in `.info["unclip"]` what makes it
again and of which pictures it was made. All raise RequestError for a number out of its range, a picture that `check_picture`
refuses, and a model without the part they need. Dimension letters: E embedding, S the decoder's side.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.errors import RequestError
from unclip.images import check_picture, psnr, to_images, to_tensor
from unclip.pairs import End, Pair, pair_of, source, z_of
from unclip.pipeline import UnCLIP
from unclip.provenance import parent, prompted, tell
from unclip.request import AS_SAVED, Options, Progress, named, pick_size, retracing, seeds_of
from unclip.rng import Rng
from unclip.ways import SAME, between, even_places, fine_places, fine_thetas, glance_side, paced, risen, slerp

Pace = Literal["even", "seen"]

THETAS = (0.05, 0.15, 0.3)
PUSH = 2.0  # by how much a whole theta raises the guidance of text_diff, see `pushed`
FURTHEST = 0.5  # theta of text_diff; the paper goes to between 0.25 and 0.5
DIMENSIONS = (20, 30, 40, 80, 120, 160, 200, 320)  # of figure 7


class Reconstruction(NamedTuple):
    """An image drawn from its own pair, and how near it came."""

    image: Image.Image
    psnr: float  # dB, at the decoder's side
    cosine: float  # of its z and the source's


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
    z, x_T, _ = pair_of(model, image, options=options, progress=progress)
    x = model.decode(z, rng, x_T=x_T, options=retracing(options), on_step=named(progress, "decoder"))
    pictures = to_images(model.upsample(x, size, rng, options=options, progress=progress))
    near = psnr(to_tensor(to_images(x)), model.pixels(image).cpu())
    cosine = F.cosine_similarity(z, model.embed(pictures))
    tell(model.name, "reconstruct", pictures, [{"seed": seed, "size": size}], options, [parent(image)])
    return Reconstruction(pictures[0], near.item(), cosine.item())


def variations(
    model: UnCLIP,
    image: Image.Image | Pair,
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
    seeds, size = seeds_of(seed, n), pick_size(model.name, model.sizes, size)
    if eta is None:
        z, x_T, how = z_of(model, image), None, options
    else:
        _check_range("eta", eta, 0, 1)
        (z, x_T, _), how = pair_of(model, image, options=options, progress=progress), retracing(_with(options, eta=eta))
        x_T = x_T.expand(n, *x_T.shape[1:])
    pictures = model.paint(z.expand(n, -1), seeds, x_T=x_T, size=size, options=how, progress=progress)
    each = [{"seed": seed, "eta": eta, "size": size} for seed in seeds]
    return tell(model.name, "variations", pictures, each, options, [parent(source(image))])


def interpolate(
    model: UnCLIP,
    ends: Sequence[End],
    *,
    frames: int = 9,
    noise: Literal["slerp", "fixed"] = "slerp",
    pace: Pace = "even",
    seed: int = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """`frames` images on the way from the first of `ends` through the others to the last (section 3.2).

    Ends are pictures, whose z CLIP gives, and prompts, whose z the prior gives. `noise`: "slerp" takes x_T along, from each
    picture's own, so that pictures at the ends come back, and drawn for each prompt; "fixed" draws one x_T for all frames.

    `pace`: "even" takes even steps of z, which the painted picture follows in leaps, and at times back. "seen" paints four
    times as many, as large as CLIP looks at them or as they are asked for, and takes as frames those in which CLIP sees even
    steps from end to end, none of them back where that can be.
    """
    _check_way(ends, frames, noise, pace)
    size = pick_size(model.name, model.sizes, size)
    way = between(model, ends, fixed=noise == "fixed", seed=seed, options=options, progress=progress)
    places, painted = even_places(len(ends), frames), {}
    if pace == "seen":
        fine, side = fine_places(len(ends), frames), glance_side(model, size)
        glances = way.paint(model, fine, side, _as_pace(progress))
        places = paced(fine, model.embed(glances), way.z, frames)
        painted = dict(zip(fine, glances, strict=True)) if side == size else {}
    made = [painted[place] for place in places] if painted else way.paint(model, places, size, progress)
    each = [{"seed": seed, "noise": noise, "pace": pace, "frames": frames, "frame": i, "size": size} for i in range(frames)]
    return tell(model.name, "interpolate", made, each, options, _parents(model, ends, options))


def frame(
    model: UnCLIP,
    ends: Sequence[End],
    number: int,
    *,
    frames: int = 9,
    seed: int = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> Image.Image:
    """One frame, by its number from 0, of those that `interpolate` gives for the same: of pairs, it costs one picture."""
    _check_way(ends, frames)
    if not 0 <= number < frames:
        raise RequestError(f"frame {number}: expected 0 to {frames - 1}")
    size = pick_size(model.name, model.sizes, size)
    way = between(model, ends, fixed=False, seed=seed, options=options, progress=progress)
    made = way.paint(model, [even_places(len(ends), frames)[number]], size, progress)
    each = [{"seed": seed, "noise": "slerp", "pace": "even", "frames": frames, "frame": number, "size": size}]
    return tell(model.name, "interpolate", made, each, options, _parents(model, ends, options))[0]


def text_diff(
    model: UnCLIP,
    image: Image.Image | Pair,
    old: str,
    new: str,
    *,
    thetas: Sequence[float] = THETAS,
    pace: Pace = "even",
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """The image moved from what `old` says towards what `new` says, one for each theta from 0 to 0.5 (section 3.3).

    z turns by theta of the angle to norm(z_text(new) - z_text(old)) and x_T stays. `old` describes the image as it is, or is
    empty; `new` describes the whole of what it shall be, for the decoder reads it beside the turned z: from z alone, which
    then lies where no picture's does, it forgets what the picture was of (docs/log.md). At theta 0 the image comes back.
    Unless `options` say how much, guidance grows with theta: see `pushed`.

    `pace`: "even" takes the thetas as they are. "seen" takes the first, and goes on evenly by what CLIP sees of the change,
    at most to the last theta, and no further than where it sees the most: it paints four times as many to choose from, as
    large as CLIP looks at them or as they are asked for. Each picture says which theta it is of.
    """
    for theta in thetas:
        _check_range("theta", theta, 0, FURTHEST)
    _check_pace(pace)
    if pace == "seen" and (len(thetas) < 2 or thetas[0] >= thetas[-1]):
        raise RequestError(f"thetas = {', '.join(map(str, thetas))}: pace seen expects two or more, the last the highest")
    size = pick_size(model.name, model.sizes, size)
    before, after = (model.read(caption, options) for caption in (old, new))
    texts = model.encode_text([before.text, after.text])
    both = F.normalize(texts.pooled)
    if F.cosine_similarity(both[:1], both[1:]).item() > SAME:
        raise RequestError(f"{old!r} and {new!r} are the same to {model.name}: say what is to change")
    z, x_T, _ = pair_of(model, image, options=options, progress=progress)
    direction = z.norm() * F.normalize(both[1] - both[0], dim=0)

    def at(theta: float, side: int, progress: Progress | None) -> Image.Image:
        moved, text = slerp(z[0], direction, theta)[None], texts.select(slice(1, 2)) if theta else None
        how = pushed(options, theta)
        return model.paint(moved, [0], text=text, x_T=x_T, size=side, options=how, progress=progress)[0]

    painted: dict[float, Image.Image] = {}
    if pace == "seen":
        fine, side = fine_thetas(thetas), glance_side(model, size)
        glances = [at(theta, side, _as_pace(progress)) for theta in fine]
        change = F.normalize(model.embed(glances)) - F.normalize(z)
        thetas = [fine[i] for i in risen(F.cosine_similarity(change, direction[None]), len(thetas))]
        painted = dict(zip(fine, glances, strict=True)) if side == size else {}
    pictures = [painted[theta] if painted else at(theta, size, progress) for theta in thetas]
    said = {"old": old, **before.told("old_read"), "new": new, **after.told("new_read")}
    each = [{**said, "theta": theta, "size": size} for theta in thetas]
    return tell(model.name, "text_diff", pictures, each, options, [parent(source(image))])


def image_to_image(
    model: UnCLIP,
    image: Image.Image,
    prompt: str | None = None,
    *,
    strength: float = 0.6,
    n: int = 1,
    seed: int = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """`n` images drawn anew from where `strength` of the way from this one to noise ends, in (0, 1].

    They become what the prompt says, or, without one, other drawings of what CLIP saw in it.
    """
    _check_range("strength", strength, 0, 1, above=True)
    seeds, size = seeds_of(seed, n), pick_size(model.name, model.sizes, size)
    check_picture(image)
    if prompt is None:
        text, z = None, model.embed(image).expand(n, -1)
    else:
        text, z = model.imagine([prompt] * n, seeds, options=options, progress=progress)
    rng = Rng(seeds, device=model.device)
    x_t, how = model.noised(model.pixels(image), rng, strength=strength, options=options)
    pictures = model.paint(z, seeds, text=text, x_T=x_t, size=size, options=how, progress=progress)
    said = prompted(model, prompt, options)
    each = [{**said, "seed": seed, "strength": strength, "size": size} for seed in seeds]
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
    size, z = pick_size(model.name, model.sizes, size), z_of(model, image)
    others = among if isinstance(among, Tensor) else torch.cat([z[:0], *(z_of(model, other) for other in among)])
    mean, axes = principal_axes(others)
    dims = [count for count in DIMENSIONS if count <= len(axes)] if dims is None else list(dims)
    if not dims or min(dims) < 0 or max(dims) > len(axes):
        raise RequestError(f"dims = {dims}: {len(among)} pictures give components from 0 to {len(axes)}")
    parts = torch.cat([mean + (z - mean) @ axes[:count].T @ axes[:count] for count in dims])
    pictures = model.paint(parts, [seed] * len(dims), size=size, options=options, progress=progress)
    each = [{"seed": seed, "dims": count, "among": len(among), "size": size} for count in dims]
    return tell(model.name, "probe", pictures, each, options, [parent(image)])


def pushed(options: Options, theta: float, push: float = PUSH) -> Options:
    """`options` for text_diff at theta: retracing, with guidance 1 + `push` theta unless they say how much.

    At 0 that is none, so the image comes back. Beyond, the decoder alone follows a small turn of z too faintly, while as
    much guidance at every theta would change the image where z has not moved. The paper does not say what it guides by.
    """
    return retracing(options if options.guidance is not None else options.model_copy(update={"guidance": 1 + push * theta}))


def principal_axes(z: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (E,) of z (N, E), and its principal axes in rows, longest first: at most N - 1 of them."""
    centred = z.cpu().double() - z.cpu().double().mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[: max(len(z) - 1, 0)]
    return z.mean(0), axes.to(z)


def _parents(model: UnCLIP, ends: Sequence[End], options: Options) -> list[dict[str, Any]]:
    """What a picture's settings keep of the ends of a way; of prompts also what they were read as."""
    made_of = [source(end) for end in ends]
    return [prompted(model, one, options) if isinstance(one, str) else parent(one) for one in made_of]


def _with(options: Options, *, eta: float) -> Options:
    if options.eta is not None:
        raise RequestError("eta is given twice: as the task's and among the options")
    return options.model_copy(update={"eta": eta})


def _check_way(ends: Sequence[End], frames: int, noise: str = "slerp", pace: str = "even") -> None:
    if isinstance(ends, str) or len(ends) < 2:
        raise RequestError("one end: give two or more pictures or prompts to go between")
    if frames < 2:
        raise RequestError(f"frames = {frames}: expected at least 2, the ends")
    if noise not in ("slerp", "fixed"):
        raise RequestError(f"noise = {noise!r}: expected slerp or fixed")
    _check_pace(pace)


def _as_pace(progress: Progress | None) -> Progress | None:
    """Tells of pictures that are painted to choose from as of one stage."""
    return None if progress is None else lambda _, step: progress("pace", step)


def _check_pace(pace: str) -> None:
    if pace not in ("even", "seen"):
        raise RequestError(f"pace = {pace!r}: expected even or seen")


def _check_range(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """RequestError unless low <= value <= high, or low < value with `above`; NaN is in no range."""
    if not low <= value <= high or (above and value == low):
        raise RequestError(f"{name} = {value:g}: expected {'more than ' if above else ''}{low:g} to {high:g}")
