"""The gap between two clouds of pairs on the unit sphere, as figures with 95 % intervals ("Mind the Gap", 2203.02053).

    distance     of the two means; `chance`: the mean distance when each pair's two points are swapped by a coin
    separable    how often a plane tells which cloud a point is of. Ridge regression to +1 and -1 with a constant, lambda a
                 hundredth of the mean variance, is fitted on one half of the pairs and asked about the other, both ways;
                 chance is .5
    cosine       of true pairs; `chance`: of all others

Intervals are a bootstrap's over pairs, the plane being what it is; that of the distance is the resamples' spread about their
own mean, since drawing twice pushes means apart. Whoever asks sees to it that no caption is there twice (`first_of_each`):
two halves with the same caption in both would be no halves. Letters: N pairs, E embedding, R resamples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from unclip.errors import RequestError
from unclip.evaluate.metrics import INTERVAL, Figure, mean_figure, resample_counts

FEWEST = 4  # pairs: two for each half
RIDGE = 0.01


class Gap(NamedTuple):
    """Of n pairs; what chance gives stands beside each figure."""

    n: int
    distance: Figure
    distance_chance: float
    separable: Figure
    cosine: Figure
    cosine_chance: float

    def rounded(self) -> dict[str, Any]:
        """As it stands in a report."""
        return {
            name: value.rounded() if isinstance(value, Figure) else round(value, 6) for name, value in self._asdict().items()
        }


def measure(points: Tensor, z: Tensor, *, resamples: int = 1000, seed: int = 0) -> Gap:
    """The gap between points (N, E) and their pictures' z (N, E), rows of unit length. RequestError for fewer than four."""
    if len(z) < FEWEST:
        raise RequestError(f"{len(z)} pictures with captions of their own: a gap is measured on at least {FEWEST}")
    a, b = points.double().numpy(), z.double().numpy()
    rng = np.random.default_rng(seed)
    right = _told_apart(a, b, rng.permutation(len(a)))
    cosines = (a * b).sum(axis=1)
    total = float(a.sum(axis=0) @ b.sum(axis=0))
    return Gap(
        n=len(a),
        distance=_distance(a - b, resample_counts(len(a), resamples, rng)),
        distance_chance=_norms(rng.choice((-1.0, 1.0), (resamples, len(a))), a - b).mean().item(),
        separable=mean_figure(right, resamples=resamples, seed=seed),
        cosine=mean_figure(cosines, resamples=resamples, seed=seed),
        cosine_chance=(total - float(cosines.sum())) / (len(a) * (len(a) - 1)),
    )


def first_of_each(captions: Sequence[str]) -> list[int]:
    """The rows whose caption no row before has; none without a caption."""
    first: dict[str, int] = {}
    for row, caption in enumerate(captions):
        if caption:
            first.setdefault(caption, row)
    return [*first.values()]


def _distance(apart: np.ndarray, counts: np.ndarray) -> Figure:
    value = float(np.linalg.norm(apart.mean(axis=0)))
    resampled = _norms(counts, apart)
    low, high = np.percentile(resampled - resampled.mean(), INTERVAL)
    return Figure(value, max(0.0, float(value + low)), float(value + high))


def _norms(weights: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """(R,): the lengths of the means of differences (N, E), weighted (R, N)."""
    return np.linalg.norm(weights @ apart, axis=1) / len(apart)


def _told_apart(a: np.ndarray, b: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(N,): of each pair's two points the share that the plane of the other half's pairs finds on the right side."""
    right = np.empty(len(a))
    for held_out in (order[::2], order[1::2]):
        rest = np.setdiff1d(order, held_out)
        x = np.concatenate([a[rest], b[rest]])
        mean = x.mean(axis=0)
        scatter = (x - mean).T @ (x - mean)
        ridge = (RIDGE * np.trace(scatter) / len(scatter) or 1.0) * np.eye(len(scatter))  # 1: of points that are all one
        direction = np.linalg.solve(scatter + ridge, (a[rest] - b[rest]).sum(axis=0))
        sides = (a[held_out] - mean) @ direction, (mean - b[held_out]) @ direction
        right[held_out] = np.mean([(side > 0) + 0.5 * (side == 0) for side in sides], axis=0)
    return right
