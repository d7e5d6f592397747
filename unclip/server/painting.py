"""A request in the words of the tasks: one slot of a job painted by a real model.

The tasks make squares of the sides that the model has. What is asked for besides comes from the next larger one, made
smaller, or from the largest, made larger: 512 px is 1024 halved, or 256 doubled, by the resize of all pictures. Edits of a
part are at the asked side from the start, so that what is kept is kept to the byte.

The pairs (z, x_T) of pictures are made once for all slots that need them.
"""

import base64
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from PIL import Image

from unclip.errors import RequestError
from unclip.server.jobs import Cancelled, JobRequest
from unclip.server.sharing import Shared

if TYPE_CHECKING:
    from torch import Tensor

    from unclip.diffusion.samplers import Step
    from unclip.glide import GLIDE
    from unclip.pairs import Pair
    from unclip.pipeline import UnCLIP
    from unclip.request import Options, Progress
    from unclip.server.batching import Batcher
    from unclip.shelf import Network

PAIRS = 64  # that are kept, some 50 kB each: those of eight ways through eight pictures
PREVIEW_SIDE = 64  # px, at most
PNG_EFFORT = 3  # of 9: a third of the default's time, and files a twentieth larger


class Painted(NamedTuple):
    """A picture, and what makes it again."""

    image: Image.Image
    settings: dict[str, Any]


class Report(Protocol):
    """Told of every step; asks for the picture as it is only when it wants to show it."""

    def __call__(self, stage: str, step: int, steps: int, preview: Callable[[], Image.Image], /) -> None: ...


class Painter(Protocol):
    """What a worker asks for the picture of a slot. `files`: of the request's images, then of its mask if it has one."""

    def paint(
        self, request: JobRequest, slot: int, files: Sequence[str], report: Report, cancelled: threading.Event, /
    ) -> Painted: ...


@dataclass(frozen=True)
class ModelPainter:
    """A model whose networks the batcher computes."""

    model: "UnCLIP | GLIDE"
    batcher: "Batcher"
    pairs: "Shared[tuple[Tensor, Tensor]]" = field(default_factory=lambda: Shared(PAIRS))

    @classmethod
    def of(cls, model: "UnCLIP | GLIDE", batcher: "Batcher") -> "ModelPainter":
        """From now on all of the model's networks go through the batcher."""
        for network in _networks(model):
            network.share(batcher.share)
        return cls(model, batcher)

    def paint(
        self, request: JobRequest, slot: int, files: Sequence[str], report: Report, cancelled: threading.Event
    ) -> Painted:
        """The picture of a slot.

        RequestError for what the model cannot do, FileNotFoundError for a file that is not there or is no picture, Cancelled
        between any two steps.
        """

        def progress(stage: str, step: "Step") -> None:
            if cancelled.is_set():
                raise Cancelled
            report(stage, step.index, step.total, lambda: _shown(step))

        made, needed = sides(self.model.sizes, request.size)
        pictures = _read(files)
        pairs = self._pairs(request, slot, pictures, cancelled, progress) if _inverts(request) else []
        with self.batcher.painting(cancelled):
            image = _perform(self.model, request, slot, pairs or pictures, made, progress)
        settings = image.info["unclip"]
        if request.task not in ("inpaint", "outpaint") and image.width != needed:
            image, settings = _resized(image, needed), {**settings, "size": needed}
        return Painted(image, settings)

    def _pairs(
        self,
        request: JobRequest,
        slot: int,
        pictures: Sequence[Image.Image],
        cancelled: threading.Event,
        progress: "Progress",
    ) -> "list[Pair]":
        """Those of the pictures, and of the prompt if it is an end: made, or waited for, or still there."""
        from unclip.pairs import Pair, pair_of

        model, options = _unclip(self.model), options_of(request)

        def pair(end: Image.Image | str, seed: int) -> Pair:
            def make(told: "Progress") -> "tuple[Tensor, Tensor]":
                if cancelled.is_set():
                    raise Cancelled
                with self.batcher.painting(cancelled):
                    made = pair_of(model, end, seed=seed, options=options, progress=told)
                return made.z, made.x_T

            prompted = isinstance(end, str)
            key = (end, seed, options) if prompted else (end.info["source"]["sha256"], options.steps)
            return Pair(*self.pairs.get(key, make, progress), end)

        ends = [*pictures, request.prompt] if request.task == "interpolate" and request.prompt is not None else pictures
        return [pair(end, request.seed_of(slot) + i) for i, end in enumerate(ends)]


