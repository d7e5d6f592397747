"""Adding noise, what a network predicts about it, and the losses it is trained with.

    q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)                                   2006.11239 eq. 4
    v            = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0                               2202.00512 appendix D
    log variance = f log beta_t + (1 - f) log beta_tilde_t,  f = (v + 1) / 2                       2102.09672 eq. 15
    L            = L_simple + 0.001 L_vlb, the mean in L_vlb detached                              2102.09672 eq. 16

A network predicts eps, x0 or v; with learned variance it gives twice the channels, the second half being `variance_v`, the
place between the two variances as a number around [-1, 1]. It stays that number until a sampler needs it, because the range
has to be that of the sampler's respaced betas.

Everything takes x as (B, C, H, W) or (B, E). `t` is a position in the schedule: int64 (B,) on x's device, or an int for the
whole batch. Results are fp32 whatever the precision of the network's output.
"""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.special import log_ndtr

from unclip.config import Config
from unclip.diffusion import schedule as schedules
from unclip.diffusion.schedule import Schedule

PredictionType = Literal["eps", "x0", "v"]


class DiffusionConfig(Config):
    """How a network is diffused: the noise schedule, what the network predicts, how its loss is weighted."""

    schedule: schedules.Name = "cosine"
    timesteps: int = Field(default=1000, ge=1)
    prediction: PredictionType = "eps"
    learn_sigma: bool = False
    """The network has twice the channels and the loss gains the variational term."""
    weighting: Literal["simple", "min_snr"] = "simple"
    min_snr_gamma: float = Field(default=5.0, gt=0)

    def noise_schedule(self) -> Schedule:
        return schedules.make(self.schedule, self.timesteps)


class Prediction(NamedTuple):
    """A network's answer about x_t, as samplers want it."""

    x0: Tensor
    """The clean x it sees, fp32, the shape of x_t."""
    variance_v: Tensor | None = None
    """Place of the log variance between beta_tilde (-1) and beta (+1), the shape of x_t; None when it is not learned."""


