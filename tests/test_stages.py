"""From noise to embeddings and pixels: who is asked what, how often, and with which guidance."""

import pytest
import torch
from conftest import scrambled
from torch import nn

from unclip.diffusion.guidance import GuidanceConfig
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import RequestError
from unclip.models.clip import Text
from unclip.models.decoder import SIZES, Decoder
from unclip.models.prior import SIZES as PRIORS
from unclip.models.prior import Prior
from unclip.models.upsampler import SIZES as UPSAMPLERS
from unclip.models.upsampler import Upsampler
from unclip.rng import Rng
from unclip.stages import SamplingConfig, sample_decoder, sample_prior, sample_upsampler

OFF = GuidanceConfig(threshold="none")


class Counted(nn.Module):
    """A network that notes with how many rows it was asked."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.cfg, self.rows = inner, inner.cfg, []

    def forward(self, x, t, *rest):
        self.rows.append(len(x))
        return self.inner(x, t, *rest)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    return scrambled(Decoder(SIZES["micro"]), 0)


def captions(rows: int, seed: int = 1) -> Text:
    generator = torch.Generator().manual_seed(seed)
    pooled, states = (torch.randn(shape, generator=generator) for shape in ((rows, 32), (rows, 16, 32)))
    return Text(pooled, states, torch.ones(rows, 16, dtype=torch.bool))


def paint(network, sampling, *, seeds=(3, 4), diffusion=None, null=None):
    z = torch.randn(len(seeds), 32, generator=torch.Generator().manual_seed(0))
    null = captions(1, 9) if null is None else null
    diffusion = diffusion or DiffusionConfig(prediction="v")
    return sample_decoder(network, diffusion, sampling, z, captions(len(seeds)), null, Rng(seeds))


def test_scale_one_asks_once_a_step_with_the_conditional_rows_alone(decoder):
    network = Counted(decoder)
    paint(network, SamplingConfig(steps=3, guidance=OFF))
    assert network.rows == [2, 2, 2]


def test_a_scale_asks_once_a_step_with_both(decoder):
    network = Counted(decoder)
    paint(network, SamplingConfig(steps=3, guidance=GuidanceConfig(scale=2.0, threshold="none")))
    assert network.rows == [4, 4, 4]


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_guidance_is_the_combination_by_hand(decoder, prediction):
    """One step of DDIM from the last timestep returns the guided x0, which is affine in the two branches' x0."""
    diffusion = DiffusionConfig(prediction=prediction)
    null = captions(1, 9)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    x = Rng((3, 4)).normal((3, 32, 32))
    schedule, last = diffusion.noise_schedule(), 999
    signal, noise = float(schedule.signal[last]), float(schedule.noise[last])

    def x0(text, drop):
        with torch.no_grad():
            out = decoder(x, torch.full((2,), last), z, text, torch.full((2,), drop))
        return {"eps": (x - noise * out) / signal, "x0": out, "v": signal * x - noise * out}[prediction]

    expanded = Text(*(part.expand(2, *part.shape[1:]) for part in null))
    conditional, unconditional = x0(captions(2), False), x0(expanded, True)
    for scale in (1.0, 2.0, 0.5, 0.0):
        sampling = SamplingConfig(sampler="ddim", steps=1, guidance=GuidanceConfig(scale=scale, threshold="none"))
        expected = unconditional + scale * (conditional - unconditional)
        tolerance = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(paint(decoder, sampling, diffusion=diffusion), expected, atol=tolerance, rtol=1e-4)


def test_the_null_caption_may_be_given_once_or_for_each_row(decoder):
    sampling = SamplingConfig(steps=2, guidance=GuidanceConfig(scale=3.0))
    one = captions(1, 9)
    both = Text(*(part.expand(2, *part.shape[1:]) for part in one))
    assert torch.equal(paint(decoder, sampling, null=one), paint(decoder, sampling, null=both))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
@pytest.mark.parametrize("steps", [1, 4, "even4"])
def test_every_sampler_runs_and_stays_in_range(decoder, sampler, steps):
    sampling = SamplingConfig(sampler=sampler, steps=steps, eta=1.0 if sampler == "ddim" else 0.0)
    out = paint(decoder, sampling)
    assert out.shape == (2, 3, 32, 32)
    assert out.isfinite().all()
    assert out.abs().max() <= 1.0 + 1e-6
    assert torch.equal(out, paint(decoder, sampling))
    assert not torch.equal(out[0], out[1])


