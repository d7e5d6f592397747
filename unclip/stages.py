"""One stage at a time: a network, its diffusion and its sampling settings, from noise to embeddings or pixels.

The pipeline strings these together; training draws its previews with them. Dimension letters: B batch, E embedding.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from unclip.config import Config
from unclip.diffusion import samplers
from unclip.diffusion.guidance import GuidanceConfig, guided
from unclip.diffusion.process import DiffusionConfig, Prediction, interpret
from unclip.diffusion.samplers import Predict, Sampler, Step
from unclip.diffusion.schedule import Schedule, respace
from unclip.errors import RequestError
from unclip.models.clip import Text
from unclip.models.decoder import Decoder
from unclip.models.known import Known
from unclip.models.laion_prior import LaionPrior
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler
from unclip.rng import Rng

OnStep = Callable[[Step], None]
Network = Callable[[Tensor, Tensor], Tensor]
SamplerName = Literal["ddpm", "ddim", "dpm++"]
Steps = int | str | Annotated[tuple[int, ...], Field(min_length=1)]
PriorSamplerName = Literal["ddpm", "ddim", "dpm++", "analytic"]

RESAMPLINGS, JUMP = 5, 5  # of `repaint`; the paper has 10 and 10 with 250 steps


class SamplingConfig(Config):
    """How a stage is sampled."""

    sampler: PriorSamplerName = "dpm++"
    """`analytic` is for priors, which know how far off their predictions are."""
    steps: Steps = 20
    """A number, what `diffusion.schedule.spacing` understands, or the timesteps themselves, ascending."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """DDIM's noise: 0 deterministic, 1 ancestral."""
    guidance: GuidanceConfig = GuidanceConfig()
    temperature: float = Field(default=1.0, gt=0)
    """The standard deviation of the first noise; below 1 a picture is smoother (GLIDE's upsampler: 0.997)."""


def sample_prior(
    prior: Prior | LaionPrior,
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    text: Text,
    null: Text,
    rng: Rng,
    on_step: OnStep | None = None,
) -> Tensor:
    """Raw z (B, E) for captions of batch B; `null` is the empty caption's Text, of batch 1 or B."""

    null = prior.null(null)
    guided_rows = len(text.pooled) * (1 if sampling.guidance.scale == 1 else 2)
    captions = both_branches(text, null, guided_rows)
    with torch.no_grad():
        memory = prior.remember(captions)

    def network(z_t: Tensor, t: Tensor) -> Tensor:
        rows = slice(len(z_t))  # all, or at steps without guidance the conditional ones alone
        return prior(z_t, t, captions.select(rows), [(k[rows], v[rows]) for k, v in memory])

    noise = first_noise(sampling, (prior.cfg.embed,), rng)
    return prior.restore(sample(network, diffusion, sampling, noise, rng, on_step=on_step, x0_error=prior.x0_error))


