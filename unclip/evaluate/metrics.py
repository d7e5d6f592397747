"""Figures of merit on an evaluator's features, and how sure they are. Plain numpy in float64, no network.

Letters: N pictures, M real renders, D features (rows of unit length), R resamples of the bootstrap.

- Fréchet distance between Gaussians fitted to both sets (FID, 1706.08500, on features of our own).
- MMD with a narrow RBF kernel. CMMD's sigma of 10 (2401.09603) is next to linear on unit vectors and sees the mean alone;
  here sigma is half of the median distance between real renders, so that lost variety shows.
- Precision and recall (1904.06991), density and coverage (2002.09797), by spheres around k nearest neighbours.

All of them are biased at small n, the Fréchet distance most: read it against that of real renders at the same n.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SPHERE = 3  # k of precision and recall, as in 1904.06991
COVER = 5  # k of density and coverage, as in 2002.09797
INTERVAL = (2.5, 97.5)  # percent


class Figure(NamedTuple):
    """An estimate and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        """As it stands in a report."""
        return {name: round(number, 6) for name, number in self._asdict().items()}


def credit(own: float, others: np.ndarray, k: int = 1) -> float:
    """The chance that `own` is among the k highest of itself and `others` when ties are broken by lot: 0, 1 or between."""
    above, level = int((others > own).sum()), 1 + int((others == own).sum())
    return float(np.clip((k - above) / level, 0.0, 1.0))


def mean_figure(values: Sequence[float] | np.ndarray, *, resamples: int, seed: int = 0) -> Figure:
    """The mean of independent values and its percentile bootstrap interval."""
    values = np.asarray(values, dtype=np.float64)
    means = resample_counts(len(values), resamples, np.random.default_rng(seed)) @ values / len(values)
    low, high = np.percentile(means, INTERVAL)
    return Figure(float(values.mean()), float(low), float(high))


def ratio_figure(over: np.ndarray, under: np.ndarray, *, resamples: int, seed: int = 0) -> Figure:
    """The ratio of the means of two values that each item has, and its percentile bootstrap interval over items."""
    counts = resample_counts(len(over), resamples, np.random.default_rng(seed))
    low, high = np.percentile((counts @ over) / (counts @ under), INTERVAL)
    return Figure(float(over.sum() / under.sum()), float(low), float(high))