def test_learned_variance_goes_to_ddpm_and_guidance_leaves_it_alone():
    wide = SIZES["micro"].model_copy(update={"unet": SIZES["micro"].unet.model_copy(update={"out_channels": 6})})
    torch.manual_seed(0)
    network = scrambled(Decoder(wide), 0)
    learned = DiffusionConfig(prediction="eps", learn_sigma=True)
    for sampler in ("ddpm", "ddim", "dpm++"):
        sampling = SamplingConfig(sampler=sampler, steps=3, guidance=GuidanceConfig(scale=2.0))
        out = paint(network, sampling, diffusion=learned)
        assert out.shape == (2, 3, 32, 32)
        assert out.isfinite().all()
    with torch.no_grad():  # wholly small against wholly large variance
        samples = []
        for value in (-1.0, 1.0):
            network.unet.conv_out.weight[12:] = 0.0  # 3 channels of 2 x 2 folded pixels are 12
            network.unet.conv_out.bias[12:] = value
            samples.append(paint(network, SamplingConfig(sampler="ddpm", steps=3, guidance=OFF), diffusion=learned))
    assert not torch.equal(*samples)


def test_a_row_depends_on_its_own_seed(decoder):
    sampling = SamplingConfig(sampler="ddpm", steps=3, guidance=GuidanceConfig(scale=2.0))
    z, text = torch.ones(2, 32), captions(1)
    twice = Text(*(part.expand(2, *part.shape[1:]) for part in text))
    given = (decoder, DiffusionConfig(prediction="v"), sampling)
    both = sample_decoder(*given, z, twice, text, Rng((5, 6)))
    alone = sample_decoder(*given, z[:1], text, text, Rng((6,)))
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_the_prior_answers_in_clips_space():
    torch.manual_seed(0)
    prior = Prior(PRIORS["micro"])
    prior.set_statistics(torch.full((32,), 7.0), torch.full((32,), 0.01))
    network = scrambled(prior, 0)
    calls = []
    handle = network.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    sampling = SamplingConfig(sampler="ddim", steps=4, eta=1.0, guidance=GuidanceConfig(scale=2.0, threshold="none"))
    z = sample_prior(network, DiffusionConfig(prediction="x0"), sampling, captions(3), captions(1, 9), Rng((1, 2, 3)))
    handle.remove()
    assert calls == [6] * 4
    assert z.shape == (3, 32)
    assert (z - 7.0).abs().max() < 0.2


def test_analytic_dpm_asks_the_prior_how_far_off_it_is(decoder):
    torch.manual_seed(0)
    prior = scrambled(Prior(PRIORS["micro"]), 0)
    prior.set_statistics(torch.zeros(32), torch.ones(32))
    sampling = SamplingConfig(sampler="analytic", steps=4, guidance=OFF)

    def z(error: float) -> torch.Tensor:
        prior.set_x0_error(torch.full_like(prior.x0_error, error))
        return sample_prior(prior, DiffusionConfig(prediction="x0"), sampling, captions(2), captions(1, 9), Rng((3, 4)))

    assert torch.equal(z(0.3), z(0.3))
    assert not torch.equal(z(0.3), z(0.1))
    with pytest.raises(RequestError, match="analytic needs a prior whose error was measured"):
        z(float("nan"))
    with pytest.raises(RequestError, match="analytic needs a prior"):
        paint(decoder, sampling)


def test_the_priors_unconditional_branch_keeps_the_noised_z():
    """Only the caption is dropped: both halves of a guided question hold the same z_t."""
    torch.manual_seed(0)
    prior = Prior(PRIORS["micro"])
    prior.set_statistics(torch.zeros(32), torch.ones(32))
    network, asked = scrambled(prior, 0), []
    handle = network.register_forward_pre_hook(lambda module, given: asked.append(given))
    sampling = SamplingConfig(steps=2, guidance=GuidanceConfig(scale=2.0, threshold="none"))
    null = captions(1, 9)
    sample_prior(network, DiffusionConfig(prediction="x0"), sampling, captions(2), null, Rng((1, 2)))
    handle.remove()
    for z_t, _, text, _ in asked:
        assert torch.equal(z_t[:2], z_t[2:])
        assert torch.equal(text.pooled[2:], null.pooled.expand(2, -1))
        assert torch.equal(text.pooled[:2], captions(2).pooled)


def test_on_step_sees_every_step_and_cancels_by_raising(decoder):
    steps = []
    z, text, null = torch.zeros(1, 32), captions(1), captions(1, 9)
    sampling = SamplingConfig(steps=5)
    given = (decoder, DiffusionConfig(prediction="v"), sampling, z, text, null, Rng((0,)))
    sample_decoder(*given, on_step=steps.append)
    assert [(step.index, step.total) for step in steps] == [(i, 5) for i in range(5)]
    network = Counted(decoder)

    def stop(step):
        if step.index == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sample_decoder(network, *given[1:], on_step=stop)
    assert len(network.rows) == 3


def test_the_upsampler_enlarges_pictures_of_any_side():
    torch.manual_seed(0)
    network = scrambled(Upsampler(UPSAMPLERS["micro"][64]), 0)
    diffusion = DiffusionConfig(prediction="x0" if network.cfg.residual else "v")
    for height, width in ((32, 32), (16, 24)):
        low = 2 * torch.rand(2, 3, height, width) - 1
        out = sample_upsampler(lambda last: network, diffusion, SamplingConfig(steps=2), low, Rng((0, 1)))
        assert out.shape == (2, 3, 2 * height, 2 * width)
        assert out.isfinite().all()
