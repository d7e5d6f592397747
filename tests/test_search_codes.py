"""Rows as bytes: what they lose, and that they say so."""

import pytest
import torch

from unclip import int8
from unclip.clip import unit
from unclip.search import codes

pytestmark = pytest.mark.skipif(not int8.available(), reason="this processor does not multiply bytes")


def directions(seed: int, count: int, width: int) -> torch.Tensor:
    return unit(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("width", [3, 64, 1280])
def test_cosines_are_off_by_less_than_they_say(width):
    rows, q = directions(1, 500, width), directions(2, 5, width)
    rows[7], rows[8] = 0, torch.eye(width)[0]
    held = codes.Codes(rows.split(70), 500)
    off = (held.cosines(q) - (q.double() @ rows.double().T)).abs().amax(dim=1)
    assert (off <= held.error + codes.lost(q) + 1e-6).all()
    assert off.max() < held.error < 0.03
    assert (codes.lost(q) < 1e-3).all()
    assert not held.cosines(q)[:, 7].any()


def test_a_code_that_fits_loses_nothing():
    rows = torch.randint(-int8.MOST, int8.MOST + 1, (40, 32), generator=torch.Generator().manual_seed(3)).float()
    rows[:, 0] = int8.MOST
    held = codes.Codes([rows / 256], 40)
    assert held.error < 1e-6
    assert torch.allclose(held.cosines(rows[:3] / 256), rows[:3] @ rows.T / 65536, rtol=1e-5)
