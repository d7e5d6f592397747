"""Guidance and thresholds."""

import pytest
import torch
from torch import Tensor

from unclip.diffusion.guidance import (
    GuidanceConfig,
    classifier_free,
    clip,
    dynamic_threshold,
    guided,
    interval_of_sigmas,
    rescale,
)
from unclip.diffusion.process import Prediction, to_eps, to_x0
from unclip.diffusion.schedule import cosine
from unclip.errors import ConfigError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


COND = Prediction(draw(2, 3, 4, 4), variance_v=draw(2, 3, 4, 4, seed=1))
UNCOND = Prediction(draw(2, 3, 4, 4, seed=2), variance_v=draw(2, 3, 4, 4, seed=3))


def test_guidance_goes_from_unconditional_through_conditional_and_on():
    torch.testing.assert_close(classifier_free(COND, UNCOND, 0.0).x0, UNCOND.x0)
    torch.testing.assert_close(classifier_free(COND, UNCOND, 1.0).x0, COND.x0)
    torch.testing.assert_close(classifier_free(COND, UNCOND, 4.0).x0, 4 * COND.x0 - 3 * UNCOND.x0)


def test_the_variance_is_the_conditional_one():
    assert classifier_free(COND, UNCOND, 4.0).variance_v is COND.variance_v


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_guiding_x0_is_guiding_eps_and_v(prediction):
    schedule, t, x_t = cosine(), torch.tensor([100, 800]), draw(2, 3, 4, 4, seed=4)
    cond, uncond = draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=2)
    in_own_space = to_x0(schedule, prediction, uncond + 3.0 * (cond - uncond), x_t, t)
    branches = (Prediction(to_x0(schedule, prediction, output, x_t, t)) for output in (cond, uncond))
    in_x0 = classifier_free(*branches, 3.0).x0
    torch.testing.assert_close(in_x0, in_own_space, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        to_eps(schedule, "x0", in_x0, x_t, t), to_eps(schedule, prediction, uncond + 3.0 * (cond - uncond), x_t, t)
    )


def test_every_row_can_have_its_own_scale():
    scale = torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    rows = classifier_free(COND, UNCOND, scale).x0
    torch.testing.assert_close(rows[0], COND.x0[0])
    torch.testing.assert_close(rows[1], classifier_free(COND, UNCOND, 5.0).x0[1])


@pytest.mark.parametrize(("phi", "spread_of"), [(0.0, "guided"), (1.0, "conditional")])
def test_rescaling_moves_the_spread_to_the_conditional_one(phi, spread_of):
    answer = classifier_free(COND, UNCOND, 8.0)
    expected = {"guided": answer, "conditional": COND}[spread_of].x0.flatten(1).std(1)
    torch.testing.assert_close(rescale(answer, COND, phi).x0.flatten(1).std(1), expected)


def test_rescaling_in_part_is_between():
    answer = classifier_free(COND, UNCOND, 8.0)
    parts = [rescale(answer, COND, phi).x0 for phi in (0.0, 0.7, 1.0)]
    torch.testing.assert_close(parts[1], 0.3 * parts[0] + 0.7 * parts[2])


# Thresholds


def test_static_clamps_and_none_does_not():
    wild = Prediction(3 * draw(2, 3, 4, 4), variance_v=COND.variance_v)
    clipped = clip(wild, GuidanceConfig(threshold="static"))
    torch.testing.assert_close(clipped.x0, wild.x0.clamp(-1, 1))
    assert clipped.variance_v is COND.variance_v
    assert clip(wild, GuidanceConfig(threshold="none")) is wild


def test_static_takes_the_bound_of_embeddings():
    wild = Prediction(10 * draw(2, 50))
    assert clip(wild, GuidanceConfig(threshold="static", bound=5.0)).x0.abs().max() == 5.0


