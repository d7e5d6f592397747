"""The rate, what decays, the average: against their formulas."""

import math

import pytest
import torch
from torch import nn

from unclip.errors import ConfigError
from unclip.train.config import TrainConfig
from unclip.train.ema import Ema
from unclip.train.guard import GuardedUpdate
from unclip.train.optimizer import Schedule, decayed_names, make_optimizer


@pytest.mark.parametrize(
    ("decay", "halfway", "last"),
    [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0), ("wsd", 1.0, 0.1)],
)
def test_schedules_at_their_landmarks(decay, halfway, last):
    rate = Schedule(steps=110, peak=2.0, warmup=10, decay=decay, final=0.1, cooldown=0.2)
    assert [rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert rate(60) == pytest.approx(2 * halfway)
    assert rate(110) == rate(500) == pytest.approx(2 * last)


def test_schedules_by_their_formulas():
    cosine = Schedule(steps=200, peak=1.0, warmup=0, decay="cosine", final=0.2)
    wsd = Schedule(steps=200, peak=1.0, warmup=0, decay="wsd", final=0.0, cooldown=0.25)
    for step in range(200):
        assert cosine(step) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * step / 200)) / 2)
        assert wsd(step) == pytest.approx(min(1.0, (200 - step) / 50))


def test_weight_decay_touches_matrices_and_kernels_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.ones(5, 4))
            self.table = nn.Embedding(3, 4)
            self.linear = nn.Linear(4, 4)
            self.conv = nn.Conv2d(4, 4, 3)
            self.norm = nn.LayerNorm(4)
            self.frozen = nn.Linear(4, 4).requires_grad_(False)

    net = Net()
    assert decayed_names(net) == {"linear.weight", "conv.weight"}
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    optimizer = make_optimizer(net, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.5)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        shrunk = 1 - 0.1 * 0.5 if name in ("linear.weight", "conv.weight") else 1
        torch.testing.assert_close(parameter.detach(), before[name] * shrunk)


def test_the_average_by_its_formula():
    line = nn.Linear(1, 1, bias=False)
    ema = Ema(line, decay=0.5)
    values, expected = [3.0, -1.0, 4.0, 2.0, 7.0, 1.0, 8.0, 2.0, 8.0, 1.0], line.weight.item()
    for n, value in enumerate(values):
        line.weight.data.fill_(value)
        ema.update(n)
        rate = min(0.5, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * value
        assert float(ema.average[0]) == pytest.approx(expected, rel=1e-6)
    assert ema.rate(7) < 0.5 == ema.rate(8)


def test_the_power_form_weighs_step_n_by_a_power_of_n():
    line = nn.Linear(1, 1, bias=False)
    ema = Ema(line, decay=0.0, power=3.0)
    for n in range(400):
        line.weight.data.fill_(float(n))
        ema.update(n)
    # The profile is t^gamma: the mean of t under it on [0, T] is T (gamma + 1) / (gamma + 2).
    assert float(ema.average[0]) == pytest.approx(400 * 4 / 5, rel=5e-3)


def test_swapping_gives_the_average_and_gives_the_weights_back():
    line = nn.Linear(2, 2)
    ema = Ema(line, decay=0.9)
    raw, held = line.weight.detach().clone(), line.weight.data_ptr()
    ema.average[0].fill_(5.0)
    with ema.swapped():
        assert line.weight.eq(5).all()
    assert torch.equal(line.weight, raw)
    assert line.weight.data_ptr() == held
    assert ema.average[0].eq(5).all()


def test_the_gap_is_the_distance_as_a_share():
    line = nn.Linear(1, 2, bias=False)
    line.weight.data = torch.tensor([[3.0], [4.0]])
    ema = Ema(line, decay=0.9)
    assert ema.gap() == 0
    ema.average[0] += torch.tensor([[0.0], [1.0]])
    assert ema.gap() == pytest.approx(0.2)


def guarded(clip: float) -> tuple[nn.Linear, torch.optim.AdamW, GuardedUpdate]:
    torch.manual_seed(0)
    line = nn.Linear(3, 2)
    optimizer = make_optimizer(line, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01)
    return line, optimizer, GuardedUpdate(line, optimizer, clip=clip, device=torch.device("cpu"))


@pytest.mark.parametrize("size", [0.1, 10.0])
def test_clipping_is_torchs(size):
    ours, _, update = guarded(clip=1.0)
    theirs, optimizer, _ = guarded(clip=1.0)
    for step in range(3):
        for net in (ours, theirs):
            for parameter in net.parameters():
                parameter.grad = torch.full_like(parameter, size * (step + 1))
        verdict = update(step, torch.tensor(1.0), 0.1)
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        assert float(verdict.norm) == pytest.approx(float(norm))
        assert not verdict.is_bad()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_bad_step_and_all_after_it_change_nothing(what):
    """As on a GPU, where the host hears of a bad step when the next one is under way already."""
    line, optimizer, update = guarded(clip=1.0)

    def run(step: int, *, bad: bool):
        for parameter in line.parameters():
            parameter.grad = torch.ones_like(parameter)
        if bad and what == "gradient":
            line.bias.grad[1] = math.inf
        return update(step, torch.tensor(math.nan if bad and what == "loss" else 1.0), 0.1)

    run(0, bad=False)
    before = [
        line.weight.clone(),
        line.bias.clone(),
        *(value.clone() for s in optimizer.state.values() for value in s.values()),
    ]
    verdict, later = run(1, bad=True), run(2, bad=False)
    after = [line.weight, line.bias, *(value for s in optimizer.state.values() for value in s.values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert verdict.is_bad()
    assert later.is_bad()
    found = verdict.explain()
    assert found["first"] == ("the loss" if what == "loss" else "the gradient of bias")
    assert found["gradients"] == ([] if what == "loss" else ["bias"])


def test_a_batch_that_cannot_be_split_is_one_line():
    with pytest.raises(ConfigError, match="batch = 6 must be a multiple of accumulate = 4"):
        TrainConfig.parse({"steps": 1, "batch": 6, "accumulate": 4})
