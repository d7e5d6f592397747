"""The forward process, conversions and losses, against closed forms."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from unclip.diffusion.process import (
    DiffusionConfig,
    Prediction,
    discretised_log_likelihood,
    draw_timesteps,
    interpret,
    learned_log_variance,
    loss_weight,
    normal_kl,
    posterior_mean,
    q_sample,
    target,
    to_eps,
    to_x0,
    training_losses,
    vlb_terms,
)
from unclip.diffusion.schedule import cosine, linear, respace
from unclip.errors import ConfigError

SHAPES = [(4, 3, 5, 5), (4, 7)]
COSINE = cosine()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some_t(*values: int) -> torch.Tensor:
    return torch.tensor(values)


# Timesteps, noise and conversions


@pytest.mark.parametrize("count", [1, 7, 64, 1000, 2500])
def test_a_batch_of_timesteps_is_evenly_spread(count):
    generator = torch.Generator().manual_seed(3)
    t = draw_timesteps(COSINE, count, generator, torch.device("cpu"))
    assert t.dtype == torch.int64
    assert t.shape == (count,)
    assert t.min() >= 0
    assert t.max() <= 999
    shares = torch.histc(t.float(), bins=min(count, 5), min=0, max=1000) / count
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / len(shares)), atol=2 / count, rtol=0)


def test_every_timestep_is_equally_likely_at_every_place_in_the_batch():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_timesteps(COSINE, 4, generator, torch.device("cpu")) for _ in range(4000)])
    for place in drawn.T.float():
        shares = torch.histc(place, bins=10, min=0, max=1000) / 4000
        assert (shares - 0.1).abs().max() < 0.02


@pytest.mark.parametrize("t", [0, 500, 999])
def test_q_sample_has_the_moments_of_the_forward_process(t):
    x_t = q_sample(COSINE, torch.full((1, 100_000), 0.5), t, draw(1, 100_000))
    assert x_t.mean().item() == pytest.approx(0.5 * COSINE.signal[t].item(), abs=0.01)
    assert x_t.std().item() == pytest.approx(COSINE.noise[t].item(), rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_of_t_and_single_ints_agree(shape):
    x0, noise, t = draw(*shape), draw(*shape, seed=1), some_t(0, 10, 500, 999)
    rows = [q_sample(COSINE, x0[i : i + 1], int(t[i]), noise[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(q_sample(COSINE, x0, t, noise), torch.cat(rows))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_right_answer_converts_back_to_x0_and_eps(prediction, shape):
    x0, noise, t = draw(*shape), draw(*shape, seed=1), some_t(1, 100, 500, 900)
    x_t = q_sample(COSINE, x0, t, noise)
    answer = target(COSINE, prediction, x0, noise, t)
    torch.testing.assert_close(to_x0(COSINE, prediction, answer, x_t, t), x0, rtol=0, atol=1e-5)
    torch.testing.assert_close(to_eps(COSINE, prediction, answer, x_t, t), noise, rtol=0, atol=1e-4)


def test_v_is_well_conditioned_at_both_ends():
    x0, noise, t = draw(2, 8), draw(2, 8, seed=1), some_t(0, 999)
    x_t = q_sample(COSINE, x0, t, noise)
    v = target(COSINE, "v", x0, noise, t)
    torch.testing.assert_close(to_x0(COSINE, "v", v, x_t, t), x0, rtol=0, atol=1e-6)
    torch.testing.assert_close(to_eps(COSINE, "v", v, x_t, t), noise, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_interpret_splits_off_the_variance(shape):
    config = DiffusionConfig(prediction="v", learn_sigma=True)
    x_t, v, variance_v = draw(*shape), draw(*shape, seed=1), draw(*shape, seed=2)
    answer = interpret(config, COSINE, torch.cat([v, variance_v], dim=1).bfloat16(), x_t, 300)
    assert answer.variance_v is not None
    assert answer.x0.dtype == answer.variance_v.dtype == torch.float32
    torch.testing.assert_close(answer.x0, to_x0(COSINE, "v", v.bfloat16(), x_t, 300))
    torch.testing.assert_close(answer.variance_v, variance_v.bfloat16().float())
    assert interpret(DiffusionConfig(), COSINE, x_t, x_t, 300).variance_v is None


def test_posterior_mean_at_0_is_x0():
    x0, x_t = draw(2, 4), draw(2, 4, seed=1)
    torch.testing.assert_close(posterior_mean(COSINE, x0, x_t, 0), x0)


# Learned variance


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_the_learned_range_ends_at_beta_tilde_and_beta(t):
    ends = torch.tensor([[-1.0, 1.0]])
    low, high = learned_log_variance(COSINE, ends, t)[0].tolist()
    assert low == pytest.approx(COSINE.posterior_log_variance[t].item(), abs=1e-5)
    assert high == pytest.approx(COSINE.betas[t].log().item(), abs=1e-5)
    assert low <= high


def test_the_learned_range_is_that_of_the_respaced_betas():
    short = respace(COSINE, 10)
    middle = learned_log_variance(short, torch.zeros(1, 1), 4).item()
    assert middle == pytest.approx(0.5 * (short.posterior_variance[4].log() + short.betas[4].log()).item(), abs=1e-5)
    assert middle > COSINE.betas[int(short.timesteps[4])].log()


def test_the_lower_end_at_0_stays_a_sane_variance():
    assert learned_log_variance(COSINE, -torch.ones(1, 1), 0).item() == pytest.approx(-10.73, abs=0.01)


# The variational bound


def test_normal_kl_agrees_with_torch():
    mean1, mean2, log1, log2 = (draw(50, seed=seed) for seed in range(4))
    expected = kl_divergence(Normal(mean1, (0.5 * log1).exp()), Normal(mean2, (0.5 * log2).exp()))
    torch.testing.assert_close(normal_kl(mean1, log1, mean2, log2), expected)


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, -2.0), (0.3, -6.0), (-1.0, -4.0), (1.0, -8.0), (-0.9, 1.0)])
def test_the_bins_share_out_all_of_the_mass(mean, log_variance):
    pixels = torch.arange(256) * 2 / 255 - 1
    log_mass = discretised_log_likelihood(pixels, torch.full_like(pixels, mean), torch.full_like(pixels, log_variance))
    assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_bin_masses_agree_with_a_plain_difference_in_fp64():
    pixels = torch.randint(1, 255, (200,), generator=torch.Generator().manual_seed(0)) * 2 / 255 - 1
    mean, log_variance = pixels + 0.1 * draw(200), draw(200, seed=1) - 6
    normal = Normal(mean.double(), (0.5 * log_variance.double()).exp())
    expected = (normal.cdf(pixels.double() + 1 / 255) - normal.cdf(pixels.double() - 1 / 255)).log()
    actual = discretised_log_likelihood(pixels, mean, log_variance)
    near = expected > -15  # beyond, the plain difference has lost its digits
    assert near.sum() > 100
    torch.testing.assert_close(actual[near].double(), expected[near], rtol=1e-3, atol=1e-3)


def test_a_far_off_mean_still_gets_a_gradient():
    mean = torch.tensor([0.9], requires_grad=True)
    discretised_log_likelihood(torch.tensor([-0.5]), mean, torch.tensor([-10.0])).sum().backward()
    assert mean.grad is not None
    assert mean.grad.item() < -1e4


@pytest.mark.parametrize("shape", SHAPES)
def test_the_right_x0_and_the_small_variance_cost_nothing(shape):
    x0, t = draw(*shape).clamp(-1, 1), some_t(1, 100, 500, 999)
    x_t = q_sample(COSINE, x0, t, draw(*shape, seed=1))
    terms = vlb_terms(COSINE, Prediction(x0, -torch.ones(shape)), x0, x_t, t)
    torch.testing.assert_close(terms, torch.zeros(4), rtol=0, atol=1e-6)


def test_the_large_variance_costs_its_kl_in_bits():
    x0, t = draw(2, 5), some_t(3, 3)
    terms = vlb_terms(COSINE, Prediction(x0, torch.ones(2, 5)), x0, draw(2, 5, seed=1), t)
    small, large = COSINE.posterior_variance[3].sqrt(), COSINE.betas[3].sqrt()
    expected = kl_divergence(Normal(0.0, small), Normal(0.0, large)) / math.log(2)
    assert terms.tolist() == pytest.approx([expected.item()] * 2, rel=1e-4)


def test_at_0_the_bound_is_the_likelihood_of_the_pixels():
    x0 = torch.randint(0, 256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0)) * 2 / 255 - 1
    variance_v = torch.zeros_like(x0)
    predicted = x0 + 0.01 * draw(2, 3, 4, 4)
    terms = vlb_terms(COSINE, Prediction(predicted, variance_v), x0, draw(2, 3, 4, 4, seed=1), some_t(0, 0))
    log_variance = learned_log_variance(COSINE, variance_v, 0)
    expected = -discretised_log_likelihood(x0, predicted, log_variance).flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(terms, expected)


@pytest.mark.parametrize("v", [-5.0, -1.0, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("error", [0.0, 0.1, 100.0])
def test_gradients_are_finite_at_every_t(v, error):
    x0, t = torch.tensor([[-1.0, 0.0, 1.0]]).repeat(4, 1), some_t(0, 1, 2, 999)
    variance_v = torch.full((4, 3), v, requires_grad=True)
    predicted = (x0 + error).requires_grad_()
    vlb_terms(COSINE, Prediction(predicted, variance_v), x0, q_sample(COSINE, x0, t, draw(4, 3)), t).sum().backward()
    assert variance_v.grad is not None
    assert predicted.grad is not None
    assert variance_v.grad.isfinite().all()
    assert predicted.grad.isfinite().all()


# Training losses


def losses(config: DiffusionConfig, output: torch.Tensor, T: int = 1000) -> torch.Tensor:
    schedule = linear(T)
    x0, noise, t = draw(4, 3, 2, 2), draw(4, 3, 2, 2, seed=1), some_t(0, 1, T // 2, T - 1)
    return training_losses(config, schedule, output, x0, q_sample(schedule, x0, t, noise), noise, t)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("weighting", ["simple", "min_snr"])
def test_the_right_answer_has_no_loss(prediction, weighting):
    config = DiffusionConfig(schedule="linear", prediction=prediction, weighting=weighting)
    right = target(linear(), prediction, draw(4, 3, 2, 2), draw(4, 3, 2, 2, seed=1), some_t(0, 1, 500, 999))
    assert losses(config, right).tolist() == [0, 0, 0, 0]


def test_the_simple_loss_is_the_mean_squared_error_of_each_row():
    output = draw(4, 3, 2, 2, seed=2)
    expected = (output - draw(4, 3, 2, 2, seed=1)).square().flatten(1).mean(1)
    torch.testing.assert_close(losses(DiffusionConfig(), output.double()), expected)


@pytest.mark.parametrize("T", [1000, 100])
def test_the_hybrid_loss_adds_the_bound_by_its_share_of_1000_timesteps(T):
    output = draw(4, 6, 2, 2, seed=2)
    schedule, x0, noise, t = linear(T), draw(4, 3, 2, 2), draw(4, 3, 2, 2, seed=1), some_t(0, 1, T // 2, T - 1)
    x_t = q_sample(schedule, x0, t, noise)
    answer = interpret(DiffusionConfig(learn_sigma=True), schedule, output, x_t, t)
    extra = losses(DiffusionConfig(learn_sigma=True), output, T) - losses(DiffusionConfig(), output[:, :3], T)
    torch.testing.assert_close(extra, T / 1000 * vlb_terms(schedule, answer, x0, x_t, t), rtol=1e-4, atol=1e-4)


def test_the_bound_trains_the_variance_only():
    hybrid, simple = draw(4, 6, 2, 2).requires_grad_(), draw(4, 6, 2, 2).requires_grad_()
    losses(DiffusionConfig(learn_sigma=True), hybrid).sum().backward()
    losses(DiffusionConfig(), simple[:, :3]).sum().backward()
    assert hybrid.grad is not None
    assert simple.grad is not None
    torch.testing.assert_close(hybrid.grad[:, :3], simple.grad[:, :3])
    assert hybrid.grad[:, 3:].abs().min() > 0


def test_losses_are_fp32_from_a_bf16_network():
    assert losses(DiffusionConfig(learn_sigma=True), draw(4, 6, 2, 2).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_min_snr_is_the_same_clipped_error_in_x0_whatever_is_predicted(prediction):
    """A given error in x_0, measured in any prediction's space and weighted, costs min(SNR, gamma) times its square."""
    config = DiffusionConfig(prediction=prediction, weighting="min_snr", min_snr_gamma=5.0)
    t = torch.arange(1, 1000, 37)
    wrong, right, x_t = draw(len(t), 1), draw(len(t), 1, seed=1), draw(len(t), 1, seed=2)
    noise, wrong_noise = (to_eps(COSINE, "x0", x0, x_t, t) for x0 in (right, wrong))
    answer = target(COSINE, prediction, wrong, wrong_noise, t)
    snr = COSINE.snr[t].float()
    expected = snr.clamp(max=5.0) * (wrong - right).square().squeeze(1)
    actual = training_losses(config, COSINE, answer, right, x_t, noise, t)
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(("prediction", "clean", "noisy"), [("x0", 5, 0), ("eps", 0, 1), ("v", 0, 0)])
def test_min_snr_weights_at_the_ends(prediction, clean, noisy):
    config = DiffusionConfig(prediction=prediction, weighting="min_snr")
    weight = loss_weight(config, COSINE, some_t(0, 999), torch.zeros(2))
    assert weight.tolist() == pytest.approx([clean, noisy], abs=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"timesteps": 0}, {"prediction": "score"}, {"min_snr_gamma": 0}, {"gamma": 5}, {"schedule": "sqrt"}]
)
def test_wrong_configs_are_one_line_errors(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DiffusionConfig.parse(wrong)


def test_a_config_makes_its_schedule():
    schedule = DiffusionConfig(schedule="linear", timesteps=50).noise_schedule()
    torch.testing.assert_close(schedule.betas, linear(50).betas)
