"""LAION's prior: equal to DALLE2-pytorch, version by version, and its checkpoints read with nothing lost or left over."""

import math
from pathlib import Path

import pytest
import torch
from foreign_files import saved
from packaging.version import Version
from torch import Tensor

from unclip.diffusion import schedule as schedules
from unclip.diffusion.guidance import GuidanceConfig
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import ConfigError, WeightsError
from unclip.models.clip import Text
from unclip.models.laion_prior import SIZES, LaionPrior, LaionPriorConfig, rotary_frequencies
from unclip.rng import Rng
from unclip.stages import SamplingConfig, sample_prior
from unclip.weights import laion, store
from unclip.weights.foreign import Inert
from unclip.weights.rename import to_theirs

MICRO = SIZES["micro"]
GOLDEN = Path(__file__).parent / "golden" / "laion_prior.txt"
STEPS = 8  # timesteps, all of them sampled
# The config that each version's checkpoint must be found to have.
VERSIONS = {
    "0.15.4": {"nulls": "masked", "bias_gain": 1.0, "divided": "none", "context": 77},
    "0.19.6": {"nulls": "masked", "bias_gain": 1024.0, "divided": "all", "context": 77},
    "1.1.0": {},
    "1.15.6": {"nulls": "learned", "attention": "cosine", "bias_gain": 1.0},
    "1.15.6, other": {
        "nulls": "learned",
        "attention": "cosine",
        "bias_gain": 1.0,
        "timesteps": None,
        "normformer": False,
        "rotary": False,
        "norm_in": True,
        "layers": 3,
    },
}


def config(version: str) -> LaionPriorConfig:
    return MICRO.model_copy(update={"timesteps": STEPS, **VERSIONS[version]})


def drawn(version: str) -> dict[str, Tensor]:
    """A DiffusionPrior's state dict of that version, in its names, from one generator in the order of the names."""
    cfg = config(version)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = LaionPrior(cfg).state_dict()
    state = {}
    for name, like in sorted(to_theirs(laion.table(cfg, gamma=version == "0.15.4"), shapes).items()):
        noise = torch.randn(like.shape, generator=generator)
        state[name] = 1 + 0.2 * noise if name.endswith((".g", ".gamma")) else 0.3 * noise
    if version == "0.15.4":
        state |= {
            name.replace(".gamma", ".beta"): torch.zeros_like(state[name]) for name in state if name.endswith(".gamma")
        }
    if cfg.rotary:
        frequencies = {f"net.causal_transformer.layers.{i}.0.rotary_emb.freqs" for i in range(cfg.layers)}
        state |= dict.fromkeys(frequencies, rotary_frequencies(cfg.rotated))
    return state | {"noise_scheduler.betas": schedules.cosine(STEPS).betas.float()}


def inputs() -> tuple[Tensor, Tensor, Text]:
    generator = torch.Generator().manual_seed(1)
    z, pooled, states = (torch.randn(shape, generator=generator) for shape in ((3, 32), (3, 32), (3, 16, 32)))
    return z, torch.tensor([0, 3, 7]), Text(3 * pooled, states, torch.arange(16) < torch.tensor([[16], [5], [2]]))


def built(version: str, **changes) -> LaionPrior:
    published = laion.from_checkpoint(drawn(version), where="here")
    cfg = published.config.model_copy(update=changes)
    return store.build(lambda: LaionPrior(cfg), published.state, where="here").eval().requires_grad_(False)


