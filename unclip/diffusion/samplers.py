"""From noise to data, as generators that ask for predictions.

A sampler yields (x, t), x being the noisy batch and t the training timestep to tell the network, is sent a `Prediction`, and
returns x_0 in the end. It knows neither network nor guidance: whoever drives it answers, one sampler at a time with `drive`,
or many users' samplers in one batch by hand:

    sampler = ddim(respace(schedule, 50), x_T, rng=rng)
    x, t = next(sampler)
    x, t = sampler.send(predict(x, t))  # and again, `sampler.steps` times, until StopIteration brings x_0

Every sampler takes a (respaced) schedule, which says how many steps it makes and where; all of them end with the jump to
alpha_bar = 1, whose result is the last predicted x_0. The state is fp32; noise comes from one generator per image.
"""

import math
from collections.abc import Callable, Generator
from functools import wraps
from itertools import pairwise
from typing import Concatenate, Literal, NamedTuple, ParamSpec

import torch
from torch import Tensor

from unclip.diffusion.process import Prediction, learned_log_variance, posterior_mean, q_sample
from unclip.diffusion.schedule import Schedule
from unclip.rng import Rng

Asking = Generator[tuple[Tensor, int], Prediction, Tensor]
Predict = Callable[[Tensor, int], Prediction]
Options = ParamSpec("Options")


class Sampler(Asking):
    """A generator that asks for predictions and knows how many: `steps`."""

    def __init__(self, steps: int, asking: Asking):
        self.steps = steps
        self._asking = asking

    def send(self, value: Prediction | None, /) -> tuple[Tensor, int]:
        return self._asking.send(value)  # pyright: ignore[reportArgumentType]  # None starts a generator

    def throw(self, *exception) -> tuple[Tensor, int]:
        return self._asking.throw(*exception)


class Step(NamedTuple):
    """What a driver tells of a step: the state x before it, the x0 predicted from it; index 0 .. total - 1."""

    index: int
    total: int
    x: Tensor
    x0: Tensor


def drive(sampler: Sampler, predict: Predict, *, on_step: Callable[[Step], None] | None = None) -> Tensor:
    """Answers a sampler with `predict(x, t)` until it returns. `on_step` sees every step; to cancel, it raises."""
    answer, index = None, 0
    while True:
        try:
            x, t = sampler.send(answer)
        except StopIteration as end:
            return end.value
        answer = predict(x, t)
        if on_step:
            on_step(Step(index, sampler.steps, x, answer.x0))
        index += 1


def _one_question_a_step(
    ask: Callable[Concatenate[Schedule, Options], Asking],
) -> Callable[Concatenate[Schedule, Options], Sampler]:
    """Makes a generator function over the schedule's positions a function that returns a Sampler."""

    @wraps(ask)
    def sampler(schedule: Schedule, /, *args: Options.args, **kwargs: Options.kwargs) -> Sampler:
        return Sampler(len(schedule), ask(schedule, *args, **kwargs))

    return sampler


@_one_question_a_step
def ddpm(schedule: Schedule, x: Tensor, *, rng: Rng, variance: Literal["small", "large", "learned"] = "small") -> Asking:
    """Ancestral sampling (2006.11239 algorithm 2).

    Variance of a step: beta_tilde (small), beta (large), or what the network says between the two (learned, 2102.09672).
    """
    x = x.float()
    for i in reversed(range(len(schedule))):
        answer = yield x, int(schedule.timesteps[i])
        mean = posterior_mean(schedule, answer.x0, x, i)
        x = mean + _std(schedule, variance, answer, i) * rng.normal(x.shape[1:]) if i > 0 else mean
    return x


def _std(schedule: Schedule, variance: str, answer: Prediction, i: int) -> Tensor | float:
    if variance == "small":
        return math.sqrt(schedule.posterior_variance[i])
    if variance == "large":
        return math.sqrt(schedule.betas[i])
    assert answer.variance_v is not None, "variance='learned' needs a network that predicts it"
    return (0.5 * learned_log_variance(schedule, answer.variance_v.float(), i)).exp()


@_one_question_a_step
def ddim(schedule: Schedule, x: Tensor, *, rng: Rng, eta: float = 0.0) -> Asking:
    """DDIM (2010.02502 eq. 12 and 16). eta = 0 is deterministic and draws nothing, eta = 1 is as noisy as `ddpm`."""
    x = x.float()
    for i in reversed(range(len(schedule))):
        answer = yield x, int(schedule.timesteps[i])
        eps = (x - float(schedule.signal[i]) * answer.x0) / float(schedule.noise[i])
        sigma = eta * math.sqrt(schedule.posterior_variance[i])
        remaining = 1 - float(schedule.alpha_bar_prev[i]) - sigma**2
        x = math.sqrt(schedule.alpha_bar_prev[i]) * answer.x0 + math.sqrt(max(remaining, 0.0)) * eps
        if sigma > 0:
            x = x + sigma * rng.normal(x.shape[1:])
    return x


