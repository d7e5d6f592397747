"""What a caller asks of a model, checked once: prompts, seeds, sizes, and the settings that may be changed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import Field

from unclip.config import Config
from unclip.diffusion.samplers import Step
from unclip.errors import RequestError
from unclip.stages import OnStep, PriorSamplerName, SamplerName, SamplingConfig

Progress = Callable[[str, Step], None]
"""Told the stage's name and its step; raising in it cancels."""


class Job(NamedTuple):
    """One picture to paint."""

    prompt: str
    seed: int


class Options(Config):
    """What a caller may change of a model's sampling settings; None keeps the model's."""

    steps: int | str | None = None
    guidance: float | None = Field(default=None, ge=0)
    prior_steps: int | str | None = None
    prior_guidance: float | None = Field(default=None, ge=0)
    prior_sampler: PriorSamplerName | None = None
    upsampler_steps: int | str | None = None
    sampler: SamplerName | None = None

    def decoder(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, self.steps, self.guidance, self.sampler)

    def prior(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, self.prior_steps, self.prior_guidance, self.prior_sampler)

    def upsampler(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, self.upsampler_steps, None, None)


AS_SAVED = Options()


def jobs(prompts: str | Sequence[str], seed: int | Sequence[int], n: int) -> list[Job]:
    """`n` pictures a prompt, those of the first prompt first; picture i of a prompt has its seed + i.

    Raises RequestError for no prompt, n < 1, or as many seeds as there are not prompts.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    if not prompts:
        raise RequestError("no prompt: give at least one, which may be empty")
    if n < 1:
        raise RequestError(f"n = {n}: expected at least 1")
    if len(seeds) != len(prompts):
        raise RequestError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one seed, or one for each prompt")
    return [Job(prompt, first + i) for prompt, first in zip(prompts, seeds, strict=True) for i in range(n)]


def pick_size(name: str, sizes: Sequence[int], size: int | None) -> int:
    """`size`, if the model called `name` can make it, RequestError if not; None: the largest up to 256 px."""
    if size is None:
        return max(side for side in sizes if side <= max(256, sizes[0]))
    if size not in sizes:
        raise RequestError(f"{name} cannot make {size} px: it makes {', '.join(map(str, sizes))}")
    return size


def named(progress: Progress | None, stage: str) -> OnStep | None:
    """`progress` as one stage's `on_step`."""
    return None if progress is None else lambda step: progress(stage, step)


def _changed(
    sampling: SamplingConfig, steps: int | str | None, guidance: float | None, sampler: PriorSamplerName | None
) -> SamplingConfig:
    values = sampling.model_dump()
    if steps is not None:
        values["steps"] = steps
    if sampler is not None:
        values["sampler"] = sampler
    if guidance is not None:
        values["guidance"]["scale"] = guidance
    return SamplingConfig.parse(values, where="options")
