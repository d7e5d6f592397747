"""The diffusion prior: causal, blind to padding, in a standardised space that it carries with it."""

import pytest
import torch
from conftest import scrambled

from unclip.errors import ConfigError
from unclip.models.clip import Text
from unclip.models.prior import SIZES, Prior, PriorConfig

MICRO = SIZES["micro"]


@pytest.fixture(scope="module")
def prior() -> Prior:
    torch.manual_seed(0)
    model = Prior(MICRO)
    model.set_statistics(torch.linspace(-3, 3, 32), torch.linspace(0.1, 5, 32))
    return scrambled(model, 0, std=0.1)


def inputs(length: int = 16):
    torch.manual_seed(1)
    text = Text(torch.randn(3, 32), torch.randn(3, length, 32), torch.ones(3, length, dtype=torch.bool))
    text.mask[0, 5:] = False
    text.mask[1, 2:] = False
    return torch.randn(3, 32), torch.tensor([0, 10, 900]), text


def test_without_statistics_everything_is_nan():
    model, z = Prior(MICRO), torch.randn(2, 32)
    assert model.standardise(z).isnan().all()
    assert model.restore(z).isnan().all()


def test_standardise_and_restore_are_inverses_and_the_statistics_are_weights(prior):
    torch.manual_seed(0)
    z = torch.randn(1000, 32) * prior.z_std + prior.z_mean
    standard = prior.standardise(z)
    torch.testing.assert_close(prior.restore(standard), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(standard.mean(0), torch.zeros(32), atol=0.15, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.ones(32), atol=0.15, rtol=0)
    other = Prior(MICRO)
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other.restore(z), prior.restore(z))


@pytest.mark.parametrize("part", ["z_t", "t", "pooled", "states"])
def test_every_input_is_heard(prior, part):
    z_t, t, text = inputs()
    before = prior(z_t, t, text)
    given = {"z_t": z_t, "t": t, "pooled": text.pooled, "states": text.states}
    given[part] = given[part].roll(1, 0)
    after = prior(given["z_t"], given["t"], Text(given["pooled"], given["states"], text.mask))
    assert (after - before).abs().amax(dim=1).min() > 1e-4
    assert before.shape == (3, 32)


def test_no_position_hears_a_later_one(prior):
    """Gradients of each place behind the first block with respect to the inputs: none from behind."""
    z_t, t, text = inputs()
    text = text._replace(mask=torch.ones_like(text.mask), states=text.states.requires_grad_())
    outputs = []
    handle = prior.transformer.blocks[0].register_forward_hook(lambda module, given, output: outputs.append(output))
    prior(z_t, t, text)
    handle.remove()
    for place in (0, 7, 15):
        (gradient,) = torch.autograd.grad(outputs[0][:, place].sum(), text.states, retain_graph=True)
        assert not gradient[:, place + 1 :].any()
        assert gradient[:, : place + 1].abs().amax(dim=2).min() > 0


def test_padding_changes_nothing(prior):
    z_t, t, text = inputs()
    before = prior(z_t, t, text)
    states = torch.where(text.mask[..., None], text.states, 1e3)
    torch.testing.assert_close(prior(z_t, t, text._replace(states=states)), before)


def test_a_short_caption_is_as_a_fully_padded_one(prior):
    """Training cuts the columns that are padding in the whole batch: what follows keeps its learned positions."""
    z_t, t, text = inputs(5)
    padding = torch.zeros(3, 11, dtype=torch.bool)
    padded = Text(text.pooled, torch.cat([text.states, torch.randn(3, 11, 32)], 1), torch.cat([text.mask, padding], 1))
    torch.testing.assert_close(prior(z_t, t, text), prior(z_t, t, padded), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_a_caption_that_is_all_padding_gives_numbers(prior, training):
    z_t, t, text = inputs()
    text = text._replace(mask=torch.zeros_like(text.mask))
    with torch.set_grad_enabled(training):
        assert prior(z_t.clone().requires_grad_(), t, text).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 3}, "3 heads must divide it"),
        ({"width": 33, "heads": 3}, "width 33 must be even"),
        ({"layers": 0}, "layers = 0"),
        ({"depth": 2}, "unknown key depth"),
    ],
    ids=["heads", "odd", "layers", "key"],
)
def test_impossible_shapes_are_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        PriorConfig.parse(MICRO.model_dump() | changes)
    assert "\n" not in str(error.value)
