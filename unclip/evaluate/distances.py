"""How far apart two pictures are, to two pairs of eyes: N and M pictures of one size.

judge     1 - cosine of the judge's features: what is in them, and in what manner
pixels    the root mean square of the difference, as a share of a pixel's range: whether one is a copy of the other
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from unclip.evaluate.judge import Judge
from unclip.images import rgb

EYES = ("judge", "pixels")
BLOCK = 512  # pictures whose bytes are float64 at a time

Seen = dict[str, np.ndarray]
"""A row a picture for each of EYES."""


def look(pictures: Sequence[Image.Image], judge: Judge) -> Seen:
    """The judge's features (N, D), and bytes (N, P)."""
    return {"judge": judge.images(pictures), "pixels": np.stack([np.asarray(rgb(picture)).ravel() for picture in pictures])}


def distances(x: Seen, y: Seen) -> Seen:
    """From each of N pictures to each of M, (N, M)."""
    blocks = [_rms(x["pixels"], y["pixels"][start : start + BLOCK]) for start in range(0, len(y["pixels"]), BLOCK)]
    return {"judge": 1 - x["judge"] @ y["judge"].T, "pixels": np.concatenate(blocks, axis=1)}


def spread(table: np.ndarray) -> float:
    """The mean distance between two different ones of N pictures, from their table (N, N)."""
    return float(table[np.triu_indices(len(table), 1)].mean())


def _rms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = x.astype(np.float64), y.astype(np.float64)  # in which products of bytes and their sums are exact
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(squared / a.shape[1]) / 255
