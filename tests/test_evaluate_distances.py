"""Distances between pictures, against plain loops and at their ends."""

import numpy as np
import pytest
from PIL import Image

from unclip.evaluate import distances as module
from unclip.evaluate.distances import distances, look, spread


class Corners:
    """A judge whose features are four pixels of a picture."""

    name, fingerprint, size = "corners", "", 8

    def images(self, pictures):
        rows = np.stack([np.asarray(picture, float)[::7, ::7, 0].ravel() + 1 for picture in pictures])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def texts(self, captions):
        return np.ones((len(captions), 4)) / 2


def noise(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]


def test_distances_are_those_of_plain_loops(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2)
    one, other = noise(3, 0), noise(5, 1)
    judge = Corners()
    found = distances(look(one, judge), look(other, judge))
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            gap = np.asarray(a, float) - np.asarray(b, float)
            cosine = float(judge.images([a])[0] @ judge.images([b])[0])
            assert found["pixels"][i, j] == pytest.approx(np.sqrt((gap**2).mean()) / 255)
            assert found["judge"][i, j] == pytest.approx(1 - cosine)


def test_a_copy_is_at_no_distance_and_black_is_at_one_from_white():
    seen = look([*noise(1, 2) * 2, Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")], Corners())
    found = distances(seen, seen)
    assert found["pixels"].diagonal().tolist() == [0, 0, 0, 0]
    assert (found["pixels"][0, 1], found["pixels"][2, 3]) == (0, 1)
    assert found["judge"][0, 1] == pytest.approx(0, abs=1e-12)


def test_spread_is_the_mean_over_pairs_of_different_ones():
    assert spread(np.array([[9.0, 1, 2], [1, 9, 6], [2, 6, 9]])) == 3
