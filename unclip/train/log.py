"""What a run says about itself: log.jsonl for tools, a bar or plain lines for whoever watches.

log.jsonl has one object a line, told apart by `event`: `tick` (means since the tick before), `evaluate`, `preview`, `start`
(also of every restart) and `stop`. A resumed run drops the lines past its checkpoint, since it will write them again: so
every step is in it once, and the log of a run that was killed equals that of one that was not, times apart.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from unclip.files import write_text

LOG = "log.jsonl"


class RunLog:
    """Appends to `run`/log.jsonl; a line is handed to the system at once, so only a power cut can lose it."""

    def __init__(self, run: Path):
        self.path = run / LOG

    def rewind(self, step: int) -> None:
        """Forgets what was written past `step`, by a run that was killed before it could save as much."""
        entries = [entry for entry in read_log(self.path.parent) if entry["step"] <= step]
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in entries))

    def write(self, event: str, step: int, **values: Any) -> dict[str, Any]:
        entry = {"event": event, "step": step, **values, "time": round(time.time(), 3)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return entry


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """The entries of a run's log, oldest first; a last line torn by a kill is left out. Empty when there is no log."""
    path = Path(run) / LOG
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


class Window:
    """The scalars of the steps since the last tick. They stay on the device until asked for: reading one stalls a GPU."""

    def __init__(self, values: Mapping[str, list[float]] | None = None):
        self.values: dict[str, list[float | Tensor]] = {name: list(column) for name, column in (values or {}).items()}

    def add(self, metrics: Mapping[str, float | Tensor]) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)

    def read(self) -> dict[str, list[float]]:
        """Every value as a number; what was read is kept as numbers."""
        numbers = {name: [float(value) for value in column] for name, column in self.values.items()}
        self.values = {name: list(column) for name, column in numbers.items()}
        return numbers

    def means(self) -> dict[str, float]:
        """The mean of each scalar over the steps that gave it; the window is empty then."""
        numbers = self.read()
        self.values = {}
        return {name: math.fsum(column) / len(column) for name, column in numbers.items()}


class Display:
    """A progress bar on a terminal, one line a tick elsewhere, both on stderr."""

    def __init__(self, steps: int, step: int, *, quiet: bool = False):
        self._steps = steps
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = None
        if self._console.is_terminal:
            columns = (BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeRemainingColumn())
            self._bar = Progress(
                *columns, TextColumn("{task.description}"), console=self._console, speed_estimate_period=300
            )
            self._task = self._bar.add_task("starting", total=steps, completed=step)

    def __enter__(self) -> "Display":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=step)

    def tick(self, entry: Mapping[str, Any]) -> None:
        rate = entry["images_per_second"]
        text = (
            f"loss {entry['loss']:.4f}  grad {entry['grad_norm']:.3f}  lr {entry['lr']:.2e}  "
            f"{rate:.1f} images/s  data wait {100 * entry['data_wait']:.0f} %"
        )
        if self._bar:
            self._bar.update(self._task, completed=entry["step"], description=text)
        else:
            left = (self._steps - entry["step"]) * entry["images"] / max(entry["step"], 1) / max(rate, 1e-9)
            self.say(f"step {entry['step']}/{self._steps}  {text}  {_clock(left)} left")

    def say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def memory_gb() -> float:
    """The process's resident memory now, in GB (where the system does not say: its peak)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e9 if sys.platform == "darwin" else peak / 1e6


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
