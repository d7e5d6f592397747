"""The map as a picture, by matplotlib, which the extra `plots` brings."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from unclip.errors import ConfigError
from unclip.maps.clouds import CAPTIONS, PICTURES, PRIOR, Cloud
from unclip.maps.plane import Plane

COLOURS = {PICTURES: "#3b82d0", CAPTIONS: "#d97706", PRIOR: "#0f9d76"}  # told apart by the colour-blind too
LABELS = {PICTURES: "pictures", CAPTIONS: "captions", PRIOR: "the prior's z"}
INCHES, DOTS = (8.0, 6.0), 120
LINES = 40  # pairs that are joined by a line


def load_matplotlib() -> tuple[Any, Any]:
    """Its canvas in memory and its figure; ConfigError where it is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("a map as a picture needs matplotlib: install unclip[plots], or ask for --html alone") from None
    return FigureCanvasAgg, Figure


def draw(clouds: Sequence[Cloud], plane: Plane, *, title: str) -> Image.Image:
    """Each cloud in its colour, and lines from some captions to their pictures. ConfigError without matplotlib."""
    FigureCanvasAgg, Figure = load_matplotlib()
    figure = Figure(figsize=INCHES, dpi=DOTS, layout="constrained")
    axes = figure.add_subplot()
    size = float(np.clip(20_000 / sum(len(cloud.rows) for cloud in clouds), 3, 40))
    for cloud, places in zip(clouds, plane.places, strict=True):
        label = f"{LABELS[cloud.name]} ({len(cloud.rows):,})"
        axes.scatter(*places.T, s=size, c=COLOURS[cloud.name], alpha=0.6, linewidths=0, label=label)
    for line in _lines(clouds, plane):
        axes.plot(*line.T, color="#888888", linewidth=0.5, alpha=0.6, zorder=0.5)
    axes.set(xlabel=plane.axes[0], ylabel=plane.axes[1], title=title)
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, markerscale=2)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    with Image.open(buffer) as drawn:
        return drawn.convert("RGB")


def _lines(clouds: Sequence[Cloud], plane: Plane) -> list[np.ndarray]:
    """From the captions of some rows, evenly chosen, to the other points of each, (2, 2)."""
    where = [dict(zip(cloud.rows, places, strict=True)) for cloud, places in zip(clouds, plane.places, strict=True)]
    if len(where) < 2:
        return []
    rows = list(where[1])
    chosen = rows[:: max(1, len(rows) // LINES)][:LINES]
    return [np.stack([where[1][row], other[row]]) for row in chosen for other in (where[0], *where[2:])]
