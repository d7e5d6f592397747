"""An image as two things (section 3): z, what CLIP saw in it, and x_T, the noise from which the decoder draws it.

CLIP gives the one, DDIM run backwards the other, which takes as long as painting: who needs a picture's pair more than once
makes it once. A prompt has a pair too, that of a picture not painted yet: the prior's z, and noise.

Dimension letters: E embedding, S the decoder's side.
"""

from typing import NamedTuple

from PIL import Image
from torch import Tensor

from unclip.images import check_picture
from unclip.pipeline import UnCLIP
from unclip.request import AS_SAVED, Options, Progress, named
from unclip.rng import Rng


class Pair(NamedTuple):
    """An image, or what a prompt would be, as the decoder has it."""

    z: Tensor  # (1, E), raw
    x_T: Tensor  # noqa: N815  # (1, 3, S, S)
    of: Image.Image | str


End = Image.Image | str | Pair
"""What a way begins with, ends with, or comes by."""


def pair_of(
    model: UnCLIP, given: End, *, seed: int = 0, options: Options = AS_SAVED, progress: Progress | None = None
) -> Pair:
    """The pair of an image, by DDIM inversion conditioned on its z alone, without guidance; or of a prompt, from `seed`.

    An image's depends on the model and on `options.steps`, and on nothing else. A pair is its own. RequestError for a
    picture that `check_picture` refuses, and a model without the part it needs.
    """
    z = z_of(model, given, seed=seed, options=options, progress=progress)
    return Pair(z, noise_of(model, given, z, seed=seed, options=options, progress=progress), source(given))


def z_of(
    model: UnCLIP, given: End, *, seed: int = 0, options: Options = AS_SAVED, progress: Progress | None = None
) -> Tensor:
    """The z (1, E) of its pair."""
    if isinstance(given, Pair):
        return given.z
    if isinstance(given, str):
        return model.imagine([given], [seed], options=options, progress=progress)[1]
    check_picture(given)
    return model.embed(given)


def noise_of(
    model: UnCLIP,
    given: End,
    z: Tensor,
    *,
    seed: int = 0,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> Tensor:
    """The x_T (1, 3, S, S) of its pair, whose z is known."""
    if isinstance(given, Pair):
        return given.x_T
    if isinstance(given, str):
        return model.noise(Rng([seed], device=model.device))
    return model.invert(model.pixels(given), z, options=options, on_step=named(progress, "inversion"))


def source(given: End) -> Image.Image | str:
    """The image or prompt that it is of."""
    return given.of if isinstance(given, Pair) else given