def draw_timesteps(schedule: Schedule, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """t (count,) int64 for a batch: each uniform, all together evenly spread over the schedule from one random offset.

    A batch then has no surplus of hard or of easy timesteps, and its mean loss varies less (2107.00630, appendix I.1).
    """
    offset = torch.rand((), generator=generator, device=device)
    place = (offset + torch.arange(count, device=device) / count) % 1
    return (place * len(schedule)).long().clamp(max=len(schedule) - 1)


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
    """x_t from x_0 and standard normal noise (2006.11239 eq. 4)."""
    return schedule.at("signal", t, x0) * x0.float() + schedule.at("noise", t, x0) * noise.float()


def target(schedule: Schedule, prediction: PredictionType, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
    """What a network of that prediction type should answer."""
    if prediction == "x0":
        return x0.float()
    if prediction == "eps":
        return noise.float()
    return schedule.at("signal", t, x0) * noise.float() - schedule.at("noise", t, x0) * x0.float()


def to_x0(schedule: Schedule, prediction: PredictionType, output: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
    """The x_0 that a network's output implies; not clipped."""
    output, x_t = output.float(), x_t.float()
    if prediction == "x0":
        return output
    signal, noise = schedule.at("signal", t, x_t), schedule.at("noise", t, x_t)
    if prediction == "eps":
        return (x_t - noise * output) / signal
    return signal * x_t - noise * output


def to_eps(schedule: Schedule, prediction: PredictionType, output: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
    """The noise that a network's output implies."""
    output, x_t = output.float(), x_t.float()
    if prediction == "eps":
        return output
    signal, noise = schedule.at("signal", t, x_t), schedule.at("noise", t, x_t)
    if prediction == "x0":
        return (x_t - signal * output) / noise
    return signal * output + noise * x_t


def interpret(config: DiffusionConfig, schedule: Schedule, output: Tensor, x_t: Tensor, t: Tensor | int) -> Prediction:
    """A network's raw output (B, C or 2C, ...) as a Prediction; `schedule` is the one it was trained with."""
    mean, variance_v = split(config, output)
    return Prediction(to_x0(schedule, config.prediction, mean, x_t, t), variance_v)


def split(config: DiffusionConfig, output: Tensor) -> tuple[Tensor, Tensor | None]:
    """The output's mean channels and, when the variance is learned, its variance channels; both fp32."""
    if not config.learn_sigma:
        return output.float(), None
    mean, variance_v = output.float().chunk(2, dim=1)
    return mean, variance_v


def posterior_mean(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor | int) -> Tensor:
    """Mean of q(x_{t-1} | x_t, x_0), 2006.11239 eq. 7."""
    return schedule.at("posterior_x0", t, x_t) * x0 + schedule.at("posterior_xt", t, x_t) * x_t


def learned_log_variance(schedule: Schedule, variance_v: Tensor, t: Tensor | int) -> Tensor:
    """log variance of p(x_{t-1} | x_t), from beta_tilde (v = -1) to beta (v = +1) of this schedule (2102.09672 eq. 15)."""
    low, high = schedule.at("posterior_log_variance", t, variance_v), schedule.at("log_betas", t, variance_v)
    fraction = (variance_v + 1) / 2
    return fraction * high + (1 - fraction) * low


def training_losses(
    config: DiffusionConfig, schedule: Schedule, output: Tensor, x0: Tensor, x_t: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """The loss of each example, fp32 (B,): weighted mean squared error, plus the variational term with learned variance.

    The variational term is weighted as guided-diffusion's rescaled loss: T / 1000 times the bits per dimension of one
    timestep. That is the paper's 0.001 L_vlb, since L_vlb sums T timesteps of which one is drawn.
    """
    mean, variance_v = split(config, output)
    error = (target(schedule, config.prediction, x0, noise, t) - mean).square().flatten(1).mean(1)
    loss = error * loss_weight(config, schedule, t, error)
    if variance_v is None:
        return loss
    predicted_x0 = to_x0(schedule, config.prediction, mean.detach(), x_t, t)
    return loss + len(schedule) / 1000 * vlb_terms(schedule, Prediction(predicted_x0, variance_v), x0, x_t, t)


def loss_weight(config: DiffusionConfig, schedule: Schedule, t: Tensor, like: Tensor) -> Tensor:
    """Weight of each timestep, fp32 (B,): 1, or min-SNR-gamma (2303.09556).

    Min-SNR clips the weight of the error in x_0 at gamma. Errors in eps and v are that error times SNR and SNR + 1, so what
    multiplies them is min(SNR, gamma) / SNR and min(SNR, gamma) / (SNR + 1).
    """
    if config.weighting == "simple":
        return torch.ones_like(like)
    snr = schedule.at("snr", t, like)
    clipped = snr.clamp(max=config.min_snr_gamma)
    per_error = {"x0": 1.0, "eps": snr, "v": snr + 1}
    return clipped / per_error[config.prediction]


def vlb_terms(schedule: Schedule, answer: Prediction, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """One timestep's share of the variational bound, bits per dimension, fp32 (B,) (2102.09672 eq. 4 to 6).

    KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0, at t = 0 the negative log-likelihood of the 8-bit pixels.
    Both are computed for every row and one is chosen, and the rejected one's gradient is multiplied by 0: both must be
    finite everywhere, which the clipped posterior variance and log-space normal tails see to.
    """
    assert answer.variance_v is not None
    x0, x_t = x0.float(), x_t.float()
    mean = posterior_mean(schedule, answer.x0, x_t, t)
    log_variance = learned_log_variance(schedule, answer.variance_v, t)
    true_mean = posterior_mean(schedule, x0, x_t, t)
    true_log_variance = schedule.at("posterior_log_variance", t, x_t)

    kl = normal_kl(true_mean, true_log_variance, mean, log_variance)
    nll = -discretised_log_likelihood(x0, mean, log_variance)
    nats = torch.where(t == 0, nll.flatten(1).mean(1), kl.flatten(1).mean(1))
    return nats / math.log(2)


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, variance1) || N(mean2, variance2)) per element, nats."""
    difference = log_variance1 - log_variance2
    return 0.5 * (difference.exp() - 1 - difference + (mean1 - mean2).square() * (-log_variance2).exp())


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the mass that N(mean, variance) gives to the 8-bit bin around x in [-1, 1], per element, nats.

    Bins are 2/255 wide, the outermost reach to infinity (2006.11239 eq. 13). Mirrored into the lower tail and taken in log
    space, the mass never underflows: far-off means still get a gradient, and no logarithm meets a 0.
    """
    half = 1 / 255
    scale = (-0.5 * log_variance).exp()
    distance = -(x - mean).abs()
    upper, lower = log_ndtr((distance + half) * scale), log_ndtr((distance - half) * scale)
    inside = upper + torch.log(-torch.expm1(lower - upper))
    outermost = log_ndtr((half - (x - mean) * x.sign()) * scale)
    return torch.where(x.abs() > 0.999, outermost, inside)
