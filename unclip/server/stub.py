"""A model that paints by arithmetic, in steps that take as long as one likes: for tests of all that is around a model.

The same request gives the same picture. Some prompts bring on what goes wrong with real models: see FAULTS.
"""

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unclip.errors import RequestError
from unclip.server.jobs import Cancelled, JobRequest
from unclip.server.painting import Painted, Report

STEPS, SIZE, PREVIEW = 10, 256, 32  # steps of a picture; its side, and a preview's, in px

FAULTS = {
    "stub: refuse": "the model cannot serve it",
    "stub: break": "an error nobody thought of",
    "stub: no memory": "the memory runs out",
    "stub: die": "the process dies",
    "stub: hang": "a step never ends",
}
"""Prompts, and what happens to them at their second step."""


class Stub:
    """A painter; `seconds` a step."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def paint(
        self, request: JobRequest, slot: int, files: Sequence[str], report: Report, cancelled: threading.Event
    ) -> Painted:
        """The picture of a slot. FileNotFoundError for a file that is not there, Cancelled between any two steps."""
        steps, side = request.steps or STEPS, request.size or SIZE
        place = slot if request.seed_of(0) == request.seed_of(1) else 0  # in a strip, whose frames share a seed
        asked = request.model_dump(exclude={"n", "model", "images", "mask", "seed"})
        told = repr((asked, request.seed_of(slot), place))
        seen = b"".join(Path(path).read_bytes() for path in files)
        draw = np.random.default_rng(list(hashlib.sha256(told.encode() + seen).digest()))
        colours = draw.integers(0, 256, (2, 3))
        for step in range(steps):
            if step == 1:
                _go_wrong(request.prompt)
            if cancelled.wait(self.seconds) if self.seconds else cancelled.is_set():
                raise Cancelled
            noise = (steps - 1 - step) / steps
            report("decoder", step, steps, lambda noise=noise: _gradient(colours, PREVIEW, draw.random(), noise))
        settings = request.model_dump(exclude_none=True, exclude_defaults=True, exclude={"n", "images", "mask"})
        return Painted(_gradient(colours, side, 0.0, 0.0), {**settings, "seed": request.seed_of(slot), "size": side})


def _gradient(colours: np.ndarray, side: int, phase: float, noise: float) -> Image.Image:
    """From one colour to the other, with a ripple of `noise`, 0 to 1."""
    y, x = np.mgrid[:side, :side] / max(side - 1, 1)
    mix = ((x + y) / 2)[..., None]
    ripple = noise * 127 * np.sin(40 * (x * y + phase))[..., None]
    return Image.fromarray(np.clip((1 - mix) * colours[0] + mix * colours[1] + ripple, 0, 255).astype(np.uint8))


def _go_wrong(prompt: str | None) -> None:
    fault = prompt if prompt in FAULTS else None
    if fault == "stub: refuse":
        raise RequestError("the stub was asked to refuse")
    if fault == "stub: break":
        raise ZeroDivisionError("the stub was asked to break")
    if fault == "stub: no memory":
        raise MemoryError
    if fault == "stub: die":
        os._exit(9)
    while fault == "stub: hang":
        time.sleep(1.0)
