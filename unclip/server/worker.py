"""Loads models and paints slots in threads: what a worker process, and a replica on a cluster, is around.

It tells what crew.py says that is heard of orders, from any of its threads. After running out of memory, which ends an order
as "lost", its process should go, since what is left of the memory is not to be trusted.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from unclip.errors import RequestError, UnclipError
from unclip.server.config import STUB, ServerConfig
from unclip.server.crew import Message, Order
from unclip.server.jobs import DETAIL_LIMIT, Cancelled
from unclip.server.painting import ModelPainter, Painter, encode_png, encode_preview
from unclip.server.stub import Stub

if TYPE_CHECKING:
    from unclip.server.batching import Batcher

log = logging.getLogger(__name__)

TOGETHER, TOGETHER_EXACT, TOGETHER_GPU = 8, 2, 16  # slots at once, unless the config says otherwise
PROGRESS_SECONDS = 0.02  # between two reports of a slot's steps, which can be quicker than anybody looks
PREVIEW_SECONDS = 0.3  # between two previews of a slot
STUCK = 10  # heartbeats that a step may take

# Where in a picture's work a stage lies, from 0 to 1; the upsamplers share what is left.
_SPANS = {"prior": (0.0, 0.15), "inversion": (0.0, 0.4), "decoder": (0.15, 0.8), "base": (0.0, 0.8)}
_LAST_SPAN = (0.8, 0.99)


@dataclass(eq=False)
class _Slot:
    """A slot being painted."""

    order: Order
    cancelled: threading.Event
    fraction: float = 0.0
    moved: float | None = None  # when it last made a step; None before the model is there
    told: float = 0.0  # when its progress was last told
    shown: float = field(default_factory=time.monotonic)


class Worker:
    """Call `prepare` once, before anything is painted on `device`; `tell` is called with messages."""

    def __init__(self, config: ServerConfig, device: str, tell: Callable[[Message], None]):
        self._config, self._device, self._tell = config, device, tell
        self._loading, self._guard = threading.Lock(), threading.Lock()
        self._painters: dict[str, Painter] = {}
        self._batcher: Batcher | None = None
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._pool: ThreadPoolExecutor | None = None

    def prepare(self) -> int:
        """Loads the model that most will ask for; how many slots fit at once."""
        config, on_gpu = self._config, False
        try:
            self._painter(config.model)
        except (UnclipError, OSError) as error:  # told to whoever asks for it
            log.error("the model cannot be loaded: %s", error)
        if config.model != STUB or config.models:
            from unclip.device import pick_device

            on_gpu = pick_device(self._device).type == "cuda"
        room = slots_at_once(config, on_gpu=on_gpu)
        self._pool = ThreadPoolExecutor(room, "slot")
        return room

    def paint(self, order: Order) -> None:
        """Begins to, when one of the slots before it ends."""
        assert self._pool is not None
        slot = _Slot(order, threading.Event())
        with self._guard:
            self._slots[order.key] = slot
        self._pool.submit(self._paint, slot)

    def cancel(self, job: str, which: int | None = None) -> None:
        """Ends the slots of a job, or one of them, before their next step."""
        with self._guard:
            for slot in self._slots.values():
                if slot.order.job == job and which in (None, slot.order.slot):
                    slot.cancelled.set()
        if self._batcher is not None:
            self._batcher.wake()

    @property
    def stuck(self) -> bool:
        """Whether a step does not end."""
        with self._guard:
            oldest = min((slot.moved for slot in self._slots.values() if slot.moved is not None), default=None)
        return oldest is not None and time.monotonic() - oldest >= STUCK * self._config.heartbeat_seconds

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
        order = slot.order
        try:
            if slot.cancelled.is_set():
                raise Cancelled
            painter = self._painter(order.where)
            slot.moved = time.monotonic()
            painted = painter.paint(order.request, order.slot, order.files, self._reporter(slot), slot.cancelled)
            end = ("done", *order.key, encode_png(painted.image), painted.settings)
        except Cancelled:
            end = ("cancelled", *order.key)
        except Exception as raised:
            error = _name(raised)
            if error == "internal":
                log.error("a slot of %s failed: %s", order.request.task, type(raised).__name__, exc_info=raised)
            lost = error == "out_of_memory"
            end = ("lost", *order.key, error) if lost else ("failed", *order.key, error, _detail(raised))
        with self._guard:
            del self._slots[order.key]
        self._tell(end)

    def _reporter(self, slot: _Slot) -> Callable[[str, int, int, Callable[[], Image.Image]], None]:
        def report(stage: str, step: int, steps: int, preview: Callable[[], Image.Image]) -> None:
            slot.moved = now = time.monotonic()
            low, high = _SPANS.get(stage, _LAST_SPAN)
            slot.fraction = max(slot.fraction, low + (high - low) * (step + 1) / steps)
            if now - slot.told >= PROGRESS_SECONDS or step + 1 == steps:
                slot.told = now
                self._tell(("progress", *slot.order.key, stage, step + 1, steps, round(slot.fraction, 4)))
            if stage in ("decoder", "base") and now - slot.shown >= PREVIEW_SECONDS:
                slot.shown = now
                self._tell(("preview", *slot.order.key, encode_preview(preview())))

        return report


def slots_at_once(config: ServerConfig, *, on_gpu: bool) -> int:
    """How many slots one worker paints at a time."""
    return config.batch or (TOGETHER_EXACT if config.exact else TOGETHER_GPU if on_gpu else TOGETHER)


def _name(error: Exception) -> str:
    """Which of `jobs.ERRORS` it is."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error):
        return "out_of_memory"
    if isinstance(error, RequestError):
        return "refused"
    if isinstance(error, FileNotFoundError):
        return "image_gone"
    return "model" if isinstance(error, UnclipError) else "internal"


def _detail(error: Exception) -> str | None:
    """What a refusal says, which is ours from beginning to end; None of other errors, whose words may be a library's."""
    return " ".join(str(error).split())[:DETAIL_LIMIT] if isinstance(error, RequestError) else None
