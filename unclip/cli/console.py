"""What the verbs say and where: results to stdout, notes and progress to stderr, and no bars where nobody watches."""

import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unclip.errors import UnclipError


def stderr() -> Console:
    """The console for notes; rich honours NO_COLOR and leaves colours out off a terminal."""
    return Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """One line on stderr, for the person who watches."""
    print(message, file=sys.stderr, flush=True)


def guarded(body: Callable[[], object]) -> int:
    """The exit code of a script: 0, or 2 after one line on stderr when `body` raises UnclipError."""
    try:
        body()
    except UnclipError as error:
        note(f"error: {error}")
        return 2
    return 0


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout, for programs."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def progress() -> Progress:
    """Progress bars on stderr that vanish when done; silent when stderr is not a terminal."""
    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def columns(rows: list[tuple[str, ...]]) -> str:
    """Rows of text as aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
