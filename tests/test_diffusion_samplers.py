"""Samplers where the answer is known: exact denoisers of four points and of a Gaussian stand in for a trained network."""

import math

import pytest
import torch
from torch import Tensor

from unclip.diffusion.process import Prediction
from unclip.diffusion.samplers import (
    Predict,
    Step,
    analytic_dpm,
    analytic_variance,
    ddim,
    ddim_inversion,
    ddpm,
    dpm_solver_pp_2m,
    drive,
    measure_x0_error,
    spread_x0_error,
)
from unclip.diffusion.schedule import Schedule, cosine, linear, make, respace
from unclip.rng import Rng

POINTS = torch.tensor([[0.9, 0.9], [-0.9, 0.9], [0.9, -0.9], [-0.9, -0.9]])
SPREAD = 0.5  # standard deviation of the Gaussian data


def four_points(schedule: Schedule) -> Predict:
    """The exact E[x_0 | x_t] of data that is one of POINTS."""

    def predict(x: Tensor, t: int) -> Prediction:
        signal, noise = float(schedule.signal[t]), float(schedule.noise[t])
        distance = torch.cdist(x.flatten(1).double(), signal * POINTS.double()).square()
        weights = (-distance / (2 * noise**2)).softmax(1)
        x0 = (weights @ POINTS.double()).float().view_as(x)
        return Prediction(x0, variance_v=torch.zeros_like(x))

    return predict


def gaussian(schedule: Schedule) -> Predict:
    """The exact E[x_0 | x_t] of data N(0, SPREAD^2)."""

    def predict(x: Tensor, t: int) -> Prediction:
        return Prediction(gain(schedule, t) * x, variance_v=torch.zeros_like(x))

    return predict


def gain(schedule: Schedule, t: int) -> float:
    alpha_bar = float(schedule.alpha_bar[t])
    return math.sqrt(alpha_bar) * SPREAD**2 / (alpha_bar * SPREAD**2 + 1 - alpha_bar)


def samplers(schedule: Schedule, x: Tensor, seeds: range):
    """One of each kind, by name."""
    error = torch.full((1000,), 0.05, dtype=torch.float64)
    return {
        "ddpm small": ddpm(schedule, x, rng=Rng(seeds)),
        "ddpm large": ddpm(schedule, x, rng=Rng(seeds), variance="large"),
        "ddpm learned": ddpm(schedule, x, rng=Rng(seeds), variance="learned"),
        "ddim": ddim(schedule, x, rng=Rng(seeds)),
        "ddim eta 1": ddim(schedule, x, rng=Rng(seeds), eta=1.0),
        "dpm solver": dpm_solver_pp_2m(schedule, x),
        "analytic dpm": analytic_dpm(schedule, x, rng=Rng(seeds), x0_error=error),
    }


NAMES = list(samplers(cosine(2), torch.zeros(1, 2), range(1)))


# What every sampler does