def sample_decoder(
    decoder: Decoder,
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    z: Tensor,
    text: Text,
    null: Text,
    rng: Rng,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images (B, 3, S, S) at the decoder's side, in [-1, 1], for raw z (B, E) and captions of batch B.

    It starts from noise of its own; `sample` and `decoder_network` start from a given one.
    """
    side = decoder.cfg.unet.image_size
    noise = first_noise(sampling, (3, side, side), rng)
    return sample(decoder_network(decoder, z, text, null), diffusion, sampling, noise, rng, on_step=on_step)


def decoder_network(
    decoder: Decoder, z: Tensor, text: Text, null: Text, known: Known | None = None, layout: Tensor | None = None
) -> Network:
    """The decoder as `sample` asks it, for raw z (B, E) and captions of batch B; `null` is of batch 1 or B.

    The unconditional branch has neither: z is the learned null, the caption is `null`, the empty one. A decoder for
    inpainting sees in both what is `known`; another does not, and `sample` alone keeps it. A `layout` (B, 3, s, s) is the
    conditional branch's.
    """
    both_z = torch.cat([z, z])
    both_known = known.twice() if known is not None and decoder.cfg.inpaint else None
    drop = torch.arange(2 * len(z), device=z.device) >= len(z)

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        rows = len(x_t)
        seen = None if both_known is None else both_known.select(slice(rows))
        return decoder(x_t, t, both_z[:rows], both_branches(text, null, rows), drop[:rows], seen, layout)

    return network


def sample_upsampler(
    network: Callable[[bool], Upsampler],
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    low: Tensor,
    rng: Rng,
    on_step: OnStep | None = None,
    known: Known | None = None,
) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1], `high / low` times as large as `low` (B, 3, h, w).

    `network` gives the network of a step, of the last one if told so: Karlo has a second for that. What is `known` of the
    large images is kept.
    """
    condition = network(False).enlarge(low)
    cleanest = int(respace(diffusion.noise_schedule(), sampling.steps).timesteps[0])

    def step(x_t: Tensor, t: Tensor) -> Tensor:
        return network(bool(t[0] == cleanest))(x_t, t, condition)

    noise = first_noise(sampling, condition.shape[1:], rng)
    return sample(step, diffusion, sampling, noise, rng, on_step=on_step, known=known)


def make_sampler(
    schedule: Schedule,
    sampling: SamplingConfig,
    noise: Tensor,
    rng: Rng,
    *,
    learned: bool = False,
    x0_error: Tensor | None = None,
) -> Sampler:
    """The sampler that `sampling` names, from `noise` = x_T, over the respaced schedule.

    RequestError for `analytic` without an `x0_error` that was measured.
    """
    spaced = respace(schedule, sampling.steps)
    if sampling.sampler == "analytic":
        if x0_error is None or x0_error.isnan().any():
            raise RequestError(
                "the sampler analytic needs a prior whose error was measured in training: take dpm++, ddim or ddpm"
            )
        error = samplers.spread_x0_error(schedule, x0_error.cpu())
        return samplers.analytic_dpm(spaced, noise, rng=rng, x0_error=error)
    if sampling.sampler == "ddim":
        return samplers.ddim(spaced, noise, rng=rng, eta=sampling.eta)
    if sampling.sampler == "ddpm":
        return samplers.ddpm(spaced, noise, rng=rng, variance="learned" if learned else "small")
    return samplers.dpm_solver_pp_2m(spaced, noise)


def first_noise(sampling: SamplingConfig, shape: Sequence[int], rng: Rng) -> Tensor:
    """x_T (B, *shape): one row a generator."""
    return sampling.temperature * rng.normal(shape)


def sample(
    network: Network,
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    noise: Tensor,
    rng: Rng,
    *,
    on_step: OnStep | None = None,
    x0_error: Tensor | None = None,
    known: Known | None = None,
) -> Tensor:
    """B samples from `noise` (B, C, ...): x_T, or x at the noisiest of the sampling's timesteps if they are given.

    `network(x, t)` is asked with a batch of B, or, guided, of 2 B: the conditional rows, then the unconditional. What is
    `known` of the pictures is in every predicted x_0, and so in the result.
    """
    schedule = diffusion.noise_schedule()
    sampler = make_sampler(schedule, sampling, noise, rng, learned=diffusion.learn_sigma, x0_error=x0_error)
    predict = _guided(network, diffusion, sampling, schedule, known)
    with torch.no_grad():
        return samplers.drive(sampler, predict, on_step=on_step)


def repaint(
    network: Network,
    diffusion: DiffusionConfig,
    sampling: SamplingConfig,
    noise: Tensor,
    rng: Rng,
    known: Known,
    *,
    on_step: OnStep | None = None,
) -> Tensor:
    """As `sample`, for a network that was not trained to inpaint: by RePaint, whatever the sampler's name.

    Each step is gone through RESAMPLINGS times, so it takes as many times as long.
    """
    schedule = diffusion.noise_schedule()
    sampler = samplers.repaint(
        respace(schedule, sampling.steps),
        noise,
        *known,
        rng=rng,
        variance="learned" if diffusion.learn_sigma else "small",
        resamplings=RESAMPLINGS,
        jump=JUMP,
    )
    with torch.no_grad():
        return samplers.drive(sampler, _guided(network, diffusion, sampling, schedule, known), on_step=on_step)


def invert(
    network: Network,
    diffusion: DiffusionConfig,
    x0: Tensor,
    *,
    steps: Steps = "even50",
    refinements: int = 0,
    on_step: OnStep | None = None,
) -> Tensor:
    """The x_T (B, C, ...) from which unguided DDIM over the same `steps`, nothing thresholded, comes back to x0.

    See `samplers.ddim_inversion`, also for `refinements`.
    """
    schedule = diffusion.noise_schedule()
    sampler = samplers.ddim_inversion(respace(schedule, steps), x0, refinements=refinements)
    with torch.no_grad():
        return samplers.drive(sampler, _interpreted(network, diffusion, schedule), on_step=on_step)


def _guided(
    network: Network, diffusion: DiffusionConfig, sampling: SamplingConfig, schedule: Schedule, known: Known | None
) -> Predict:
    """Predictions of x_0 as the sampling's guidance wants them; what is known is in its place."""
    answer = _interpreted(network, diffusion, schedule)

    def ask(x: Tensor, t: int) -> Prediction:
        told = answer(x, t)
        return told if known is None else told._replace(x0=known.keep(told.x0))

    def both(x: Tensor, t: int) -> tuple[Prediction, Prediction]:
        told = ask(torch.cat([x, x]), t)
        halves = [tuple(None if part is None else part.chunk(2)[i] for part in told) for i in (0, 1)]
        return Prediction(*halves[0]), Prediction(*halves[1])  # pyright: ignore[reportArgumentType]

    return guided(ask, both, sampling.guidance, len(schedule))


def _interpreted(network: Network, diffusion: DiffusionConfig, schedule: Schedule) -> Predict:
    """The network's answers as predictions of x_0."""
    return lambda x, t: interpret(diffusion, schedule, network(x, torch.full((len(x),), t, device=x.device)), x, t)


def both_branches(text: Text, null: Text, rows: int) -> Text:
    """The captions for a batch of B conditional rows, or of B conditional and then B unconditional ones."""
    if rows == len(text.pooled):
        return text
    return Text(*(torch.cat([own, other.expand_as(own)]) for own, other in zip(text, null, strict=True)))