def ddim_inversion(schedule: Schedule, x0: Tensor, *, refinements: int = 0) -> Sampler:
    """The x_T from which deterministic DDIM on the same schedule comes back to x0 (2105.05233 appendix F).

    Each DDIM step is run backwards with the eps found at its clean end (Euler). x0 stands for x at the first position, so
    the schedule should begin at timestep 0 (spacing "even50"); and the jump on to alpha_bar = 0 is left out, which would
    only add artefacts: N positions make N - 1 steps.

    Not in the paper: each refinement asks again at the noisy end just reached and repeats the step with that eps, a
    fixed-point iteration towards the exact inverse. On an exact denoiser one refinement of 50 steps reconstructs better than
    250 plain steps, at less than half the price. Answers must be neither guided nor thresholded, or the way back differs.
    """
    return Sampler((len(schedule) - 1) * (1 + refinements), _ddim_inversion(schedule, x0.float(), refinements))


def _ddim_inversion(schedule: Schedule, x: Tensor, refinements: int) -> Asking:
    for clean in range(len(schedule) - 1):
        noisy, start = clean + 1, x
        scale = float(schedule.signal[noisy] / schedule.signal[clean])
        added = float(schedule.noise[noisy]) - scale * float(schedule.noise[clean])
        for told in [clean] + [noisy] * refinements:
            answer = yield x, int(schedule.timesteps[told])
            eps = (x - float(schedule.signal[told]) * answer.x0) / float(schedule.noise[told])
            x = scale * start + added * eps
    return x


@_one_question_a_step
def dpm_solver_pp_2m(schedule: Schedule, x: Tensor) -> Asking:
    """DPM-Solver++(2M), deterministic, second order in log-SNR, on predicted x0 (2211.01095 algorithm 2).

    The first step and the last, to alpha_bar = 1, are of first order. Timesteps uniform in t (`trailing`) suit the cosine
    schedule better than uniform in log-SNR, which spends half of the steps where hardly anything is left to decide.
    """
    x = x.float()
    half_log_snr = 0.5 * schedule.snr.log()
    before: Tensor | None = None
    for i in reversed(range(1, len(schedule))):
        answer = yield x, int(schedule.timesteps[i])
        h = float(half_log_snr[i - 1] - half_log_snr[i])
        x0 = answer.x0
        if before is not None:
            h_before = float(half_log_snr[i] - half_log_snr[i + 1])
            x0 = x0 + h / (2 * h_before) * (x0 - before)
        x = float(schedule.noise[i - 1] / schedule.noise[i]) * x - float(schedule.signal[i - 1]) * math.expm1(-h) * x0
        before = answer.x0
    answer = yield x, int(schedule.timesteps[0])
    return answer.x0


def repaint(
    schedule: Schedule,
    x: Tensor,
    known: Tensor,
    mask: Tensor,
    *,
    rng: Rng,
    variance: Literal["small", "large", "learned"] = "small",
    resamplings: int = 10,
    jump: int = 10,
) -> Sampler:
    """RePaint (2201.09865 algorithm 1 and appendix B): ancestral sampling that keeps x_0 = `known` where `mask` is 1.

    After each step the known part is the picture's own, noised afresh. What is painted has then not heard of it, so the
    process goes `jump` steps back up and down again, `resamplings` times in all, before it goes on: the two come to agree.
    `known` is (B, C, ...), `mask` (B, 1, ...); the paper takes 250 steps and 10 for both. It asks about `resamplings` times
    as often as the schedule has steps.
    """
    walk = _up_and_down(len(schedule), jump, resamplings)
    asked = sum(after < before for before, after in pairwise(walk))
    return Sampler(asked, _repaint(schedule, x.float(), known, mask, walk, rng, variance))


def _up_and_down(top: int, jump: int, resamplings: int) -> list[int]:
    """The levels of noise that are visited: `top` is the schedule's noisiest position, 1 its cleanest, 0 the picture."""
    again = dict.fromkeys(range(1, top - jump + 1, jump), resamplings - 1)
    walk = [top]
    while walk[-1] > 0:
        level = walk[-1] - 1
        walk.append(level)
        if again.get(level, 0) > 0:
            again[level] -= 1
            walk += range(level + 1, level + jump + 1)
    return walk