def resample_counts(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n items is drawn, (R, n): draws of n with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """|mean gap|^2 + tr(Sx + Sy - 2 (Sx Sy)^1/2) of x (N, D) and y (M, D); covariances by N - 1 and M - 1.

    tr (Sx Sy)^1/2 is the sum of the roots of the eigenvalues of the symmetric F Sy F^T, for any F with F^T F = Sx.
    """
    x_centred, y_centred = x - x.mean(axis=0), y - y.mean(axis=0)
    factor = np.linalg.qr(x_centred, mode="r") / np.sqrt(len(x) - 1)
    mixed = y_centred @ factor.T
    eigenvalues = np.linalg.eigvalsh(mixed.T @ mixed / (len(y) - 1))
    gap = x.mean(axis=0) - y.mean(axis=0)
    variances = (x_centred**2).sum() / (len(x) - 1) + (y_centred**2).sum() / (len(y) - 1)
    return float(gap @ gap + variances - 2 * np.sqrt(eigenvalues.clip(min=0)).sum())


def narrow_sigma(real: np.ndarray) -> float:
    """The kernel's sigma: half of the median distance between two rows of real (M, D)."""
    return float(np.sqrt(np.median(_squared_distances(real, real)[np.triu_indices(len(real), 1)]))) / 2


def mmd(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    """Squared maximum mean discrepancy, kernel exp(-|a - b|^2 / 2 sigma^2); unbiased, so that it may fall below 0."""
    ones_x, ones_y = np.ones((1, len(x))), np.ones((1, len(y)))
    return float(_weighted_mmd(_kernels(x, y, sigma), ones_x, ones_y)[0])


def _kernels(x: np.ndarray, y: np.ndarray, sigma: float) -> tuple[np.ndarray, ...]:
    return tuple(np.exp(-_squared_distances(a, b) / (2 * sigma**2)) for a, b in ((x, x), (y, y), (x, y)))


def _weighted_mmd(kernels: tuple[np.ndarray, ...], counts_x: np.ndarray, counts_y: np.ndarray) -> np.ndarray:
    """The statistic of R resamples, given as counts (R, N) and (R, M). An item is never compared with its own copy."""
    within = [
        (((w @ k) * w).sum(1) - (w**2 @ np.diag(k))) / (w.sum(1) ** 2 - (w**2).sum(1))
        for k, w in ((kernels[0], counts_x), (kernels[1], counts_y))
    ]
    across = ((counts_x @ kernels[2]) * counts_y).sum(1) / (counts_x.sum(1) * counts_y.sum(1))
    return within[0] + within[1] - 2 * across


def neighbourhood(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """What each item adds to precision and density (N,), to recall and coverage (M,); x pictures (N, D), y real (M, D).

    A picture is precise when it lies in the sphere of some real render, a render is recalled when it lies in that of some
    picture; density counts the spheres a picture lies in, over k; a render is covered when a picture lies in its sphere.
    """
    across = _squared_distances(x, y)
    within_x, within_y = (np.sort(_squared_distances(a, a), axis=1) for a in (x, y))  # column 0 is the item itself
    sphere_x, sphere_y, cover_y = within_x[:, SPHERE], within_y[:, SPHERE], within_y[:, COVER]
    return {
        "precision": np.asarray((across <= sphere_y).any(axis=1), dtype=np.float64),
        "recall": np.asarray((across <= sphere_x[:, None]).any(axis=0), dtype=np.float64),
        "density": np.asarray((across <= cover_y).sum(axis=1) / COVER),
        "coverage": np.asarray(across.min(axis=0) <= cover_y, dtype=np.float64),
    }


def distribution_figures(pictures: np.ndarray, real: np.ndarray, *, resamples: int, seed: int = 0) -> dict[str, Figure]:
    """How far the pictures of N prompts lie from the real renders of *other* prompts; row i of both is prompt i's.

    The prompts are cut in two halves, pictures of one half are compared with renders of the other, both ways, and the two
    answers are averaged. So `distribution_figures(real, real)` is what a perfect painter gets at the same n = N / 2, not 0.
    Needs N > 2 * (COVER + 1).
    """
    halves = [slice(0, None, 2), slice(1, None, 2)]
    folds = [(pictures[a], real[b]) for a, b in (halves, halves[::-1])]
    rng = np.random.default_rng(seed)
    counts = [resample_counts(len(real[half]), resamples, rng) for half in halves]
    ways = (counts, counts[::-1])
    sigma = narrow_sigma(real)

    kernels = [_kernels(x, y, sigma) for x, y in folds]
    resampled_mmd = np.mean([_weighted_mmd(k, *way) for k, way in zip(kernels, ways, strict=True)], axis=0)
    resampled_frechet = np.mean([_resampled_frechet(*fold, *way) for fold, way in zip(folds, ways, strict=True)], axis=0)
    figures = {
        "frechet": _around(np.mean([frechet_distance(x, y) for x, y in folds]), resampled_frechet),
        "mmd": _around(np.mean([mmd(x, y, sigma) for x, y in folds]), resampled_mmd),
    }
    items = [neighbourhood(x, y) for x, y in folds]
    for name in items[0]:
        figures[name] = mean_figure(np.concatenate([fold[name] for fold in items]), resamples=resamples, seed=seed)
    return figures


def _resampled_frechet(x: np.ndarray, y: np.ndarray, counts_x: np.ndarray, counts_y: np.ndarray) -> np.ndarray:
    pairs = zip(counts_x, counts_y, strict=True)
    return np.array([frechet_distance(np.repeat(x, a, axis=0), np.repeat(y, b, axis=0)) for a, b in pairs])


def _around(value: np.floating, resampled: np.ndarray) -> Figure:
    """The estimate with the resamples' spread about their own mean.

    Drawing with replacement repeats points and so pushes a distance between sets upwards: the percentiles themselves would
    lie above the estimate.
    """
    low, high = np.percentile(resampled - resampled.mean(), INTERVAL)
    return Figure(float(value), float(value + low), float(value + high))


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    distances = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return distances.clip(min=0)
