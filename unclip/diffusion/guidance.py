"""What is done to a network's answer before a sampler sees it: classifier-free guidance and thresholds.

All of it works on predicted x_0. For guidance the space is no choice: at a given x_t, eps and v are affine in x_0, and the
weights of u + s (c - u) sum to one, so it comes out the same in x_0, eps and v. Rescaling and thresholds are not linear, and
x_0 is the space they are about.

Scale 1 means no guidance, as in GLIDE, unCLIP and Imagen (Ho and Salimans write w = scale - 1). The learned variance is the
conditional branch's; guidance never touches it.
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unclip.config import Config
from unclip.diffusion.process import Prediction
from unclip.diffusion.samplers import Predict
from unclip.diffusion.schedule import Schedule
from unclip.errors import ConfigError

Threshold = Literal["none", "static", "dynamic"]
PredictBoth = Callable[[Tensor, int], tuple[Prediction, Prediction]]


class GuidanceConfig(Config):
    """How answers are guided and kept in range."""

    scale: float = Field(default=1.0, ge=0)
    interval: tuple[float, float] = (0.0, 1.0)
    """Guided while low <= t / (T - 1) <= high, 0 the clean end (2404.07724); `interval_of_sigmas` converts the paper's."""
    rescale: float = Field(default=0.0, ge=0, le=1)
    """phi of 2305.08891 section 3.4; 0 is off, the paper takes 0.7."""
    threshold: Threshold = "static"
    """For pixels; embeddings take none, or static with their own bound."""
    percentile: float = Field(default=0.995, gt=0, le=1)
    bound: float = Field(default=1.0, gt=0)
    """Largest magnitude of data; 1 for pixels."""

    @model_validator(mode="after")
    def _check_interval(self) -> "GuidanceConfig":
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError("the guidance interval must satisfy 0 <= low <= high <= 1")
        return self

    def scale_at(self, t: int, timesteps: int) -> float:
        """The scale at training timestep t of `timesteps`: 1 outside the interval."""
        low, high = self.interval
        return self.scale if low <= t / max(timesteps - 1, 1) <= high else 1.0


def guided(conditional: Predict, both: PredictBoth, config: GuidanceConfig, timesteps: int) -> Predict:
    """A guided, thresholded `predict`, for a training schedule of `timesteps`.

    `both(x, t)` gives the conditional and the unconditional answer, in one network call if it likes; where the scale is 1
    only `conditional(x, t)` is asked.
    """

    def predict(x: Tensor, t: int) -> Prediction:
        scale = config.scale_at(t, timesteps)
        if scale == 1.0:
            return clip(conditional(x, t), config)
        cond, uncond = both(x, t)
        answer = rescale(classifier_free(cond, uncond, scale), cond, config.rescale)
        return clip(answer, config)

    return predict


def classifier_free(cond: Prediction, uncond: Prediction, scale: float | Tensor) -> Prediction:
    """uncond + scale (cond - uncond) (2207.12598); a tensor scale, say (B, 1, 1, 1), guides each row by its own."""
    return cond._replace(x0=uncond.x0 + scale * (cond.x0 - uncond.x0))


def rescale(answer: Prediction, cond: Prediction, phi: float) -> Prediction:
    """Pulls the spread of each guided x_0 back to the conditional one's, by phi in [0, 1] (2305.08891 section 3.4)."""
    if phi == 0:
        return answer
    ratio = _spread(cond.x0) / _spread(answer.x0)
    return answer._replace(x0=answer.x0 * (phi * ratio + (1 - phi)))


def clip(answer: Prediction, config: GuidanceConfig) -> Prediction:
    """The answer with its x_0 thresholded as configured."""
    if config.threshold == "static":
        return answer._replace(x0=answer.x0.clamp(-config.bound, config.bound))
    if config.threshold == "dynamic":
        return answer._replace(x0=dynamic_threshold(answer.x0, config.percentile, config.bound))
    return answer


def dynamic_threshold(x0: Tensor, percentile: float = 0.995, bound: float = 1.0) -> Tensor:
    """Each row clamped to its percentile of |x_0|, if beyond `bound`, and scaled back to that (2205.11487 section 2.3).

    The percentile is the nearest rank: torch.quantile, which would interpolate, refuses more than 2^24 numbers.
    """
    magnitudes = x0.abs().flatten(1)
    rank = 1 + round(percentile * (magnitudes.shape[1] - 1))
    limit = magnitudes.kthvalue(rank, dim=1).values.clamp(min=bound).view(-1, *[1] * (x0.ndim - 1))
    return torch.maximum(torch.minimum(x0, limit), -limit) * (bound / limit)


def interval_of_sigmas(schedule: Schedule, low: float, high: float) -> tuple[float, float]:
    """The `interval` that guides where low < sigma <= high, sigma as in 2206.00364; `schedule` is the training schedule."""
    inside = ((schedule.sigmas > low) & (schedule.sigmas <= high)).nonzero().flatten().tolist()
    if not inside:
        raise ConfigError(
            f"no timestep has a sigma in ({low}, {high}]: they go from {schedule.sigmas[0]:.2g} to {schedule.sigmas[-1]:.2g}"
        )
    last = max(len(schedule) - 1, 1)
    return (inside[0] / last, inside[-1] / last)


def _spread(x: Tensor) -> Tensor:
    return x.flatten(1).std(dim=1).view(-1, *[1] * (x.ndim - 1))
