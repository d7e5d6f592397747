"""One generator per image: the noise of a picture hangs on its seed and stream, and on nothing else."""

import pytest
import torch

from unclip.rng import Rng


def test_an_images_noise_does_not_see_its_batch():
    together = Rng([5, 6, 7]).normal((3, 4, 4))
    assert together.shape == (3, 3, 4, 4)
    assert together.dtype == torch.float32
    assert torch.equal(together[1:2], Rng([6]).normal((3, 4, 4)))
    assert torch.equal(together[[2, 0]], Rng([7, 5]).normal((3, 4, 4)))


def test_draws_go_on_and_do_not_repeat():
    rng = Rng([1])
    first, second = rng.normal((8,)), rng.normal((8,))
    assert not torch.equal(first, second)
    again = Rng([1])
    assert torch.equal(torch.cat([first, second]), torch.cat([again.normal((8,)), again.normal((8,))]))


def test_several_streams_are_those_streams_one_after_the_other():
    both, apart = Rng([3, 4]).fork(2, 5), [Rng([3, 4]).fork(stream) for stream in (2, 5)]
    assert len(both) == 4
    for _ in range(2):
        assert torch.equal(both.normal((8,)), torch.cat([rng.normal((8,)) for rng in apart]))


def test_a_fork_does_not_see_what_was_drawn_before_it():
    used = Rng([3, 4])
    used.normal((100,))
    assert torch.equal(used.fork(2).normal((5,)), Rng([3, 4]).fork(2).normal((5,)))


def test_neighbouring_seeds_and_streams_are_unrelated():
    rows = torch.cat([Rng(range(4)).fork(stream).normal((4000,)) for stream in range(4)])
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 0.08  # 5 sigma of 1 / sqrt(4000)


def test_the_noise_is_standard_normal():
    x = Rng([11]).normal((200_000,))
    assert x.mean().abs() < 0.01
    assert (x.var() - 1).abs() < 0.02


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1, -1])
def test_any_64_bit_seed_is_taken(seed):
    assert Rng([seed]).normal((2,)).isfinite().all()


def test_golden_numbers():
    """Published seeds must go on giving their pictures: these are the first draws of version 0.1.0."""
    assert Rng([0, 7]).normal((3,)).tolist() == GOLDEN_STREAM_0
    assert Rng([7]).fork(3).normal((3,)).tolist() == GOLDEN_STREAM_3


GOLDEN_STREAM_0 = [
    [1.4312541484832764, 1.8526614904403687, 0.7911447882652283],
    [1.1741153001785278, 1.0084524154663086, 0.09845427423715591],
]
GOLDEN_STREAM_3 = [[0.1258438527584076, -0.452492356300354, -0.5407237410545349]]
