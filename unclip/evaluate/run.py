"""One evaluation from end to end: the suite is made, the painter paints it, the judge scores it, a report says all."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from unclip.config import Config
from unclip.evaluate.judge import Judge
from unclip.evaluate.painters import Painter, Progress, paint_all
from unclip.evaluate.report import NOTES
from unclip.evaluate.score import score
from unclip.evaluate.suite import SPLITS, Item, icons_suite


class Settings(Config):
    """What is asked, and how the answer is weighed. `samples`: prompts a split; `batch`: prompts painted at a time."""

    samples: int = Field(500, ge=1)
    splits: tuple[str, ...] = SPLITS
    seed: int = 0
    batch: int = Field(32, ge=1)
    resamples: int = Field(1000, ge=1)


@dataclass(frozen=True)
class Result:
    """The report as JSON values; what it is about, item by item; the caption the judge preferred for each picture."""

    report: dict[str, Any]
    items: Sequence[Item]
    pictures: Sequence[Image.Image]
    read_as: Sequence[str]


def evaluate(
    name: str,
    make_painter: Callable[[], Painter],
    judge: Judge,
    data: str | Path,
    settings: Settings,
    *,
    progress: Progress | None = None,
) -> Result:
    """Judges `name`, whose painter is made once the prompts are, over the prepared icons in `data`.

    The report holds "bundle", "suite", "judge", "samples", "seed", "resamples", "seconds", "splits" (what `score` gives) and
    "notes" (how to read it).
    """
    began = time.perf_counter()
    items = icons_suite(data, samples=settings.samples, size=judge.size, seed=settings.seed, splits=settings.splits)
    painter = make_painter()
    ready = time.perf_counter()
    pictures = paint_all(painter, items, batch=settings.batch, progress=progress)
    painted = time.perf_counter()
    splits, read_as = score(items, pictures, judge, resamples=settings.resamples)
    seconds = {"prepare": ready - began, "paint": painted - ready, "judge": time.perf_counter() - painted}
    report = {
        "bundle": name,
        "suite": "icons",
        "judge": {"name": judge.name, "fingerprint": judge.fingerprint, "size": judge.size},
        "samples": settings.samples,
        "seed": settings.seed,
        "resamples": settings.resamples,
        "seconds": {stage: round(duration, 2) for stage, duration in seconds.items()},
        "splits": splits,
        "notes": NOTES,
    }
    return Result(report, items, pictures, read_as)
