"""Noise schedules and respacing: published constants, identities, what cannot be asked for."""

import math

import pytest
import torch

from unclip.diffusion.schedule import cosine, evenly, linear, linspaced, make, respace, spacing, strided, trailing
from unclip.errors import ConfigError

FAST27 = [0, 22, 44, 66, 88, 111, 133, 155, 177, 199, 200, 222, 244, 266, 288]
FAST27 += [311, 333, 355, 377, 399, 400, 500, 599, 600, 799, 800, 997]


@pytest.mark.parametrize(("t", "value"), [(0, 0.99995872), (998, 2.43e-6), (999, 2.43e-9)])
def test_cosine_has_the_published_alpha_bar(t, value):
    assert cosine().alpha_bar[t].item() == pytest.approx(value, rel=2e-3 if t else 1e-8)


def test_cosine_caps_beta_and_starts_just_below_one_grey_level():
    schedule = cosine()
    assert schedule.betas[-1].item() == 0.999
    assert math.sqrt(schedule.betas[0]) < 1 / 127.5
    assert math.sqrt(schedule.betas[0]) == pytest.approx(1 / 127.5, rel=0.2)


def test_linear_has_the_published_ends():
    schedule = linear()
    assert schedule.betas[0].item() == pytest.approx(1e-4)
    assert schedule.betas[-1].item() == pytest.approx(0.02)


@pytest.mark.parametrize("T", [250, 4000])
def test_linear_ends_as_noisy_whatever_the_number_of_timesteps(T):
    assert linear(T).alpha_bar[-1].log().item() == pytest.approx(linear(1000).alpha_bar[-1].log().item(), rel=0.05)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_tables_are_fp64_and_consistent(name):
    schedule = make(name, 1000)
    assert schedule.betas.dtype == schedule.alpha_bar.dtype == torch.float64
    assert schedule.timesteps.tolist() == list(range(1000))
    torch.testing.assert_close(schedule.signal**2 + schedule.noise**2, torch.ones(1000, dtype=torch.float64))
    torch.testing.assert_close(schedule.sigmas, schedule.noise / schedule.signal)
    torch.testing.assert_close(schedule.alpha_bar, schedule.alpha_bar_prev * (1 - schedule.betas))


def test_posterior_agrees_with_bayes():
    """The product of the Gaussians q(x_t | x_{t-1}) and q(x_{t-1} | x_0), as precisions."""
    schedule = cosine()
    beta, before = schedule.betas[1:], schedule.alpha_bar_prev[1:]
    precision = (1 - beta) / beta + 1 / (1 - before)
    torch.testing.assert_close(schedule.posterior_variance[1:], 1 / precision, rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.posterior_x0[1:], before.sqrt() / (1 - before) / precision, rtol=1e-9, atol=0)
    torch.testing.assert_close(schedule.posterior_xt[1:], (1 - beta).sqrt() / beta / precision, rtol=1e-9, atol=0)


def test_log_variance_at_0_is_that_of_1():
    schedule = cosine()
    assert schedule.posterior_variance[0].item() == 0
    assert schedule.posterior_log_variance[0].item() == pytest.approx(-10.73, abs=0.01)
    assert schedule.posterior_log_variance[0] == schedule.posterior_log_variance[1] == schedule.posterior_variance[1].log()


def test_at_reads_an_int_in_fp64_and_a_batch_in_fp32():
    schedule, x = cosine(), torch.zeros(3, 2, 4, 4)
    t = torch.tensor([0, 500, 999])
    batch = schedule.at("alpha_bar", t, x)
    assert batch.shape == (3, 1, 1, 1)
    assert batch.dtype == torch.float32
    assert batch.flatten().tolist() == schedule.alpha_bar[t].float().tolist()
    assert schedule.at("alpha_bar", 999, x) == schedule.alpha_bar[999].item()


def test_unknown_or_empty_schedules_are_config_errors():
    with pytest.raises(ConfigError, match="quadratic"):
        make("quadratic", 1000)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="0 timesteps"):
        make("cosine", 0)


# Respacing


@pytest.mark.parametrize("spec", [1, 2, 50, "even250", "10,10,3,2,2", "karlo7", "ddim50", "fast27", "64"])
def test_respacing_keeps_alpha_bar_and_recomputes_beta(spec):
    schedule = cosine()
    short = respace(schedule, spec)
    kept = short.timesteps.tolist()
    assert kept == spacing(spec, 1000)
    torch.testing.assert_close(short.alpha_bar, schedule.alpha_bar[kept], rtol=0, atol=0)
    torch.testing.assert_close(torch.cumprod(1 - short.betas, 0), short.alpha_bar, rtol=1e-7, atol=0)


def test_respacing_to_all_timesteps_changes_nothing():
    schedule = cosine()
    torch.testing.assert_close(respace(schedule, 1000).betas, schedule.betas, rtol=1e-9, atol=0)


def test_respacing_twice_still_names_training_timesteps():
    once = respace(linear(), 100)
    assert respace(once, 10).timesteps.tolist() == respace(linear(), 10).timesteps.tolist()


def test_one_step_is_the_last_timestep_and_has_finite_tables():
    short = respace(cosine(), 1)
    assert short.timesteps.tolist() == [999]
    assert short.posterior_x0.item() == pytest.approx(1)
    assert short.posterior_log_variance == short.betas.log()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 15, 27, 50, 64, 250, 333, 1000])
@pytest.mark.parametrize("space", [trailing, evenly, linspaced])
def test_spacings_reach_the_last_timestep(space, n):
    kept = space(1000, n)
    assert kept[-1] == 999
    assert kept == sorted(set(kept))
    assert len(kept) == n


def test_karlo_rounds_half_to_even():
    assert spacing("karlo7", 1000) == [0, 166, 333, 500, 666, 832, 999]


def test_fast27_is_glides():
    assert spacing("fast27", 1000) == FAST27


def test_sections_are_improved_diffusions():
    kept = spacing("10,10,3,2,2", 1000)
    assert kept == [*FAST27[:-1], 999]
    assert [sum(low <= t < low + 200 for t in kept) for low in range(0, 1000, 200)] == [10, 10, 3, 2, 2]


def test_the_last_of_all_is_the_last_timestep_even_alone_in_its_section():
    assert spacing("2,1", 1000) == [0, 499, 999]


def test_ddim_strides_from_0():
    assert spacing("ddim50", 1000) == strided(1000, 50) == list(range(0, 1000, 20))


def test_trailing_counts_down_from_the_end():
    assert spacing("5", 1000) == spacing(5, 1000) == [199, 399, 599, 799, 999]


@pytest.mark.parametrize(
    "spec", ["", "fast", "even", "karlo", "50x", "-5", "0", 0, 1001, "ddim999", "600,1", "1,,2", "uniform9"]
)
def test_spacings_that_cannot_be_are_config_errors(spec):
    with pytest.raises(ConfigError):
        spacing(spec, 1000)


@pytest.mark.parametrize("kept", [[], [3, 2], [2, 2], [-1, 5], [5, 1000]])
def test_positions_that_cannot_be_kept_are_config_errors(kept):
    with pytest.raises(ConfigError, match="cannot keep"):
        respace(cosine(), kept)
