"""A bar a stage on a terminal, silence elsewhere, and the seconds that each stage took."""

import time
from typing import TYPE_CHECKING, Self

from unclip.cli.console import progress as make_bars

if TYPE_CHECKING:
    from unclip.diffusion.samplers import Step


class StageProgress:
    """Called with (stage, step) by the pipeline; `seconds` sums what passed between the calls, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._bars = make_bars()
        self._tasks: dict[str, object] = {}

    def __enter__(self) -> Self:
        self._bars.__enter__()
        self._last = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.__exit__(*exception)  # pyright: ignore[reportArgumentType]

    def __call__(self, stage: str, step: "Step") -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=step.total)
        self._bars.update(self._tasks[stage], completed=step.index + 1)  # pyright: ignore[reportArgumentType]
