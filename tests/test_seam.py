"""The membrane that takes the seam away around what was painted."""

import numpy as np
import pytest

from unclip.seam import DOUBTFUL, SURE, without_seam

HOLE = np.zeros((48, 64), bool)
HOLE[8:40, 20:] = True  # up to the picture's edge on the right


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((*HOLE.shape, 3), colour, np.uint8)


def test_a_ground_a_little_off_becomes_the_one_around():
    made = without_seam(plain((249, 251, 250)), plain((255, 255, 255)), HOLE)
    assert (made[HOLE] == 255).all()


def test_each_side_is_brought_to_its_own_and_between_them_it_goes_smoothly():
    known = plain((100, 100, 100))
    known[:, :20] = 106
    made = without_seam(plain((100, 100, 100)), known, HOLE)[HOLE].reshape(32, 44, 3).astype(int)
    assert (made[1:-1, 0] == 106).all()
    assert abs(made[0, 1:] - 100).max() == abs(made[-1, 1:] - 100).max() == 0
    assert abs(np.diff(made[16, :, 0])).max() <= 3
    assert made[16, -1, 0] < made[16, 0, 0]


def test_an_edge_that_was_painted_stays():
    painted = plain((100, 100, 100))
    painted[16:32, 20:30] = (100 + DOUBTFUL, 10, 30)
    made = without_seam(painted, plain((100, 100, 100)), HOLE)
    assert (made[HOLE] == painted[HOLE]).all()


def test_an_object_at_the_border_moves_with_the_ground_around_it():
    painted = plain((96, 96, 96))
    painted[16:32, 20:30] = (200, 20, 20)
    made = without_seam(painted, plain((100, 100, 100)), HOLE)
    assert abs(made[16:32, 20:30].astype(int) - (204, 24, 24)).max() <= 1


@pytest.mark.parametrize(("off", "left"), [(SURE, 0), ((SURE + DOUBTFUL) // 2, None), (DOUBTFUL, DOUBTFUL)])
def test_the_larger_the_step_the_less_it_counts(off, left):
    made = without_seam(plain((50, 50, 50)), plain((50 + off, 50 + off, 50 + off)), HOLE)[HOLE].astype(int)
    steps = 50 + off - made
    assert (steps == left).all() if left is not None else (steps >= 0).all() and (steps < off).all()


def test_what_is_right_is_not_touched():
    painted = np.random.default_rng(0).integers(0, 256, (*HOLE.shape, 3), dtype=np.uint8)
    known = plain((0, 0, 0))
    known[~HOLE] = 128
    assert (without_seam(plain((128, 128, 128)), known, HOLE)[HOLE] == 128).all()
    one = np.zeros((1, 2), bool)
    one[0, 1] = True
    assert without_seam(painted[:1, :2], painted[:1, :2], one).shape == (1, 2, 3)
