"""A line chart as inline SVG: a report must open from a disk years later, with nothing beside it."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 8, 24  # margins
POINTS = 500  # the most that a line shows

Points = Sequence[tuple[float, float]]


def chart(title: str, points: Points, *, smooth: bool = False, marks: Sequence[float] = ()) -> str:
    """A figure of `points` (x, y), x ascending; not-finite ones are left out, and there is no figure without any.

    `smooth` draws a running mean over the faint raw line; `marks` are dashed verticals, where the run restarted. The y axis
    is logarithmic when all is positive and spans more than a factor of five.
    """
    points = _thin([(x, y) for x, y in points if math.isfinite(y)])
    if not points:
        return ""
    to_x, x_ticks = _axis([x for x, _ in points], LEFT, WIDTH - RIGHT, log=False)
    heights = [y for _, y in points]
    to_y, y_ticks = _axis(heights, HEIGHT - BOTTOM, TOP, log=min(heights) > 0 and max(heights) > 5 * min(heights))

    def line(kind: str, pairs: Points) -> str:
        return f'<polyline class="{kind}" points="{" ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in pairs)}"/>'

    parts = [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{to_y(y):.1f}" y2="{to_y(y):.1f}"/>' for y in y_ticks]
    parts += [f'<text x="{LEFT - 6}" y="{to_y(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>' for y in y_ticks]
    parts += [f'<text x="{to_x(x):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{_short(x)}</text>' for x in x_ticks]
    for mark in marks:
        x = min(max(to_x(mark), LEFT), WIDTH - RIGHT)
        parts.append(
            f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"><title>restart at {_short(mark)}</title></path>'
        )
    if len(points) == 1:
        parts.append(f'<circle cx="{to_x(points[0][0]):.1f}" cy="{to_y(points[0][1]):.1f}" r="3"/>')
    parts.append(line("raw" if smooth else "smooth", points))
    if smooth:
        parts.append(line("smooth", _smooth(points)))
    caption = f"{escape(title)} <b>{_short(points[-1][1])}</b>"
    return f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg></figure>'


def _thin(points: Points) -> list[tuple[float, float]]:
    """At most POINTS points, each the mean of as many neighbours."""
    size = math.ceil(len(points) / POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def _smooth(points: Points) -> list[tuple[float, float]]:
    """An exponential running mean over about a sixtieth of the points, without the pull of its start."""
    keep = 1 - 1 / max(len(points) / 60, 1)
    total = weight = 0.0
    result = []
    for x, y in points:
        total, weight = keep * total + y, keep * weight + 1
        result.append((x, total / weight))
    return result


class _Scale:
    """The straight map from [low, high] (or their logarithms) to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool):
        self.log = log
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def _axis(values: Sequence[float], start: float, end: float, *, log: bool) -> tuple[_Scale, list[float]]:
    """The map from values to pixels, and round values to write beside it."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        candidates = [digit * 10.0**decade for decade in decades for digit in ((1, 2, 5) if len(decades) < 5 else (1,))]
    else:
        rough = (high - low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = unit * next(digit for digit in (1, 2, 5, 10) if digit * unit >= rough)
        candidates = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return _Scale(low, high, start, end, log=log), [value for value in candidates if low <= value <= high]


def _short(value: float) -> str:
    """Three digits and a unit: 1.25M, 0.0312."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3g}"