def golden(case: str) -> Tensor:
    lines = [line.rpartition(":") for line in GOLDEN.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    return torch.tensor([[float(number) for number in numbers.split()] for name, _, numbers in lines if name == case])


def assert_golden(given: Tensor, case: str) -> None:
    """Equal to 1e-4 of the largest number."""
    expected = golden(case)
    torch.testing.assert_close(given[:, :8], expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_answers_as_that_version_did(version):
    z, t, text = inputs()
    assert_golden(built(version)(z, t, text), f"{version}, conditional")


@pytest.mark.parametrize("version", ["0.15.4", "0.19.6", "1.15.6", "1.15.6, other"])
def test_a_dropped_caption_answers_as_that_version_did(version):
    z, t, text = inputs()
    prior = built(version)
    assert_golden(prior(z, t, prior.null(text)), f"{version}, caption dropped")


def test_with_drop_z_guidance_is_theirs():
    z, t, text = inputs()
    prior = built("1.15.6", drop_z=True)
    conditional, null = prior(z, t, text), prior(z, t, prior.null(text))
    assert_golden(null, "1.15.6, caption and z dropped")
    assert_golden(null + 3 * (conditional - null), "1.15.6, cond_scale 3")


@pytest.mark.parametrize("scale", [1, 3])
def test_a_sampled_embedding_is_theirs(scale):
    text = inputs()[2]
    prior = built("1.15.6", drop_z=True)
    sampling = SamplingConfig(sampler="ddpm", steps=STEPS, guidance=GuidanceConfig(scale=scale, threshold="none"))
    diffusion = laion.from_checkpoint(drawn("1.15.6"), where="here").diffusion
    assert diffusion == DiffusionConfig(schedule="cosine", timesteps=STEPS, prediction="x0")
    z = sample_prior(prior, diffusion, sampling, text, prior.null(text), Rng([3, 4, 5]))  # pyright: ignore
    assert_golden(z, f"1.15.6, sampled, cond_scale {scale}")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dropped", [False, True])
def test_a_caption_that_was_read_before_gives_the_same_answer(version, dropped):
    z, t, text = inputs()
    prior = built(version)
    text = prior.null(text) if dropped else text
    torch.testing.assert_close(prior(z, t, text, prior.remember(text)), prior(z, t, text), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_padding_is_not_heard_and_a_shorter_caption_is_filled_up(version):
    z, t, text = inputs()
    text = text.select(slice(1, 3))
    prior, z, t = built(version), z[1:], t[1:]
    other = text._replace(states=torch.where(text.mask[..., None], text.states, 9.0))
    short = Text(text.pooled, text.states[:, :5], text.mask[:, :5])
    torch.testing.assert_close(prior(z, t, other), prior(z, t, text))
    torch.testing.assert_close(prior(z, t, short), prior(z, t, text))
    spoken = text._replace(states=text.states.flip(-1))
    assert (prior(z, t, spoken) - prior(z, t, text)).abs().max() > 1e-3


def test_the_unconditional_branch_keeps_z_unless_it_is_told_to_drop_it():
    z, t, text = inputs()
    for drop_z in (False, True):
        prior = built("1.15.6", drop_z=drop_z)
        null = prior.null(text)
        assert torch.equal(prior(z, t, null), prior(z.flip(0), t, null)) is drop_z
        assert not torch.equal(prior(z, t, text), prior(z.flip(0), t, text))


def test_the_empty_caption_stands_for_a_dropped_one_where_none_was_ever_dropped():
    text = inputs()[2]
    assert built("1.1.0").null(text) is text
    assert not built("1.15.6").null(text).mask.any()


def test_embeddings_have_unit_length_times_the_scale():
    z = inputs()[0]
    prior = built("1.1.0")
    torch.testing.assert_close(prior.standardise(z).norm(dim=-1), torch.full((3,), math.sqrt(32)))
    torch.testing.assert_close(prior.restore(prior.standardise(z)), torch.nn.functional.normalize(z, dim=-1))
    torch.testing.assert_close(prior.restore(7 * z), 7 * z / math.sqrt(32))
    torch.testing.assert_close(built("1.1.0", unit_z=True).restore(7 * z).norm(dim=-1), torch.ones(3))


def test_the_published_config_has_the_published_number_of_parameters():
    """Users of the published config count 101,894,016 that are trained, with learned nulls and a context of 256."""
    cfg = SIZES["published"].model_copy(update={"nulls": "learned", "context": 256})
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in LaionPrior(cfg).parameters()) == 101_894_016


@pytest.mark.parametrize(
    "changes", [{"head_width": 7}, {"timesteps": None, "embed": 33}, {"drop_z": True}, {"nulls": "zeros"}]
)
def test_shapes_that_cannot_be_are_refused(changes):
    with pytest.raises(ConfigError, match=r"^here: "):
        LaionPriorConfig.parse(MICRO.model_dump() | changes, where="here")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_checkpoint_tells_its_config_and_survives_the_way_there_and_back(version):
    state = drawn(version)
    published = laion.from_checkpoint({"model": state, "version": version.partition(",")[0]}, where="here")
    assert published.config == config(version)
    assert laion.from_checkpoint(state, where="here").config == published.config  # as likely as not said
    gamma = version == "0.15.4"
    back = to_theirs(laion.table(published.config, gamma=gamma), published.state)
    constants = {name for name in state if name.endswith((".freqs", ".beta", ".betas"))}
    assert back.keys() == state.keys() - constants
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_the_average_is_chosen_over_the_raw_weights():
    average, raw = drawn("1.1.0"), {name: tensor + 1 for name, tensor in drawn("1.1.0").items()}
    within = {f"ema_model.{name}": tensor for name, tensor in average.items()}
    within |= {f"online_model.{name}": tensor for name, tensor in raw.items()} | {"step": torch.tensor(3)}
    for checkpoint in ({"model": raw, "ema_model": average}, {"model": raw, "ema": within}, {"model": average}, average):
        assert torch.equal(laion.from_checkpoint(checkpoint, where="here").state["query"], average["net.learned_query"])


def test_what_stands_beside_the_network_is_left_out():
    beside = {"clip.clip.visual.proj": torch.ones(2), "_dummy": torch.ones(1)}
    beside |= {f"noise_scheduler.{name}": torch.ones(STEPS) for name in ("sqrt_recipm1_alphas_cumprod", "p2_loss_weight")}
    beside |= {"noise_scheduler.posterior_mean_coef1": torch.ones(STEPS), "alphas_cumprod_prev": torch.ones(STEPS)}
    state = drawn("1.15.6")
    assert (
        laion.from_checkpoint(state | beside, where="here").state.keys()
        == laion.from_checkpoint(state, where="here").state.keys()
    )


def test_the_version_decides_what_the_tensors_do_not_show():
    state = drawn("1.1.0")
    revived = Inert("packaging.version.Version")
    revived.state = {"_key": (0, (1, 4, 3), Inert("packaging._structures.InfinityType"))}
    for said in ({"version": "1.8.4"}, {"version": revived}):
        cfg = laion.from_checkpoint({"model": state, **said}, where="here").config
        assert (cfg.attention, cfg.bias_gain, cfg.divided) == ("cosine", 1.0, "last")
    for version, expected in (("0.23.1", ("dot", 1024.0, "all")), ("1.4.2", ("dot", 128.0, "last"))):
        cfg = laion.from_checkpoint({"model": state, "version": "1.8.4"}, where="here", version=version).config
        assert (cfg.attention, cfg.bias_gain, cfg.divided) == expected


def test_settings_say_what_the_tensors_do_not(tmp_path):
    state = drawn("1.15.6")
    del state["noise_scheduler.betas"]
    prior = {"image_embed_scale": 2.5, "sampling_final_clamp_l2norm": True, "beta_schedule": "linear", "timesteps": 50}
    settings = {"prior": prior | {"predict_x_start": False, "net": {"self_cond": False}}}
    for published in (
        laion.from_checkpoint({"model": state, "config": settings}, where="here"),
        laion.from_checkpoint({"model": state, "config": {"prior": {"timesteps": 9}}}, where="here", settings=settings),
    ):
        assert (published.config.z_scale, published.config.unit_z) == (2.5, True)
        assert published.diffusion == DiffusionConfig(schedule="linear", timesteps=50, prediction="eps")
    assert laion.from_checkpoint(state, where="here").diffusion == DiffusionConfig(timesteps=1000, prediction="x0")


def changed(**changes) -> dict[str, Tensor]:
    """A checkpoint's state dict with tensors put in, or, being None, left out; dots are written as two underscores."""
    state = drawn("1.15.6") | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


BLOCK = "net__causal_transformer__layers__1__0__"


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (
            changed(**{BLOCK + "to_kv__weight": None}),
            r"the tensor net\.causal_transformer\.layers\.1\.0\.to_kv\.weight is missing",
        ),
        (changed(net__causal_transformer__layers__0__0__null_kv=None), r"layers\.0\.0\.null_kv is missing"),
        (changed(net__to_text_embeds__0__weight=torch.ones(2)), r"net\.to_text_embeds\.0\.weight has no place"),
        (
            changed(**{BLOCK + "to_q__weight": torch.ones(32, 33)}),
            r"to_q\.weight is float32 \(32, 33\), .* float32 \(32, 32\)",
        ),
        (
            changed(net__null_text_encodings=torch.ones(16, 32)),
            r"null_text_encodings is of shape \(16, 32\), expected 3 dim",
        ),
        (changed(**{BLOCK + "rotary_emb__freqs": torch.ones(4)}), r"layers\.1\.0\.rotary_emb\.freqs is not the constant"),
        (changed(net__causal_transformer__norm__beta=torch.ones(32)), r"norm\.beta is not the constant"),
        (
            changed(noise_scheduler__betas=torch.full((8,), 0.1)),
            r"noise schedule is none of ours: expected cosine or linear",
        ),
        ({"model": {"x": torch.ones(1)}}, r"has no net\.learned_query: expected a checkpoint of DALLE2-pytorch's"),
        ([1], "holds a list: expected a checkpoint"),
        ({"model": changed(), "config": {"prior": {"net": {"self_cond": True}}}}, "net.self_cond is True, expected False"),
        ({"model": changed(), "config": {"prior": {"sampling_clamp_l2norm": True}}}, "sampling_clamp_l2norm is True"),
        ({"model": changed(), "config": {"prior": {"image_embed_scale": -1.0}}}, r"z_scale = -1\.0: .*greater than 0"),
    ],
)
def test_what_does_not_fit_is_named_on_one_line(checkpoint, message):
    with pytest.raises(WeightsError, match=message) as caught:
        laion.from_checkpoint(checkpoint, where="here")
    assert str(caught.value).startswith("here")
    assert "\n" not in str(caught.value)


def test_a_trainers_checkpoint_is_read_from_its_file(tmp_path):
    state, held = drawn("1.1.0"), torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(held.parameters())
    held(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "model": {name: tensor + 1 for name, tensor in state.items()},
        "ema_model": state,
        "step": torch.tensor([3]),
    }
    checkpoint |= {"version": Version("1.8.4"), "warmup_scheduler": optimizer, "optimizer": optimizer.state_dict()}
    published = laion.read_prior(saved(tmp_path / "prior.pth", checkpoint))
    assert published.config.attention == "cosine"
    assert torch.equal(published.state["query"], state["net.learned_query"])

    settings = tmp_path / "prior_config.json"
    settings.write_text('{"prior": {"image_embed_scale": 2.5, "net": {"dim": 32}}, "train": {}}', encoding="utf-8")
    assert laion.read_prior(tmp_path / "prior.pth", settings=settings, version="1.1.0").config.z_scale == 2.5
    settings.write_text('{"decoder": {}}', encoding="utf-8")
    with pytest.raises(WeightsError, match=r"prior_config\.json has no group prior"):
        laion.read_prior(tmp_path / "prior.pth", settings=settings)
