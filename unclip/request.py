"""What a caller asks of a model, checked once: prompts, seeds, sizes, and the settings that may be changed."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from unclip.config import Config
from unclip.diffusion.guidance import Threshold
from unclip.diffusion.samplers import Step
from unclip.errors import RequestError
from unclip.stages import OnStep, PriorSamplerName, SamplerName, SamplingConfig, Steps

Progress = Callable[[str, Step], None]
"""Told the stage's name and its step; raising in it cancels."""
Method = Literal["trained", "repaint"]
"""How a decoder keeps what is known of a picture: as it was trained to, or by RePaint (2201.09865), as any can."""


class Job(NamedTuple):
    """One picture to paint."""

    prompt: str
    seed: int


class Options(Config):
    """What a caller may change of a model's sampling settings; None keeps the model's."""

    steps: Steps | None = None
    guidance: float | None = Field(default=None, ge=0)
    eta: float | None = Field(default=None, ge=0, le=1)
    threshold: Threshold | None = None
    prior_steps: int | str | None = None
    prior_guidance: float | None = Field(default=None, ge=0)
    prior_sampler: PriorSamplerName | None = None
    upsampler_steps: int | str | None = None
    sampler: SamplerName | None = None
    method: Method | None = None
    as_typed: bool | None = None
    """True: prompts go to the model as they are, whatever its words say of them (unclip/words)."""

    def decoder(self, sampling: SamplingConfig) -> SamplingConfig:
        """RequestError for an eta that the sampler has no use for."""
        guidance = {"scale": self.guidance, "threshold": self.threshold}
        changed = _changed(sampling, {"steps": self.steps, "sampler": self.sampler, "eta": self.eta}, guidance)
        if self.eta and changed.sampler != "ddim":
            raise RequestError(f"eta = {self.eta:g} is DDIM's, and the sampler is {changed.sampler}: take the sampler ddim")
        return changed

    def prior(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, {"steps": self.prior_steps, "sampler": self.prior_sampler}, {"scale": self.prior_guidance})

    def upsampler(self, sampling: SamplingConfig) -> SamplingConfig:
        return _changed(sampling, {"steps": self.upsampler_steps}, {})


AS_SAVED = Options()


INVERSION_STEPS = 50


def retracing(options: Options) -> Options:
    """`options` for sampling from an inverted x_T: what they leave open is such that the picture comes back.

    That is DDIM without noise over timesteps that begin at 0, neither guided nor thresholded (2105.05233 appendix F).
    Whoever asks for guidance gets the model's threshold with it.
    """
    asked = options.model_dump(exclude_none=True)
    steps = asked.pop("steps", INVERSION_STEPS)
    unguided = {"guidance": 1.0, "threshold": "none"} if asked.get("guidance", 1.0) == 1.0 else {}
    return Options(
        **{"sampler": "ddim", "eta": 0.0, **unguided, **asked}, steps=f"even{steps}" if str(steps).isdigit() else steps
    )


def jobs(prompts: str | Sequence[str], seed: int | Sequence[int], n: int) -> list[Job]:
    """`n` pictures a prompt, those of the first prompt first; picture i of a prompt has its seed + i.

    Raises RequestError for no prompt, n < 1, or as many seeds as there are not prompts.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    if not prompts:
        raise RequestError("no prompt: give at least one, which may be empty")
    if len(seeds) != len(prompts):
        raise RequestError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one seed, or one for each prompt")
    return [Job(prompt, own) for prompt, first in zip(prompts, seeds, strict=True) for own in seeds_of(first, n)]


def seeds_of(seed: int, n: int) -> list[int]:
    """The seeds of `n` pictures, `seed` + i; RequestError for n < 1."""
    if n < 1:
        raise RequestError(f"n = {n}: expected at least 1")
    return [seed + i for i in range(n)]


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


def _changed(sampling: SamplingConfig, changes: dict[str, Any], guidance: dict[str, Any]) -> SamplingConfig:
    """`sampling` with every change that is not None."""
    values = sampling.model_dump()
    values |= {key: value for key, value in changes.items() if value is not None}
    values["guidance"] |= {key: value for key, value in guidance.items() if value is not None}
    return SamplingConfig.parse(values, where="options")