def sides(sizes: Sequence[int], size: int | None) -> tuple[int, int]:
    """The side to paint at, one of `sizes` (ascending), and the side to make of it; None: the model's default."""
    from unclip.request import pick_size

    if size is None:
        default = pick_size("", sizes, None)
        return default, default
    return next((side for side in sizes if side >= size), sizes[-1]), size


def options_of(request: JobRequest) -> "Options":
    """The sampling settings that a request changes. Noise on the way is DDIM's, so who asks for eta gets that sampler."""
    from unclip.request import Options

    names = ("steps", "guidance", "prior_steps", "prior_guidance", "upsampler_steps", "eta")
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    if request.task == "variations":
        given.pop("eta", None)  # it is the task's own
    return Options(**given, sampler="ddim" if "eta" in given else None, as_typed=request.as_typed or None)


def encode_png(image: Image.Image) -> bytes:
    """A PNG's bytes, nothing but pixels in it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_EFFORT)
    return buffer.getvalue()


def encode_preview(image: Image.Image) -> str:
    """A PNG of at most PREVIEW_SIDE px, in base64."""
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return base64.b64encode(encode_png(image)).decode()


def _networks(model: "UnCLIP | GLIDE") -> "list[Network[Any, Any]]":
    from unclip.glide import GLIDE

    if isinstance(model, GLIDE):
        found = [model.base, model.upsampler, *model.inpainting]
    else:
        finishers = [stage.finisher for stage in model.upsamplers]
        found = [model.clip, model.prior, model.decoder, *model.upsamplers, *finishers]
    return [network for network in found if network is not None]


def _read(files: Sequence[str]) -> list[Image.Image]:
    from unclip.images import read_picture

    try:
        return [read_picture(path) for path in files]
    except RequestError as error:
        raise FileNotFoundError(str(error)) from None


def _inverts(request: JobRequest) -> bool:
    """Whether the task begins with the pairs of its pictures."""
    return request.task in ("interpolate", "text_diff") or (request.task == "variations" and request.eta is not None)


def _unclip(model: "UnCLIP | GLIDE") -> "UnCLIP":
    from unclip.glide import GLIDE

    if isinstance(model, GLIDE):
        raise RequestError(f"{model.name} is a GLIDE: it paints from prompts only")
    return model


def _perform(
    model: "UnCLIP | GLIDE", request: JobRequest, slot: int, given: "Sequence[Any]", size: int, progress: "Progress"
) -> Image.Image:
    """The picture at one of the model's own sides, for edits at the picture's or the asked one.

    `given`: pictures, or the pairs of them all, as the task takes them.
    """
    from unclip import tasks
    from unclip.inpainting import Sides, inpaint, outpaint

    seed, options = request.seed_of(slot), options_of(request)
    how: dict[str, Any] = {"size": size, "options": options, "progress": progress}
    if request.task == "generate":
        return model.generate(request.prompt or "", seed=seed, **how)[0]
    model = _unclip(model)
    if request.task == "interpolate":
        return tasks.frame(model, given, slot, frames=request.frames, seed=seed, **how)
    image, *masks = given
    if request.task == "variations":
        return tasks.variations(model, image, n=1, seed=seed, eta=request.eta, **how)[0]
    if request.task == "text_diff":
        return tasks.text_diff(model, image, request.old, request.new, thetas=[request.theta[slot]], **how)[0]
    if request.task == "image_to_image":
        return tasks.image_to_image(model, image, request.prompt, strength=request.strength, seed=seed, **how)[0]
    if request.task == "outpaint":
        del how["size"]
        grown = Sides(request.left, request.right, request.top, request.bottom)
        return outpaint(model, image, grown, request.prompt, seed=seed, **how)[0]
    how["size"] = request.size
    return inpaint(model, image, masks[0] if masks else None, request.prompt, n=1, seed=seed, **how)[0]


def _resized(image: Image.Image, side: int) -> Image.Image:
    from unclip.images import resize, to_images, to_tensor

    return to_images(resize(to_tensor([image]), side))[0]


def _shown(step: "Step") -> Image.Image:
    """What the picture would be if this step were the last."""
    from unclip.images import to_images

    return to_images(step.x0[:1])[0]
