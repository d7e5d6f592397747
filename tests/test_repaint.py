"""RePaint where the answer is known: two correlated numbers, one of them given, and the exact denoiser of their Gaussian."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from unclip.diffusion.process import Prediction
from unclip.diffusion.samplers import _up_and_down, drive, repaint
from unclip.diffusion.schedule import cosine, respace
from unclip.rng import Rng

CORRELATION = 0.9
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]], dtype=torch.float64)
SCHEDULE = cosine()
SEEDS = range(400)


def predict(x: Tensor, t: int) -> Prediction:
    """E[x_0 | x_t] of data N(0, COVARIANCE), x (B, 1, 2)."""
    alpha_bar = float(SCHEDULE.alpha_bar[t])
    noisy = alpha_bar * COVARIANCE + (1 - alpha_bar) * torch.eye(2, dtype=torch.float64)
    gain = math.sqrt(alpha_bar) * COVARIANCE @ torch.linalg.inv(noisy)
    return Prediction((x.double() @ gain.T).float(), variance_v=torch.zeros_like(x))


def painted(resamplings: int, *, given: float = 1.5, variance="small") -> Tensor:
    """The second number, where the first is given: (B,)."""
    known = torch.tensor([[[given, 99.0]]]).expand(len(SEEDS), 1, 2)
    mask = torch.tensor([[[1.0, 0.0]]]).expand(len(SEEDS), 1, 2)
    noise = Rng(SEEDS).normal((1, 2))
    spaced = respace(SCHEDULE, 40)
    sampler = repaint(
        spaced, noise, known, mask, rng=Rng(SEEDS, streams=(1,)), variance=variance, resamplings=resamplings, jump=5
    )
    x = drive(sampler, predict)
    assert torch.equal(x[..., 0], known[..., 0])
    return x[:, 0, 1]


@pytest.mark.parametrize("variance", ["small", "learned"])
def test_what_is_painted_follows_from_what_is_known(variance):
    x = painted(8, variance=variance)
    assert x.mean().item() == pytest.approx(1.5 * CORRELATION, abs=0.1)
    assert x.std().item() == pytest.approx(math.sqrt(1 - CORRELATION**2), abs=0.1)


def test_going_up_and_down_is_what_makes_it_follow():
    """Once through, the painted part hears of the known one too late (section 4.2)."""
    target = 1.5 * CORRELATION
    assert abs(painted(1).mean().item() - target) > 2 * abs(painted(8).mean().item() - target)


def test_what_lies_under_the_hole_does_not_matter():
    mask = torch.tensor([[[1.0, 0.0]]])
    results = [
        drive(
            repaint(respace(SCHEDULE, 10), torch.ones(1, 1, 2), torch.tensor([[[0.3, hidden]]]), mask, rng=Rng([5])), predict
        )
        for hidden in (0.0, 50.0)
    ]
    assert torch.equal(*results)


def test_the_walk_is_the_papers():
    """Appendix B: down, and at every `jump` levels back up and down again, so often; and it ends at the picture."""
    assert _up_and_down(4, 2, 1) == [4, 3, 2, 1, 0]
    assert _up_and_down(4, 2, 2) == [4, 3, 2, 1, 2, 3, 2, 1, 0]
    assert _up_and_down(6, 2, 2) == [6, 5, 4, 3, 4, 5, 4, 3, 2, 1, 2, 3, 2, 1, 0]
    long = _up_and_down(250, 10, 10)
    assert max(long) == 250
    assert sum(after < before for before, after in pairwise(long)) == 250 + 24 * 9 * 10


def test_it_says_how_often_it_asks():
    asked: list[int] = []
    sampler = repaint(
        respace(SCHEDULE, 20), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1, 2), rng=Rng([0]), jump=4
    )

    def counted(x: Tensor, t: int) -> Prediction:
        asked.append(t)
        return predict(x, t)

    drive(sampler, counted)
    assert len(asked) == sampler.steps