def test_dynamic_agrees_with_imagens_formula():
    x0 = 2 * draw(3, 3, 8, 25)  # 600 numbers a row, of which rank 1 + 0.995 * 599 is nearest to the 597th
    limit = x0.flatten(1).abs().sort(dim=1).values[:, 596].view(3, 1, 1, 1)
    expected = torch.stack([row.clamp(-float(s), float(s)) / s for row, s in zip(x0, limit, strict=True)])
    torch.testing.assert_close(dynamic_threshold(x0), expected)


@pytest.mark.parametrize("percentile", [0.5, 0.9, 1.0])
def test_the_percentile_is_torchs_quantile_where_that_is_a_rank(percentile):
    x0 = 5 * draw(4, 11)
    limit = torch.quantile(x0.abs(), percentile, dim=1).clamp(min=1).view(-1, 1)
    torch.testing.assert_close(dynamic_threshold(x0, percentile), x0.clamp(-limit, limit) / limit)


def test_dynamic_is_static_while_the_percentile_is_within_bounds():
    x0 = 0.1 * draw(2, 3, 8, 8)
    x0[0, 0, 0, 0] = 4.0
    torch.testing.assert_close(dynamic_threshold(x0), x0.clamp(-1, 1))


def test_dynamic_treats_rows_apart_and_scales_to_the_bound():
    x0 = torch.stack([0.2 * draw(400), 30 * draw(400)])
    thresholded = dynamic_threshold(x0, bound=2.0)
    torch.testing.assert_close(thresholded[0], x0[0])
    assert thresholded[1].abs().max().item() == pytest.approx(2.0)


# All of it around a prediction


def ask(config: GuidanceConfig, t: int, T: int = 1000) -> tuple[Prediction, list[str]]:
    asked: list[str] = []

    def conditional(x: Tensor, t: int) -> Prediction:
        asked.append("conditional")
        return COND

    def both(x: Tensor, t: int) -> tuple[Prediction, Prediction]:
        asked.append("both")
        return COND, UNCOND

    return guided(conditional, both, config, T)(torch.zeros(2, 3, 4, 4), t), asked


def test_scale_1_asks_the_conditional_branch_alone():
    answer, asked = ask(GuidanceConfig(scale=1.0, threshold="none"), 500)
    assert asked == ["conditional"]
    assert answer is COND


def test_guided_guides_then_rescales_then_thresholds():
    config = GuidanceConfig(scale=4.0, rescale=0.7, threshold="static")
    answer, asked = ask(config, 500)
    assert asked == ["both"]
    expected = rescale(classifier_free(COND, UNCOND, 4.0), COND, 0.7).x0.clamp(-1, 1)
    torch.testing.assert_close(answer.x0, expected)


@pytest.mark.parametrize(
    ("t", "expected"), [(0, 1.0), (99, 1.0), (100, 3.0), (500, 3.0), (800, 3.0), (801, 1.0), (1000, 1.0)]
)
def test_outside_the_interval_nothing_is_guided(t, expected):
    config = GuidanceConfig(scale=3.0, interval=(0.1, 0.8))
    assert config.scale_at(t, 1001) == expected
    assert ask(config, t, 1001)[1] == (["both"] if expected == 3.0 else ["conditional"])


def test_an_interval_can_be_given_in_sigmas():
    schedule = cosine()
    config = GuidanceConfig(scale=2.0, interval=interval_of_sigmas(schedule, 0.28, 2.9))
    guided_at = [t for t in range(1000) if config.scale_at(t, 1000) == 2.0]
    assert guided_at == [t for t in range(1000) if 0.28 < schedule.sigmas[t] <= 2.9]


def test_an_interval_without_timesteps_is_an_error():
    with pytest.raises(ConfigError, match="sigma"):
        interval_of_sigmas(cosine(), 1e6, 1e7)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", -1),
        ("interval", (0.8, 0.1)),
        ("interval", (0, 2)),
        ("rescale", 1.5),
        ("percentile", 0),
        ("bound", 0),
        ("threshold", "soft"),
        ("cfg", 3),
    ],
)
def test_wrong_guidance_is_a_one_line_error(key, value):
    with pytest.raises(ConfigError, match=key) as error:
        GuidanceConfig.parse({key: value})
    assert "\n" not in str(error.value)
