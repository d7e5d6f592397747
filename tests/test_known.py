"""What an inpainting network is shown: what is known at any side, zeros elsewhere; and the holes that it learns on."""

import pytest
import torch

from unclip.data.holes import random_known
from unclip.models.known import Known, beside

SIDE = 32


def half(side: int = SIDE) -> Known:
    """Random pixels, of which all but a box is known."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(1, 1, side, side)
    mask[..., 9:21, 3:30] = 0
    return Known(2 * torch.rand(1, 3, side, side, generator=generator) - 1, mask)


def test_beside_the_noise_stand_the_known_pixels_and_the_mask():
    known, x_t = half(), torch.randn(1, 3, SIDE, SIDE)
    shown = beside(known, x_t)
    assert torch.equal(shown[:, :3], known.image * known.mask)
    assert torch.equal(shown[:, 3:], known.mask)
    assert not beside(None, x_t).any()
    assert beside(None, x_t).shape == shown.shape


def test_the_known_part_is_put_into_predictions_of_both_branches():
    known = half()
    x0 = torch.randn(2, 3, SIDE, SIDE)
    kept = known.keep(x0)
    for row in range(2):
        assert torch.equal(kept[row] * known.mask[0], known.image[0] * known.mask[0])
        assert torch.equal(kept[row] * (1 - known.mask[0]), x0[row] * (1 - known.mask[0]))


@pytest.mark.parametrize("side", [8, 20, 32, 64])
def test_nothing_shines_through_from_the_hole_at_any_side(side):
    known = half()
    other = Known(torch.where(known.mask.bool(), known.image, torch.full_like(known.image, 1.0)), known.mask)
    one, two = known.at(side), other.at(side)
    shown = [beside(part, torch.zeros(1, 3, side, side)) for part in (one, two)]
    assert torch.equal(*shown)
    assert one.mask.unique().tolist() == [0, 1]


def test_a_pixel_is_known_where_all_is_known_that_it_covers():
    known = half()
    small = known.at(8).mask[0, 0]  # of 4 x 4 pixels each: rows 9 to 20 touch 2 to 5, columns 3 to 29 touch 0 to 7
    expected = torch.ones(8, 8)
    expected[2:6, 0:8] = 0
    assert torch.equal(small, expected)
    assert known.at(SIDE) is known


def test_a_plain_picture_keeps_its_colours_when_it_is_made_smaller():
    image = torch.full((1, 3, SIDE, SIDE), 0.25)
    small = Known(image, half().mask).at(16)
    torch.testing.assert_close(small.image, 0.25 * small.mask.expand_as(small.image))


def test_holes_are_of_every_kind_and_never_all_or_nothing():
    masks = random_known(400, SIDE, torch.Generator().manual_seed(0))
    assert masks.shape == (400, 1, SIDE, SIDE)
    assert masks.unique().tolist() == [0, 1]
    share = masks.mean((1, 2, 3))
    assert 0.4 < share.mean() < 0.65
    assert share.min() > 0
    assert share.max() < 1
    corners = masks[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].sum(1)
    sides = (
        (masks[:, 0].amin(2) == masks[:, 0].amax(2)).all(1) | (masks[:, 0].amin(1) == masks[:, 0].amax(1)).all(1)
    ).float()
    assert (corners == 4).float().mean() > 0.25  # boxes and strokes in the middle
    assert (corners == 0).float().mean() > 0.1  # all around a box erased
    assert 0.15 < sides.mean() < 0.4  # one side known


def test_a_hole_does_not_depend_on_those_beside_it():
    every = random_known(16, SIDE, torch.Generator().manual_seed(3))
    assert torch.equal(random_known(16, SIDE, torch.Generator().manual_seed(3)), every)
    larger = random_known(16, 2 * SIDE, torch.Generator().manual_seed(3))
    assert (larger[..., ::2, ::2] == every).float().mean() > 0.95
