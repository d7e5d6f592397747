"""How much noise each timestep carries, and which timesteps a sampler visits.

A schedule is a table over T timesteps, t = 0 the cleanest:

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,    alpha_bar_t = prod_{s <= t} (1 - beta_s)

`cosine` is 2102.09672 eq. 17 (unCLIP's prior, decoder and first upsampler), `linear` is 2006.11239 section 4 (its last
upsampler). `respace` keeps some of the timesteps and computes beta anew from the kept alpha_bar, so that posterior means and
variances are those of the jumps really made; `timesteps` says which training timestep each kept one is, which is what the
network must be told.

Tables are fp64 on the CPU. `Schedule.at` reads them: as a python float for an int t, as fp32 on x's device for a batch of t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, overload

import torch
from torch import Tensor

from unclip.errors import ConfigError

Name = Literal["cosine", "linear"]
Table = Literal[
    "betas",
    "alpha_bar",
    "signal",
    "noise",
    "snr",
    "log_betas",
    "posterior_x0",
    "posterior_xt",
    "posterior_variance",
    "posterior_log_variance",
]


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule of T timesteps; every table is fp64 (T,) on the CPU, `timesteps` int64.

    `timesteps[i]` is the training timestep that position i stands for; arange(T) unless the schedule was respaced. Wherever
    a function of this package takes a schedule and a t, t is a position in that schedule, 0 <= t < len(schedule).
    """

    betas: Tensor
    alpha_bar: Tensor
    timesteps: Tensor
    _on_device: dict[tuple[Table, torch.device], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alpha_bar_prev(self) -> Tensor:
        """alpha_bar one position cleaner; 1 before position 0, so that the last jump of a sampler leaves no noise."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])

    @cached_property
    def signal(self) -> Tensor:
        return self.alpha_bar.sqrt()

    @cached_property
    def noise(self) -> Tensor:
        return (1 - self.alpha_bar).sqrt()

    @cached_property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar)."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @cached_property
    def sigmas(self) -> Tensor:
        """Noise level in the variance-exploding view, x_t / sqrt(alpha_bar_t) = x_0 + sigma eps (2206.00364)."""
        return self.snr.rsqrt()

    @cached_property
    def log_betas(self) -> Tensor:
        return self.betas.log()

    @cached_property
    def posterior_x0(self) -> Tensor:
        """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0), 2006.11239 eq. 7."""
        return self.alpha_bar_prev.sqrt() * self.betas / (1 - self.alpha_bar)

    @cached_property
    def posterior_xt(self) -> Tensor:
        """Weight of x_t in the mean of q(x_{t-1} | x_t, x_0), 2006.11239 eq. 7."""
        return (1 - self.betas).sqrt() * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    @cached_property
    def posterior_variance(self) -> Tensor:
        """Variance of q(x_{t-1} | x_t, x_0), beta tilde of 2006.11239 eq. 7; 0 at t = 0."""
        return self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    @cached_property
    def posterior_log_variance(self) -> Tensor:
        """log of `posterior_variance`, with position 1's value at t = 0, where the log would be -inf (and beta_0 if T = 1).

        Clamping the variance at a tiny number instead gives exp(-log variance) ~ 1e20 at t = 0 and a learned range whose
        lower end means nothing.
        """
        first = self.posterior_variance[1:2] if len(self) > 1 else self.betas
        return torch.cat([first, self.posterior_variance[1:]]).log()

    @overload
    def at(self, table: Table, t: Tensor, like: Tensor) -> Tensor: ...
    @overload
    def at(self, table: Table, t: int, like: Tensor) -> float: ...
    def at(self, table: Table, t: Tensor | int, like: Tensor) -> Tensor | float:
        """The table's value at t, ready to multiply `like` (B, ...): a float for an int t, else fp32 (B, 1, ...).

        `t` as a tensor is int64 (B,) on `like`'s device; the table is moved there once, so that no step waits for the host.
        """
        if isinstance(t, int):
            return float(getattr(self, table)[t])
        key = (table, like.device)
        if key not in self._on_device:
            # First the type, then the device: Apple's has no fp64.
            self._on_device[key] = getattr(self, table).to(torch.float32).to(like.device)
        return self._on_device[key][t].view(-1, *[1] * (like.ndim - 1))


def cosine(T: int = 1000) -> Schedule:
    """alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2) at u = t / T, with beta capped at 0.999 (2102.09672 eq. 17)."""

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - alpha_bar((t + 1) / T) / alpha_bar(t / T), 0.999) for t in range(T)]
    return _from_betas(torch.tensor(betas, dtype=torch.float64))


def linear(T: int = 1000) -> Schedule:
    """beta from 1e-4 to 0.02 (2006.11239 section 4); both ends scale by 1000 / T so that alpha_bar_T hardly depends on T."""
    scale = 1000 / T
    betas = torch.linspace(scale * 1e-4, scale * 0.02, T, dtype=torch.float64)
    return _from_betas(betas.clamp(max=0.999))


def make(name: Name, T: int = 1000) -> Schedule:
    """The schedule of that name; ConfigError for another name or for T < 1."""
    if T < 1:
        raise ConfigError(f"a schedule of {T} timesteps: expected at least 1")
    if name == "cosine":
        return cosine(T)
    if name == "linear":
        return linear(T)
    raise ConfigError(f"unknown noise schedule {name!r}, expected cosine or linear")


def respace(schedule: Schedule, steps: Sequence[int] | str | int) -> Schedule:
    """The schedule that visits only some positions of `schedule` (2102.09672 section 4), beta computed anew.

    `steps` are the positions to keep, ascending, or what `spacing` understands.
    """
    kept = spacing(steps, len(schedule)) if isinstance(steps, str | int) else list(steps)
    if not kept or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= len(schedule):
        raise ConfigError(f"cannot keep the timesteps {kept}: expected ascending ones within 0..{len(schedule) - 1}")
    alpha_bar = schedule.alpha_bar[kept]
    alpha_bar_prev = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    return Schedule(betas=1 - alpha_bar / alpha_bar_prev, alpha_bar=alpha_bar, timesteps=schedule.timesteps[kept])


def spacing(spec: str | int, T: int) -> list[int]:
    """The timesteps, ascending, that a spacing keeps out of T.

    | spec             | meaning                                                        | includes T - 1 |
    |------------------|----------------------------------------------------------------|----------------|
    | 50, "50"         | `trailing`, our default                                        | yes            |
    | "even50"         | `evenly`, one section: both 0 and T - 1; for DDIM inversion    | yes            |
    | "10,10,3,2,2"    | `evenly`, one count per section                                | yes            |
    | "karlo25"        | `linspaced`, what Karlo's weights were sampled with            | yes            |
    | "ddim50"         | `strided`, the original DDIM                                   | no             |
    | "fast27"         | GLIDE's upsampler                                              | no: T - 3      |

    The last two start from pure noise at a timestep that still carries signal; they are for published weights that were
    sampled so. Raises ConfigError for anything else, and for more steps than T.
    """
    text = str(spec).replace(" ", "")
    if text == "fast27":
        return [*evenly(T, [10, 10, 3, 2, 2])[:-1], T - 3]
    if "," in text and all(part.isdigit() for part in text.split(",")):
        return evenly(T, [int(part) for part in text.split(",")])
    name = text.rstrip("0123456789")
    count = text[len(name) :]
    named = {"": trailing, "even": evenly, "karlo": linspaced, "ddim": strided}
    if name not in named or not count:
        raise ConfigError(f'unknown spacing {spec!r}, expected 50, "even50", "10,10,3,2,2", "karlo25", "ddim50" or "fast27"')
    return named[name](T, int(count))


def trailing(T: int, n: int) -> list[int]:
    """n timesteps T / n apart, counted down from T - 1 (2305.08891 table 2)."""
    _check_count(n, T)
    return [round(T - i * T / n) - 1 for i in reversed(range(n))]


def evenly(T: int, counts: int | Sequence[int]) -> list[int]:
    """Improved-diffusion's strides (2102.09672 section 4): T cut into equal sections, each with its own count of timesteps.

    A section's first and last timestep are both kept. The stride is summed up rather than multiplied, as the published code
    does: the two round differently where a timestep falls on .5. The very last is T - 1 also where its section keeps only
    one, for which the published code takes the section's first.
    """
    counts = [counts] if isinstance(counts, int) else list(counts)
    size, extra = divmod(T, len(counts))
    kept, start = [], 0
    for section, count in enumerate(counts):
        length = size + (section < extra)
        _check_count(count, length)
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += length
    kept[-1] = T - 1
    return kept


def linspaced(T: int, n: int) -> list[int]:
    """n timesteps from 0 to T - 1, rounded half to even: 7 of 1000 are 0, 166, 333, 500, 666, 832, 999."""
    _check_count(n, T)
    return [round(i * ((T - 1) / (n - 1))) for i in range(n)] if n > 1 else [T - 1]


def strided(T: int, n: int) -> list[int]:
    """0, k, 2k, ... with the whole stride k that gives n timesteps (2010.02502); ConfigError where there is none."""
    _check_count(n, T)
    for stride in range(1, T + 1):
        if len(range(0, T, stride)) == n:
            return list(range(0, T, stride))
    raise ConfigError(f"no whole stride gives {n} of {T} timesteps: use the spacing {n} or even{n}")


def _from_betas(betas: Tensor) -> Schedule:
    return Schedule(betas=betas, alpha_bar=torch.cumprod(1 - betas, dim=0), timesteps=torch.arange(len(betas)))


def _check_count(n: int, T: int) -> None:
    if not 1 <= n <= T:
        raise ConfigError(f"cannot keep {n} of {T} timesteps: expected 1 to {T}")
