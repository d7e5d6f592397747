"""The ascent: CLIP looks at views of a picture, and the gradient of their score says where to move it.

    step:   views = look(canvas);   score = mean of cos(z(views), text);   canvas += Adam's step along the score's gradient

Nothing here has ever seen a picture but CLIP, which was asked no more than to tell captions apart; what it scores high need
not look like any: docs/why-a-prior.md. The canvas, its gradient and Adam are fp32; CLIP multiplies as it was loaded to.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from unclip import clip as clips
from unclip.clip import Clip, unit
from unclip.config import Config
from unclip.device import autocast
from unclip.errors import RequestError
from unclip.images import check_picture, to_images, to_tensor
from unclip.optimize.canvas import Basis, Canvas, make_canvas
from unclip.optimize.views import look
from unclip.provenance import parent
from unclip.rng import Rng
from unclip.seeds import mix

GREY = 0.1  # the standard deviation of the noise that an ascent begins with, where it is given no picture
RATES: dict[Basis, float] = {"pixels": 0.05, "fourier": 0.1}
SMALLEST, LARGEST = 16, 1024  # px
FRAME = (
    5  # steps from one frame of a film to the next, whatever its length, so that a shorter film is a longer one's beginning
)
_VIEWS = 1  # the stream of a seed that draws views; 0 draws the beginning
_GENERATOR = (1 << 63) - 1  # the largest seed of a torch generator


class Ascent(Config):
    """How a picture is moved. The rate does not fall, so the first k steps of a longer ascent are the ascent of k steps."""

    basis: Basis = "fourier"
    steps: int = Field(default=200, ge=1)
    size: int | None = Field(default=None, ge=SMALLEST, le=LARGEST)
    """The side in pixels; that of what CLIP looks at when None."""
    views: int = Field(default=8, ge=1)
    """What CLIP looks at in each step."""
    strength: float = Field(default=1.0, ge=0, le=2)
    """How far views differ from the whole picture; 0: not at all."""
    rate: float | None = Field(default=None, gt=0)
    """Adam's; the basis' own when None."""


@dataclass(frozen=True)
class Step:
    """A picture after a step of its ascent; index 0 .. total - 1."""

    index: int
    total: int
    x: Tensor
    """(1, 3, S, S) in [-1, 1]."""
    score: float
    """The mean cosine that this step climbed from, of its views."""
    settings: dict[str, Any]
    """What makes the picture as it is now again."""

    @property
    def filmed(self) -> bool:
        """Whether a film of the ascent shows it; its end, besides, is the last picture."""
        return self.index % FRAME == 0

    def image(self) -> Image.Image:
        """It as a picture, its settings in `.info["unclip"]`."""
        image = to_images(self.x)[0]
        image.info["unclip"] = self.settings
        return image


def optimize(
    clip: Clip, prompt: str, *, seed: int = 0, image: Image.Image | None = None, how: Ascent | None = None
) -> Iterator[Step]:
    """The ascent of one picture, from the seed's grey noise or the middle square of `image`; its last step is the result.

        for step in optimize(load_clip(), "a sunset"): ...
        step.image().save("sunset.png")

    On one machine the same arguments give the same pictures, whichever step one stops at. RequestError for an empty prompt
    and a picture that `check_picture` refuses.
    """
    how = how or Ascent()
    if not prompt.strip():
        raise RequestError("the prompt is empty: say what CLIP is to see in the picture")
    size = how.size or clip.size
    own = Rng([seed], device=clip.device)
    if image is None:
        start = GREY * own.normal((3, size, size))
    else:
        check_picture(image)
        start = to_tensor([clips.look(image, size)]).to(clip.device)
    canvas = make_canvas(how.basis, start)
    settings = _settings(clip, prompt, seed, image, how.model_copy(update={"size": size}))
    generator = torch.Generator().manual_seed(mix(seed, _VIEWS) & _GENERATOR)
    for index, score in enumerate(ascend(canvas, _cosines(clip, prompt), clip.size, how, generator)):
        x = canvas.picture().detach().clone()
        yield Step(index, how.steps, x, score, {**settings, "steps": index + 1})


def ascend(
    canvas: Canvas, score: Callable[[Tensor], Tensor], side: int, how: Ascent, generator: torch.Generator
) -> Iterator[float]:
    """Moves the canvas up the mean of `score(views)` (V,), step by step, and yields that mean after each.

    Views (V, 3, side, side) are drawn from the CPU's `generator`.
    """
    adam = torch.optim.Adam([canvas.values], lr=how.rate or RATES[how.basis])
    for _ in range(how.steps):
        mean = score(look(canvas.picture(), side, how.views, strength=how.strength, generator=generator)).mean()
        adam.zero_grad()
        (-mean).backward()
        adam.step()
        canvas.settle()
        yield mean.item()


def _cosines(clip: Clip, prompt: str) -> Callable[[Tensor], Tensor]:
    """The cosines (V,) of views and the prompt, differentiable."""
    text = unit(clip.texts([prompt]))[0].to(clip.device)
    # Its matrices are in bf16 where they are multiplied so (`device.weight_types`).
    halves = any(weights.dtype == torch.bfloat16 for weights in clip.network.parameters())

    def cosines(views: Tensor) -> Tensor:
        with autocast(clip.device, "bf16" if halves else "fp32"):
            z = clip.network.encode_image(views)
        return unit(z) @ text

    return cosines


def _settings(clip: Clip, prompt: str, seed: int, image: Image.Image | None, how: Ascent) -> dict[str, Any]:
    asked = how.model_dump(exclude_none=True)
    parents = [parent(prompt), *([] if image is None else [parent(image)])]
    return {"task": "optimize", "seed": seed, "clip": clip.name, **asked, "parents": parents}
