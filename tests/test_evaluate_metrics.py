"""The figures against closed forms and against plain loops; the intervals against repeated draws."""

import math

import numpy as np
import pytest

from unclip.evaluate.metrics import (
    credit,
    distribution_figures,
    frechet_distance,
    mean_figure,
    mmd,
    narrow_sigma,
    neighbourhood,
    ratio_figure,
)


def gaussian(rng: np.random.Generator, n: int, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """n points whose sample mean and covariance are exactly `mean` and root @ root.T."""
    x = rng.standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return mean + whitened @ root.T


def test_frechet_distance_of_commuting_gaussians():
    rng = np.random.default_rng(0)
    mean, a, b = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 0.1]), np.array([3.0, 0.5, 0.1])
    x, y = gaussian(rng, 40, mean, np.diag(a)), gaussian(rng, 90, 0 * mean, np.diag(b))
    assert frechet_distance(x, y) == pytest.approx(mean @ mean + ((a - b) ** 2).sum(), rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_where_covariances_do_not_commute():
    rng = np.random.default_rng(1)
    x, y = (
        rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5)),
        rng.standard_normal((80, 5)) @ rng.standard_normal((5, 5)),
    )
    product = np.cov(x.T) @ np.cov(y.T)  # not symmetric: the other way to the same trace
    root_trace = np.sqrt(np.linalg.eigvals(product).real).sum()
    gap = x.mean(0) - y.mean(0)
    expected = gap @ gap + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * root_trace
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_with_fewer_points_than_dimensions():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((6, 20)), rng.standard_normal((9, 20))
    singular_values = np.linalg.svd((x - x.mean(0)) @ (y - y.mean(0)).T, compute_uv=False).sum() / math.sqrt(5 * 8)
    gap = x.mean(0) - y.mean(0)
    expected = gap @ gap + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * singular_values
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_mmd_is_the_unbiased_sum_over_pairs():
    rng = np.random.default_rng(3)
    x, y, sigma = rng.standard_normal((5, 3)), rng.standard_normal((7, 3)) + 1, 0.8

    def mean_kernel(a, b, skip):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip and i == j)]
        return np.mean([math.exp(-np.sum((a[i] - b[j]) ** 2) / (2 * sigma**2)) for i, j in pairs])

    expected = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    assert mmd(x, y, sigma) == pytest.approx(expected, rel=1e-12)


def test_mmd_of_two_gaussians_and_of_one():
    rng = np.random.default_rng(4)
    sigma, shift = 1.0, 1.5
    same, apart = [], []
    for _ in range(100):
        x, y = rng.standard_normal((2, 300, 1))
        same.append(mmd(x, y, sigma))
        apart.append(mmd(x, y + shift, sigma))
    closed = 2 * sigma / math.sqrt(sigma**2 + 2) * (1 - math.exp(-(shift**2) / (2 * (sigma**2 + 2))))
    assert np.mean(same) == pytest.approx(0, abs=0.002)
    assert np.mean(apart) == pytest.approx(closed, rel=0.03)


def test_mmd_sees_variety_lost_where_the_mean_stays():
    rng = np.random.default_rng(5)
    real = rng.standard_normal((200, 8))
    poor = np.repeat(real[:5] - real[:5].mean(0), 40, axis=0) + real.mean(0)
    honest = rng.standard_normal((200, 8))
    seen = mmd(poor, real, narrow_sigma(real))
    assert seen > 10 * abs(mmd(honest, real, narrow_sigma(real)))
    assert seen > 10 * abs(mmd(poor, real, 10 * narrow_sigma(real)))


def test_sigma_is_half_of_the_median_distance():
    assert narrow_sigma(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(1)


def test_pictures_among_the_renders_are_precise_and_those_far_away_are_not():
    real = np.arange(20.0)[:, None]
    near = neighbourhood(real + 0.1, real)
    assert all(near[name].mean() == 1 for name in ("precision", "recall", "coverage"))
    far = neighbourhood(real + 1000, real)
    assert all(values.sum() == 0 for values in far.values())


def test_pictures_all_alike_are_precise_and_recall_nothing():
    real = np.arange(20.0)[:, None]
    alike = neighbourhood(np.full((20, 1), 10.2), real)
    assert alike["precision"].mean() == 1
    assert alike["recall"].mean() == 0
    # The fifth neighbour on the line is 3 away (4 and 5 for the two at either end): 8 .. 13 reach 10.2.
    assert alike["coverage"].sum() == 6
    assert alike["density"].mean() == pytest.approx(6 / 5)


def test_credit_shares_among_the_tied():
    others = np.array([0.9, 0.5, 0.5, 0.1])
    assert credit(1.0, others) == 1
    assert credit(0.6, others) == 0
    assert credit(0.9, others) == 0.5
    assert credit(0.5, others, k=2) == pytest.approx(1 / 3)
    assert credit(0.5, others, k=4) == 1
    assert credit(0.0, np.zeros(99)) == pytest.approx(0.01)
    assert credit(0.0, np.zeros(99), k=5) == pytest.approx(0.05)


def test_intervals_of_a_mean_cover_it_as_often_as_they_say():
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(300):
        figure = mean_figure(rng.random(60) < 0.4, resamples=1000)
        assert figure.low <= figure.value <= figure.high
        held += figure.low <= 0.4 <= figure.high
    assert 0.90 <= held / 300 <= 0.98


def test_a_ratio_is_of_means_and_its_interval_knows_that_they_are_paired():
    assert ratio_figure(np.array([1.0, 10.0]), np.array([2.0, 5.0]), resamples=10).value == 11 / 7
    rng = np.random.default_rng(8)
    under = rng.uniform(0.1, 2, 50)
    assert ratio_figure(0.5 * under, under, resamples=100) == pytest.approx((0.5, 0.5, 0.5))
    held = 0
    for _ in range(200):
        under = rng.uniform(0.1, 2, 50)
        figure = ratio_figure(under * rng.uniform(0.2, 0.8, 50), under, resamples=400)
        held += figure.low <= 0.5 <= figure.high
    assert 0.88 <= held / 200 <= 0.99


def test_real_renders_against_each_other_are_the_floor_and_shifted_ones_are_above_it():
    rng = np.random.default_rng(7)
    real = rng.standard_normal((120, 6))
    floor = distribution_figures(real, real, resamples=200)
    assert floor["frechet"].value == pytest.approx(frechet_distance(real[::2], real[1::2]))
    shifted = distribution_figures(real + 1, real, resamples=200)
    for name in ("frechet", "mmd"):
        assert floor[name].low < floor[name].value < floor[name].high < shifted[name].low
    assert shifted["precision"].high < floor["precision"].low
    assert shifted == distribution_figures(real + 1, real, resamples=200)


def test_the_interval_of_a_frechet_distance_holds_what_other_draws_give():
    rng = np.random.default_rng(8)

    def draw():
        return rng.standard_normal((100, 4)) + 1, rng.standard_normal((100, 4))

    others = np.mean([distribution_figures(*draw(), resamples=1)["frechet"].value for _ in range(50)])
    held = 0
    for _ in range(20):
        figure = distribution_figures(*draw(), resamples=100)["frechet"]
        held += figure.low <= others <= figure.high
    assert held >= 16
