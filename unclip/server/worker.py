"""A process that paints: it loads models, runs slots in threads, and answers with events through a pipe.

The pipe is all that joins it to the server, so whichever dies, the other notices: here its end is the end of the process,
there of the worker. What is sent, as tuples:

    in    ("paint", Order)   ("cancel", job)   ("leave", "")
    out   ("ready", slots at once)   ("beat",)   ("progress", job, slot, stage, step, steps, fraction)
          ("preview", job, slot, png in base64)   ("done", job, slot, png, settings)   ("failed", job, slot, error)
          ("cancelled", job, slot)

It beats as long as all is well: a step that does not end stops the heart, as does a process that stands still. After
running out of memory it goes, since what is left of the memory is not to be trusted; the server starts another.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from PIL import Image

from unclip.errors import RequestError, UnclipError
from unclip.server.config import STUB, ServerConfig
from unclip.server.jobs import Cancelled, JobRequest
from unclip.server.painting import ModelPainter, Painter, encode_png, encode_preview
from unclip.server.stub import Stub

if TYPE_CHECKING:
    from unclip.server.batching import Batcher

log = logging.getLogger(__name__)

TOGETHER, TOGETHER_EXACT, TOGETHER_GPU = 8, 2, 16  # slots at once, unless the config says otherwise
PREVIEW_SECONDS = 0.3  # between two previews of a slot
STUCK = 10  # heartbeats that a step may take
OUT_OF_MEMORY = 75  # the exit status

# Where in a picture's work a stage lies, from 0 to 1; the upsamplers share what is left.
_SPANS = {"prior": (0.0, 0.15), "inversion": (0.0, 0.4), "decoder": (0.15, 0.8), "base": (0.0, 0.8)}
_LAST_SPAN = (0.8, 0.99)


@dataclass(frozen=True)
class Order:
    """A slot to paint. `files`: the paths of the request's images, then of its mask; `where`: which model."""

    job: str
    slot: int
    request: JobRequest
    where: str
    files: tuple[str, ...]


@dataclass(eq=False)
class _Slot:
    """A slot being painted."""

    order: Order
    cancelled: threading.Event
    fraction: float = 0.0
    moved: float | None = None  # when it last made a step; None before the model is there
    shown: float = field(default_factory=time.monotonic)


def run(connection: Connection, config: ServerConfig, device: str) -> None:
    """The life of a worker process."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # the server's to act on: it lets us finish, then closes the pipe
        signal.signal(stop, signal.SIG_IGN)
    Worker(connection, config, device).serve()


class Worker:
    def __init__(self, connection: Connection, config: ServerConfig, device: str):
        self._connection, self._config, self._device = connection, config, device
        self._sending, self._loading = threading.Lock(), threading.Lock()
        self._painters: dict[str, Painter] = {}
        self._batcher: Batcher | None = None
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._guard = threading.Lock()

    def serve(self) -> None:
        """Until the pipe ends."""
        threading.Thread(target=self._beat, name="heart", daemon=True).start()
        together = self._prepare()
        pool = ThreadPoolExecutor(together, "slot")
        self._send("ready", together)
        while True:
            try:
                kind, what = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # nobody is left to paint for
            if kind == "paint":
                slot = _Slot(what, threading.Event())
                with self._guard:
                    self._slots[what.job, what.slot] = slot
                pool.submit(self._paint, slot)
            elif kind == "cancel":
                self._cancel(what)
            else:
                os._exit(0)

    def _prepare(self) -> int:
        """Loads the model that most will ask for; how many slots fit at once."""
        config, where = self._config, self._config.model
        if where == STUB and not config.models:
            return config.batch or (TOGETHER_EXACT if config.exact else TOGETHER)
        try:
            self._painter(where)
        except (UnclipError, OSError) as error:  # told to whoever asks for it
            log.error("the model cannot be loaded: %s", error)
        from unclip.device import pick_device

        usual = TOGETHER_GPU if pick_device(self._device).type == "cuda" else TOGETHER
        return config.batch or (TOGETHER_EXACT if config.exact else usual)

    def _painter(self, where: str) -> Painter:
        """A model, loaded when it is first asked for; it stays."""
        with self._loading:
            if where not in self._painters:
                self._painters[where] = Stub(self._config.stub_step_seconds) if where == STUB else self._load(where)
            return self._painters[where]

    def _load(self, where: str) -> Painter:
        import torch

        from unclip.device import autocast
        from unclip.pipeline import load
        from unclip.server.batching import GPU_PIXELS, PIXELS, Batcher

        model = load(where, device=self._device)
        if self._batcher is None:

            @contextmanager
            def inside() -> Iterator[None]:
                with torch.inference_mode(), autocast(model.device):
                    yield

            pixels = PIXELS if model.device.type == "cpu" else GPU_PIXELS
            self._batcher = Batcher(inside, exact=bool(self._config.exact), pixels=pixels)
        return ModelPainter.of(model, self._batcher)

    def _paint(self, slot: _Slot) -> None:
        order, error = slot.order, None
        try:
            if slot.cancelled.is_set():
                raise Cancelled
            painter = self._painter(order.where)
            slot.moved = time.monotonic()
            painted = painter.paint(order.request, order.slot, order.files, self._reporter(slot), slot.cancelled)
            self._send("done", order.job, order.slot, encode_png(painted.image), painted.settings)
        except Cancelled:
            self._send("cancelled", order.job, order.slot)
        except Exception as raised:
            error = _name(raised)
            if error == "internal":
                log.error("a slot of %s failed: %s", order.request.task, type(raised).__name__, exc_info=raised)
            self._send("failed", order.job, order.slot, error)
        with self._guard:
            del self._slots[order.job, order.slot]
        if error == "out_of_memory":
            os._exit(OUT_OF_MEMORY)

    def _reporter(self, slot: _Slot) -> Callable[[str, int, int, Callable[[], Image.Image]], None]:
        def report(stage: str, step: int, steps: int, preview: Callable[[], Image.Image]) -> None:
            slot.moved = now = time.monotonic()
            low, high = _SPANS.get(stage, _LAST_SPAN)
            slot.fraction = max(slot.fraction, low + (high - low) * (step + 1) / steps)
            key = (slot.order.job, slot.order.slot)
            self._send("progress", *key, stage, step + 1, steps, round(slot.fraction, 4))
            if stage in ("decoder", "base") and now - slot.shown >= PREVIEW_SECONDS:
                slot.shown = now
                self._send("preview", *key, encode_preview(preview()))

        return report

    def _cancel(self, job: str) -> None:
        with self._guard:
            for slot in self._slots.values():
                if slot.order.job == job:
                    slot.cancelled.set()
        if self._batcher is not None:
            self._batcher.wake()

    def _beat(self) -> None:
        seconds = min(0.5, self._config.heartbeat_seconds / 4)
        while True:
            with self._guard:
                oldest = min((slot.moved for slot in self._slots.values() if slot.moved is not None), default=None)
            if oldest is None or time.monotonic() - oldest < STUCK * self._config.heartbeat_seconds:
                self._send("beat")
            time.sleep(seconds)

    def _send(self, *message: Any) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            os._exit(0)


def _name(error: Exception) -> str:
    """Which of `jobs.ERRORS` it is."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error):
        return "out_of_memory"
    if isinstance(error, RequestError):
        return "refused"
    if isinstance(error, FileNotFoundError):
        return "image_gone"
    return "model" if isinstance(error, UnclipError) else "internal"