def _repaint(schedule: Schedule, x: Tensor, known: Tensor, mask: Tensor, walk: list[int], rng: Rng, variance: str) -> Asking:
    for level, after in pairwise(walk):
        if after > level:
            beta = float(schedule.betas[level])
            x = math.sqrt(1 - beta) * x + math.sqrt(beta) * rng.normal(x.shape[1:])
            continue
        i = level - 1
        answer = yield x, int(schedule.timesteps[i])
        x, kept = posterior_mean(schedule, answer.x0, x, i), known
        if i > 0:
            x = x + _std(schedule, variance, answer, i) * rng.normal(x.shape[1:])
            kept = float(schedule.signal[i - 1]) * known + float(schedule.noise[i - 1]) * rng.normal(x.shape[1:])
        x = torch.lerp(x, kept, mask)
    return x


@_one_question_a_step
def analytic_dpm(
    schedule: Schedule, x: Tensor, *, rng: Rng, x0_error: Tensor, x0_variance: float = 1.0, final_noise: float = math.inf
) -> Asking:
    """Analytic-DPM: ancestral sampling with the optimal variance (2201.06503 theorem 1), what unCLIP's prior uses.

    The reverse step knows x_{t-1} up to beta_tilde and up to what x_t leaves open about x_0:

        variance = beta_tilde_t + posterior_x0_t^2 E Var[x_0 | x_t]

    The paper estimates the last factor as (1 - alpha_bar) / alpha_bar (1 - Gamma), Gamma = E ||eps||^2 / d, which at the
    noisy end of the cosine schedule is 4e8 times a difference of two almost equal numbers. Here it is `x0_error`, fp64 (T,)
    over the training timesteps, the network's mean squared error in x_0 (see `measure_x0_error`): the same for a perfect
    network, and well conditioned.

    x0_variance: the data's variance per dimension, which E Var[x_0 | x_t] cannot exceed (the paper bounds it by the data's
    range).
    final_noise: largest expected |noise| of the last noisy step; the paper takes 2/255 or 4/255 for pixels.
    """
    x = x.float()
    variance = analytic_variance(schedule, x0_error, x0_variance)
    for i in reversed(range(len(schedule))):
        answer = yield x, int(schedule.timesteps[i])
        mean = posterior_mean(schedule, answer.x0, x, i)
        std = math.sqrt(variance[i])
        if i == 1:
            std = min(std, final_noise * math.sqrt(math.pi / 2))  # E |std * normal| = std * sqrt(2 / pi)
        x = mean + std * rng.normal(x.shape[1:]) if i > 0 else mean
    return x


def analytic_variance(schedule: Schedule, x0_error: Tensor, x0_variance: float = 1.0) -> Tensor:
    """The optimal variance of each step of a (respaced) schedule, fp64 (len(schedule),); see `analytic_dpm`."""
    unknown = x0_error.double()[schedule.timesteps].clamp(min=0.0, max=x0_variance)
    return schedule.posterior_variance + schedule.posterior_x0.square() * unknown


def measure_x0_error(schedule: Schedule, predict: Predict, x0: Tensor, *, rng: Rng, knots: int = 50) -> Tensor:
    """The mean squared error of predicted x_0 per dimension at `knots` timesteps, evenly spread, fp64 (knots,).

    Asks `predict` about x0 (B, ...), noised. `schedule` is the training schedule; average over batches if B is small.
    """
    errors = []
    for t in _knots(schedule, knots).tolist():
        x_t = q_sample(schedule, x0, t, rng.normal(x0.shape[1:]))
        errors.append((predict(x_t, t).x0 - x0).double().square().mean().cpu())
    return torch.stack(errors)


def spread_x0_error(schedule: Schedule, errors: Tensor) -> Tensor:
    """What `analytic_dpm` needs: the errors that were measured at knots, at each timestep, fp64 (T,).

    Interpolates over log-SNR, along which the error is smooth.
    """
    place = -schedule.snr.log()
    return _interpolate(place, place[_knots(schedule, len(errors))], errors.double().to(place.device))


def _knots(schedule: Schedule, count: int) -> Tensor:
    return torch.linspace(0, len(schedule) - 1, count, dtype=torch.float64).round().long()


def _interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Piecewise linear through the points (x, y), x ascending, constant outside."""
    if len(x) == 1:
        return y.expand_as(at)
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    share = ((at - x[right - 1]) / (x[right] - x[right - 1])).clamp(0, 1)
    return torch.lerp(y[right - 1], y[right], share)
