"""How a network is trained: every number of a run, and which of them may change while it is under way."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from unclip.config import Config
from unclip.device import Precision
from unclip.errors import ConfigError
from unclip.train.optimizer import Decay, Schedule


class TrainConfig(Config):
    """How to train. Of a run that is under way, all may change but `batch` and `seed`, which say what a step is made of."""

    steps: int = Field(ge=0)
    minutes: float = Field(0.0, ge=0, description="wsd: the time of one start, the cool-down in it; 0: as long as it takes")
    batch: int = Field(64, ge=1, description="samples a step")
    accumulate: int = Field(1, ge=1, description="micro batches a step, one after the other; must divide `batch`")
    seed: int = Field(0, ge=0)

    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(500, ge=0, description="steps")
    decay: Decay = "cosine"
    final: float = Field(0.0, ge=0, le=1, description="the last step's rate, as a share of lr")
    cooldown: float = Field(0.2, ge=0, le=1, description="wsd: the share of the steps over which the rate falls")
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0, description="on matrices and kernels only")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0: unlimited")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the average of the weights, after its warm-up")
    ema_power: float | None = Field(None, ge=0, description="the average's exponent in power form, instead of `ema`")

    device: str = "auto"
    precision: Precision = "auto"
    channels_last: bool = True
    compile: bool = False
    threads: int = Field(0, ge=0, description="CPU threads of the network; 0: torch's choice")
    workers: int = Field(1, ge=1, description="threads that make batches")
    prefetch: int = Field(4, ge=1, description="batches made ahead")

    log_every: int = Field(50, ge=1, description="steps, as are the next three; 0: never")
    preview_every: int = Field(0, ge=0)
    evaluate_every: int = Field(0, ge=0)
    save_every: int = Field(0, ge=0)
    save_minutes: float = Field(10.0, ge=0, description="0: never by the clock")
    keep: int = Field(2, ge=1, description="checkpoints kept")
    keep_every: int = Field(0, ge=0, description="checkpoints of these steps are kept for good")

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.batch % self.accumulate:
            raise ValueError(f"batch = {self.batch} must be a multiple of accumulate = {self.accumulate}")
        if self.minutes and not (self.decay == "wsd" and self.cooldown < 1):
            raise ValueError("minutes needs decay = wsd and a cooldown below 1: only then can the clock say when to end")
        return self

    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.lr, self.warmup, self.decay, self.final, self.cooldown)


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """A run folder belongs to one config: ConfigError names the first key that is another one and may not be.

    Free are all of `train` but its batch and seed, and keys that the older config did not have.
    """
    fixed = {"train": {key: now["train"][key] for key in ("batch", "seed")}}
    for key, old, new in _differences(before, {**now, **fixed}):
        raise ConfigError(
            f"{run} was begun with {key} = {old!r}, now it is {new!r}: put it back, or name another run folder"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in before.keys() & now.keys():
        if isinstance(before[key], dict) and isinstance(now[key], dict):
            yield from _differences(before[key], now[key], f"{path}{key}.")
        elif before[key] != now[key]:
            yield f"{path}{key}", before[key], now[key]
