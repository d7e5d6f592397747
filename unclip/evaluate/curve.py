"""Score against images seen: one line of JSON for each evaluation of a run, appended, for plots and extrapolation."""

import json
import os
from pathlib import Path
from typing import Any

from unclip.errors import RequestError


def append_point(path: str | Path, report: dict[str, Any], images_seen: int) -> None:
    """Adds {"images_seen", "bundle", "judge", "samples", "seed", "scores", "real"} to the file at `path`.

    `scores` and `real` are {split or split/category: {figure: {"value", "low", "high"}}}. Raises RequestError when the file
    cannot be written.
    """
    groups = dict(report["splits"])
    for split, group in report["splits"].items():
        groups |= {f"{split}/{category}": part for category, part in group.get("categories", {}).items()}
    point = {
        "images_seen": images_seen,
        "bundle": report["bundle"],
        "judge": report["judge"]["fingerprint"],
        "samples": report["samples"],
        "seed": report["seed"],
        "scores": {name: group["generated"] for name, group in groups.items()},
        "real": {name: group["real"] for name, group in groups.items()},
    }
    try:
        with open(path, "a", encoding="utf-8") as lines:  # one write, so that a reader sees whole lines
            lines.write(json.dumps(point, ensure_ascii=False) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from None
