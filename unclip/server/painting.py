"""A request in the words of the tasks: one slot of a job painted by a real model.

The tasks make squares of the sides that the model has. What is asked for besides comes from the next larger one, made
smaller, or from the largest, made larger: 512 px is 1024 halved, or 256 doubled, by the resize of all pictures.
"""

import base64
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from PIL import Image

from unclip.errors import RequestError
from unclip.server.jobs import Cancelled, JobRequest

if TYPE_CHECKING:
    from unclip.diffusion.samplers import Step
    from unclip.glide import GLIDE
    from unclip.pipeline import UnCLIP
    from unclip.request import Options, Progress
    from unclip.server.batching import Batcher
    from unclip.shelf import Network

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
        with self.batcher.painting(cancelled):
            image = _perform(self.model, request, slot, pictures, made, progress)
        settings = image.info["unclip"]
        if request.task not in ("inpaint", "outpaint") and image.width != needed:
            image, settings = _resized(image, needed), {**settings, "size": needed}
        return Painted(image, settings)


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
    return Options(**given, sampler="ddim" if "eta" in given else None)


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


def _perform(
    model: "UnCLIP | GLIDE",
    request: JobRequest,
    slot: int,
    pictures: Sequence[Image.Image],
    size: int,
    progress: "Progress",
) -> Image.Image:
    """The picture at one of the model's own sides, for edits at the picture's or the asked one."""
    from unclip import inpainting, tasks
    from unclip.glide import GLIDE

    seed, options = request.seed_of(slot), options_of(request)
    how: dict[str, Any] = {"size": size, "options": options, "progress": progress}
    if request.task == "generate":
        return model.generate(request.prompt or "", seed=seed, **how)[0]
    if isinstance(model, GLIDE):
        raise RequestError(f"{model.name} is a GLIDE: it paints from prompts only")
    if request.task == "interpolate":
        return _frame(model, request, slot, pictures, how)
    image = pictures[0]
    if request.task == "variations":
        return tasks.variations(model, image, n=1, seed=seed, eta=request.eta, **how)[0]
    if request.task == "text_diff":
        return tasks.text_diff(model, image, request.old, request.new, thetas=[request.theta[slot]], **how)[0]
    if request.task == "image_to_image":
        return tasks.image_to_image(model, image, request.prompt, strength=request.strength, seed=seed, **how)[0]
    how.pop("size")
    if request.task == "outpaint":
        grown = {side: getattr(request, side) for side in ("left", "right", "top", "bottom")}
        return inpainting.outpaint(model, image, request.prompt, **grown, n=1, seed=seed, **how)[0]
    mask = pictures[1] if len(pictures) > 1 else None
    if request.size is not None:  # at the asked side from the start, so that what is kept is kept to the byte
        image, mask = (None if one is None else _squared(one, request.size) for one in (image, mask))
    assert image is not None
    return inpainting.inpaint(model, image, mask, request.prompt, n=1, seed=seed, **how)[0]


def _frame(
    model: "UnCLIP", request: JobRequest, slot: int, pictures: Sequence[Image.Image], how: dict[str, Any]
) -> Image.Image:
    """One frame of `tasks.interpolate` between pictures, as there."""
    import torch

    from unclip import tasks
    from unclip.provenance import parent, tell
    from unclip.request import retracing

    pairs = [tasks.invert(model, image, options=how["options"], progress=how["progress"]) for image in pictures]
    place = slot / (request.frames - 1) * (len(pairs) - 1)
    z, x_T = (tasks.along(torch.cat(parts), [place]) for parts in zip(*pairs, strict=True))
    seed = request.seed_of(slot)
    painted = model.paint(z, [seed], x_T=x_T, **{**how, "options": retracing(how["options"])})
    each = [{"seed": seed, "noise": "slerp", "pace": "even", "frames": request.frames, "frame": slot, "size": how["size"]}]
    return tell(model.name, "interpolate", painted, each, how["options"], [parent(image) for image in pictures])[0]


def _squared(image: Image.Image, side: int) -> Image.Image:
    from unclip.images import resize_image, square_crop

    return resize_image(square_crop(image), side)


def _resized(image: Image.Image, side: int) -> Image.Image:
    from unclip.images import resize, to_images, to_tensor

    return to_images(resize(to_tensor([image]), side))[0]


def _shown(step: "Step") -> Image.Image:
    """What the picture would be if this step were the last."""
    from unclip.images import to_images

    return to_images(step.x0[:1])[0]