@pytest.mark.parametrize("spec", [20, "even50", "ddim100", "fast27"])
@pytest.mark.parametrize("shape", [(2,), (1, 1, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_lands_on_the_points(name, shape, spec):
    schedule, seeds = cosine(), range(200)
    x = Rng(seeds, streams=(1,)).normal(shape)
    x0 = drive(samplers(respace(schedule, spec), x, seeds)[name], four_points(schedule))
    distance = torch.cdist(x0.flatten(1), POINTS)
    assert distance.min(1).values.max().item() < 0.02
    shares = distance.argmin(1).bincount(minlength=4) / len(x)
    assert shares.min().item() > 0.15


@pytest.mark.parametrize("steps", [1, 2, 25])
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_asks_once_a_step_from_noisy_to_clean(name, steps):
    schedule = respace(cosine(), steps)
    asked: list[int] = []

    def predict(x: Tensor, t: int) -> Prediction:
        asked.append(t)
        return four_points(cosine())(x, t)

    sampler = samplers(schedule, torch.zeros(3, 2), range(3))[name]
    drive(sampler, predict)
    assert asked == schedule.timesteps.flip(0).tolist()
    assert sampler.steps == steps


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_the_last_predicted_x0(name):
    steps: list[Step] = []
    sampler = samplers(respace(cosine(), 10), torch.ones(3, 2), range(3))[name]
    x0 = drive(sampler, four_points(cosine()), on_step=steps.append)
    torch.testing.assert_close(x0, steps[-1].x0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name):
    schedule, x = respace(linear(), 12), Rng(range(4), streams=(1,)).normal((2,))
    together = drive(samplers(schedule, x, range(4))[name], gaussian(linear()))
    alone = [drive(samplers(schedule, x[i : i + 1], range(i, i + 1))[name], gaussian(linear())) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_fp32_from_half_precision_noise(name):
    sampler = samplers(respace(cosine(), 3), torch.zeros(2, 2, dtype=torch.bfloat16), range(2))[name]
    assert next(sampler)[0].dtype == torch.float32


# The driver


def test_steps_are_told_in_order_with_previews():
    steps: list[Step] = []
    drive(dpm_solver_pp_2m(respace(cosine(), 5), torch.ones(1, 2)), gaussian(cosine()), on_step=steps.append)
    assert [(step.index, step.total) for step in steps] == [(i, 5) for i in range(5)]
    torch.testing.assert_close(steps[0].x, torch.ones(1, 2))
    torch.testing.assert_close(steps[0].x0, gaussian(cosine())(steps[0].x, 999).x0)


def test_raising_in_on_step_cancels():
    asked: list[int] = []

    def predict(x: Tensor, t: int) -> Prediction:
        asked.append(t)
        return Prediction(x)

    def cancel(step: Step) -> None:
        if step.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(dpm_solver_pp_2m(respace(cosine(), 10), torch.ones(1, 2)), predict, on_step=cancel)
    assert len(asked) == 3


def test_samplers_of_several_lengths_can_be_answered_in_turns():
    """What a server does: two requests at different timesteps, interleaved, each as if alone."""
    predict, x = gaussian(cosine()), torch.ones(1, 2)
    alone = [drive(dpm_solver_pp_2m(respace(cosine(), steps), x), predict) for steps in (3, 8)]
    open_requests = {i: dpm_solver_pp_2m(respace(cosine(), steps), x) for i, steps in enumerate((3, 8))}
    questions, done = {i: next(sampler) for i, sampler in open_requests.items()}, {}
    while questions:
        for i, question in list(questions.items()):
            try:
                questions[i] = open_requests[i].send(predict(*question))
            except StopIteration as end:
                done[i] = end.value
                del questions[i]
    assert torch.equal(done[0], alone[0])
    assert torch.equal(done[1], alone[1])


# Accuracy against the Gaussian's closed form: the probability flow only scales x


def flow_error(sampler_of, steps: int) -> float:
    schedule, x = cosine(), torch.ones(1, 2)
    exact = SPREAD / math.sqrt(float(schedule.alpha_bar[-1]) * SPREAD**2 + float(schedule.noise[-1]) ** 2)
    return (drive(sampler_of(respace(schedule, steps), x), gaussian(schedule)) - exact).abs().max().item()


def test_ddim_converges_to_the_flow():
    assert flow_error(lambda schedule, x: ddim(schedule, x, rng=Rng([0])), 1000) < 2e-3


@pytest.mark.parametrize(("steps", "times"), [(10, 2.5), (20, 3), (50, 4)])
def test_dpm_solver_beats_ddim(steps, times):
    first_order = flow_error(lambda schedule, x: ddim(schedule, x, rng=Rng([0])), steps)
    assert flow_error(dpm_solver_pp_2m, steps) < first_order / times


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_many_steps_give_the_data_its_spread(eta):
    schedule, seeds = linear(), range(2)
    x = Rng(seeds, streams=(1,)).normal((5000,))
    x0 = drive(ddim(schedule, x, rng=Rng(seeds), eta=eta), gaussian(schedule))
    assert x0.std().item() == pytest.approx(SPREAD, rel=0.02)


def test_ddim_with_eta_1_is_ddpm():
    schedule, x = respace(cosine(), 20), Rng(range(3), streams=(1,)).normal((2,))
    ancestral = drive(ddpm(schedule, x, rng=Rng(range(3))), gaussian(cosine()))
    torch.testing.assert_close(drive(ddim(schedule, x, rng=Rng(range(3)), eta=1.0), gaussian(cosine())), ancestral)


# Inversion


def reconstruction_error(spec: str | int, refinements: int = 0) -> float:
    schedule, seeds = respace(cosine(), spec), range(50)
    predict = gaussian_mixture(cosine())
    x0 = POINTS[torch.arange(50) % 4] + 0.2 * Rng(seeds).normal((2,))
    x_T = drive(ddim_inversion(schedule, x0, refinements=refinements), predict)
    return (drive(ddim(schedule, x_T, rng=Rng(seeds)), predict) - x0).square().mean().sqrt().item()


def gaussian_mixture(schedule: Schedule, spread: float = 0.2) -> Predict:
    """The exact E[x_0 | x_t] of POINTS blurred by N(0, spread^2), whose flow can be run both ways."""

    def predict(x: Tensor, t: int) -> Prediction:
        alpha_bar = float(schedule.alpha_bar[t])
        variance = alpha_bar * spread**2 + 1 - alpha_bar
        offset = x[:, None] - math.sqrt(alpha_bar) * POINTS
        weights = (-offset.square().sum(-1) / (2 * variance)).softmax(1)
        x0 = POINTS + math.sqrt(alpha_bar) * spread**2 / variance * offset
        return Prediction((weights[..., None] * x0).sum(1))

    return predict


def test_ddim_comes_back_from_an_inversion():
    assert reconstruction_error("even250") < 0.03


def test_more_steps_reconstruct_better():
    assert reconstruction_error("even250") < reconstruction_error("even50") / 3


def test_a_refinement_reconstructs_better_than_the_same_price_in_steps():
    assert reconstruction_error("even50", refinements=1) < reconstruction_error("even100") / 2


def test_an_inversion_leaves_the_last_step_out():
    asked: list[int] = []

    def predict(x: Tensor, t: int) -> Prediction:
        asked.append(t)
        return Prediction(x)

    schedule = respace(cosine(), "even5")
    plain, refined = ddim_inversion(schedule, torch.ones(1, 2)), ddim_inversion(schedule, torch.ones(1, 2), refinements=1)
    drive(plain, predict)
    assert asked == schedule.timesteps[:-1].tolist()
    assert (plain.steps, refined.steps) == (4, 8)


def test_the_inversion_of_gaussian_data_is_about_normal():
    schedule, x0 = respace(linear(), "even200"), SPREAD * Rng(range(2)).normal((2000,))
    x_T = drive(ddim_inversion(schedule, x0), gaussian(linear()))
    assert x_T.std().item() == pytest.approx(1, rel=0.05)


def test_inverting_over_one_position_is_the_identity():
    assert torch.equal(drive(ddim_inversion(respace(cosine(), 1), torch.ones(1, 2)), gaussian(cosine())), torch.ones(1, 2))


# Analytic-DPM


def posterior_variance_of_data(schedule: Schedule) -> Tensor:
    """Var[x_0 | x_t] of the Gaussian data at each timestep."""
    return SPREAD**2 * (1 - schedule.alpha_bar) / (schedule.alpha_bar * SPREAD**2 + 1 - schedule.alpha_bar)


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [2, 5, 64, 1000])
def test_the_optimal_variance_keeps_every_marginal_of_gaussian_data(name, steps):
    """x_{t-1} = a x_t + noise has the variance of q(x_{t-1}) at any number of steps, which no fixed variance does."""
    schedule = make(name, 1000)
    short = respace(schedule, steps)
    variance = analytic_variance(short, posterior_variance_of_data(schedule))
    marginal = short.alpha_bar * SPREAD**2 + 1 - short.alpha_bar
    for i in range(1, steps):
        slope = float(short.posterior_x0[i]) * gain(schedule, int(short.timesteps[i])) + float(short.posterior_xt[i])
        assert slope**2 * float(marginal[i]) + float(variance[i]) == pytest.approx(float(marginal[i - 1]), rel=1e-9)


def test_it_is_the_papers_formula():
    """2201.06503 theorem 1 with DDPM's lambda^2 = beta_tilde and Gamma = E ||eps||^2 / d, where that is well conditioned."""
    schedule = linear()
    error = posterior_variance_of_data(schedule)
    alpha_bar, before, beta = schedule.alpha_bar, schedule.alpha_bar_prev, schedule.betas
    gamma = 1 - alpha_bar / (1 - alpha_bar) * error
    shift = ((1 - alpha_bar) / (1 - beta)).sqrt() - (1 - before - schedule.posterior_variance).sqrt()
    expected = schedule.posterior_variance + shift**2 * (1 - gamma)
    torch.testing.assert_close(analytic_variance(schedule, error), expected, rtol=1e-6, atol=0)


def test_no_error_leaves_the_small_variance_and_the_data_bounds_it():
    schedule = respace(cosine(), 64)
    none = analytic_variance(schedule, torch.zeros(1000))
    torch.testing.assert_close(none, schedule.posterior_variance)
    wild, bounded = (analytic_variance(schedule, torch.full((1000,), error)) for error in (1e6, 0.25))
    assert not torch.equal(wild, bounded)
    torch.testing.assert_close(analytic_variance(schedule, torch.full((1000,), 1e6), x0_variance=0.25), bounded)


def test_the_error_is_estimated_from_data():
    schedule, seeds = cosine(), range(8)
    knots = measure_x0_error(schedule, gaussian(schedule), SPREAD * Rng(seeds).normal((2000,)), rng=Rng(seeds, streams=(1,)))
    assert knots.shape == (50,)
    error = spread_x0_error(schedule, knots)
    assert error.shape == (1000,)
    torch.testing.assert_close(error, posterior_variance_of_data(schedule), rtol=0.15, atol=1e-3)


def test_few_analytic_steps_have_the_spread_that_ancestral_steps_lose():
    schedule, seeds = cosine(), range(4)
    x = Rng(seeds, streams=(1,)).normal((5000,))
    short = respace(schedule, "even5")
    error = posterior_variance_of_data(schedule)
    analytic = drive(analytic_dpm(short, x, rng=Rng(seeds), x0_error=error), gaussian(schedule))
    ancestral = drive(ddpm(short, x, rng=Rng(seeds)), gaussian(schedule))
    assert analytic.std().item() == pytest.approx(SPREAD, rel=0.03)
    assert ancestral.std().item() < 0.9 * SPREAD


def test_the_last_noise_can_be_bounded():
    """With final_noise = 0 the last noisy step adds nothing: seeds that differ only there agree."""
    schedule, x = respace(cosine(), 2), torch.ones(1, 2)
    error = torch.full((1000,), 0.5)
    quiet = [
        drive(analytic_dpm(schedule, x, rng=Rng([seed]), x0_error=error, final_noise=0.0), gaussian(cosine()))
        for seed in (0, 1)
    ]
    loud = [drive(analytic_dpm(schedule, x, rng=Rng([seed]), x0_error=error), gaussian(cosine())) for seed in (0, 1)]
    assert torch.equal(*quiet)
    assert not torch.equal(*loud)


def test_learned_variance_moves_between_small_and_large():
    """With the extremes of v, the learned variance is the fixed ones, noise for noise."""
    schedule, x = respace(cosine(), 10), torch.ones(2, 2)

    def say(v: float) -> Predict:
        return lambda x, t: Prediction(gain(cosine(), t) * x, variance_v=torch.full_like(x, v))

    for v, name in ((-1.0, "small"), (1.0, "large")):
        learned = drive(ddpm(schedule, x, rng=Rng([0, 1]), variance="learned"), say(v))
        fixed = drive(ddpm(schedule, x, rng=Rng([0, 1]), variance=name), gaussian(cosine()))  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(learned, fixed, rtol=1e-4, atol=1e-5)
