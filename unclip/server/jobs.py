"""The words that store, engine, workers and HTTP share: what is asked, what became of it, and what is told on the way.

A job is one request of one owner. It has slots, one a picture; a slot is the unit of work and of retrying, and a finished
one stays whatever becomes of the rest. A slot can be dropped while the others go on. Times are Unix seconds. Nothing here
needs torch.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from unclip.config import Config

Task = Literal["generate", "variations", "inpaint", "outpaint", "interpolate", "text_diff", "image_to_image"]
EventKind = Literal["state", "progress", "preview", "image", "dropped"]
ImageKind = Literal["upload", "mask", "made"]

Count = Annotated[int | None, Field(ge=1, le=1000)]
Scale = Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)]
Seed = Annotated[int | None, Field(ge=0, lt=1 << 53)]  # what JSON carries exactly
Border = Annotated[int, Field(ge=0, le=4096)]
Theta = Annotated[float, Field(ge=0, le=0.5)]

SIZES = (256, 512, 1024)
PROMPT_LIMIT = 1000  # code points
MOST = 10  # images of a job
DETAIL_LIMIT = 300  # characters
_NEEDS_PROMPT = ("generate",)
_IMAGES = {"generate": (0, 0), "interpolate": (2, 8)}  # least and most; the other tasks take one


class JobRequest(Config):
    """What somebody asks for. Stored as JSON, so that a job can be made again from it."""

    task: Task
    model: str = "dall-e-2"
    prompt: Annotated[str | None, Field(max_length=PROMPT_LIMIT)] = None
    """Of interpolate it is one more end, the last."""
    images: tuple[str, ...] = ()
    """Ids of stored images: the parents, in the task's order."""
    mask: str | None = None
    """Id of a stored mask, white or transparent where to repaint; None: the image's own transparency."""
    n: Annotated[int, Field(ge=1, le=MOST)] = 4
    """Pictures; interpolate makes `frames` and text_diff one for each of `theta` instead."""
    seed: Seed = None
    """Of the first slot, slot i has seed + i. None: drawn when the job is queued, and kept in its request from then on."""
    size: Literal[256, 512, 1024] | None = None
    """Side in px; None: the model's own default."""
    steps: Count = None
    guidance: Scale = None
    prior_steps: Count = None
    prior_guidance: Scale = None
    upsampler_steps: Count = None
    eta: Annotated[float | None, Field(ge=0, le=1)] = None
    as_typed: bool = False
    """Prompts and captions go to the model as they are, whatever its words say of them (unclip/words)."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.6
    frames: Annotated[int, Field(ge=2, le=32)] = 9
    old: Annotated[str, Field(max_length=PROMPT_LIMIT)] = ""
    new: Annotated[str, Field(max_length=PROMPT_LIMIT)] = ""
    theta: Annotated[tuple[Theta, ...], Field(min_length=1, max_length=MOST)] = (0.05, 0.15, 0.3)
    left: Border = 0
    right: Border = 0
    top: Border = 0
    bottom: Border = 0

    @model_validator(mode="after")
    def _fits_its_task(self) -> "JobRequest":
        least, most = _IMAGES.get(self.task, (1, 1))
        if self.task == "interpolate" and self.prompt is not None:
            least, most = least - 1, most - 1
        if not least <= len(self.images) <= most:
            expected = str(least) if least == most else f"{least} to {most}"
            raise ValueError(f"{self.task} takes {expected} images, not {len(self.images)}")
        if self.prompt is None and self.task in _NEEDS_PROMPT:
            raise ValueError(f"{self.task} needs a prompt")
        if self.mask is not None and self.task != "inpaint":
            raise ValueError(f"{self.task} takes no mask")
        if self.task == "text_diff" and self.old == self.new:
            raise ValueError("text_diff needs an old and a new caption that differ")
        if self.task == "outpaint" and not (self.left or self.right or self.top or self.bottom):
            raise ValueError("outpaint needs at least one of left, right, top and bottom")
        return self

    @property
    def slots(self) -> int:
        """How many pictures it makes."""
        return {"interpolate": self.frames, "text_diff": len(self.theta)}.get(self.task, self.n)

    def seed_of(self, slot: int) -> int:
        """The seed of one slot; all frames of a strip share one. The job must have been queued."""
        assert self.seed is not None, "a queued request has its seed"
        return self.seed if self.task in ("interpolate", "text_diff") else self.seed + slot


class JobState(StrEnum):
    """Where a job is. Each slot ends painted or dropped; a job whose slots all have ended is

    DONE       if one was painted: dropped slots are holes in it, with None for an image and named in `Job.dropped`
    CANCELLED  if all were dropped, as when the whole job is cancelled before its slots have ended
    """

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


# The whole list of what `Job.error` can be, and what it says to people. No library's text ever gets out.
ERRORS = {
    "interrupted": "The server stopped twice while it worked on this.",
    "worker_died": "The process that painted this died twice.",
    "out_of_memory": "There was not enough memory for this: try a smaller size or fewer images.",
    "model": "The model could not be loaded.",
    "refused": "The model cannot serve this request.",
    "image_gone": "A picture that this needs is no longer there, or is not readable.",
    "storage": "The pictures could not be stored.",
    "internal": "Something went wrong on the server.",
}


def why(error: str | None, detail: str | None = None) -> str:
    """What people are told of a job that failed."""
    words = ERRORS.get(error or "internal", ERRORS["internal"])
    return f"{words.rstrip('.')}: {detail.rstrip('.')}." if detail else words


@dataclass(frozen=True)
class Job:
    id: str
    owner: str
    request: JobRequest
    state: JobState
    created: float
    started: float | None = None
    finished: float | None = None
    error: str | None = None
    """A key of ERRORS."""
    detail: str | None = None
    """With `refused`: what is wrong with the request, in the words of our own RequestError, DETAIL_LIMIT at most."""
    images: tuple[str | None, ...] = ()
    """An id for each slot, once it is done."""
    progress: float = 0.0
    attempts: int = 0
    dropped: tuple[int, ...] = ()
    """The slots that somebody cancelled one by one."""

    @property
    def whole(self) -> JobState:
        """How it ends when all its slots have ended."""
        return JobState.CANCELLED if len(self.dropped) == self.request.slots else JobState.DONE

    def to_json(self) -> dict[str, Any]:
        """Its fields, the request inlined: what /api gives. The owner stays inside."""
        told = {key: value for key, value in vars(self).items() if key not in ("owner", "request")}
        return told | {"request": self.request.model_dump(mode="json"), "images": list(self.images)}


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    state     {state, error?, detail?, position? (in the queue, 0 is next), eta_seconds? (until all of it is done)}
    progress  {slot, stage, step, steps, fraction (of the slot, 0 to 1)}
    preview   {slot, png: base64 of the x0 at the decoder's side, at most 64 px}
    image     {slot, image: its id, seed}
    dropped   {slot}
    """

    id: int  # rising within a job, also over restarts of the server
    job: str
    kind: EventKind
    data: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class QueueFull(Exception):  # noqa: N818  # a state, as its neighbours are
    """There is no room for another job now."""

    def __init__(self, retry_after_ms: int):
        super().__init__(f"the queue is full, come again in {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class Draining(Exception):  # noqa: N818
    """The engine takes no more jobs: the server is about to stop."""


class Cancelled(Exception):  # noqa: N818
    """The picture is no longer wanted."""
