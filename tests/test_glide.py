"""GLIDE: the network against what the published code answered, its text transformer against torch's, the painter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import scrambled
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from unclip.errors import ConfigError, RequestError, WeightsError
from unclip.glide import GLIDE, GlideStage, sample_glide
from unclip.models.clip import Text
from unclip.models.glide import SIZES, Glide, GlideConfig
from unclip.models.glide_tokenizer import END, GlideTokenizer
from unclip.models.known import Known
from unclip.request import Options
from unclip.rng import Rng
from unclip.shelf import Shelf
from unclip.weights import glide as published
from unclip.weights.rename import to_theirs
from unclip.weights.source import ModelSource, PartSource

NAMES = ["base", "upsample", "base_inpaint", "upsample_inpaint"]
MICRO = SIZES["micro"]
LINES = [line.split() for line in Path(__file__).with_name("golden").joinpath("glide.txt").read_text().splitlines()]
GOLDEN = {(line[0], line[1]): torch.tensor([float(word) for word in line[2:]]) for line in LINES if line[0] != "#"}


def numbers(shape, seed: int) -> Tensor:
    """Normal noise that is the same in every version of every library."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def published_state(cfg: GlideConfig) -> dict[str, Tensor]:
    """Random weights under the published names, drawn in the names' alphabetical order."""
    with torch.device("meta"):
        shapes = {name: tuple(w.shape) for name, w in to_theirs(published.table(cfg), Glide(cfg).state_dict()).items()}
    rng, state = np.random.RandomState(0), {}
    for name, shape in sorted(shapes.items()):
        noise = rng.standard_normal(shape)
        fan_in = np.prod(shape[1:])
        weights = noise * fan_in**-0.5 if len(shape) > 1 else 0.1 * noise + name.endswith("weight")
        state[name] = torch.from_numpy(weights).float()
    return state


@pytest.fixture(scope="module")
def networks() -> dict[str, Glide]:
    made = {name: Glide(cfg).eval().requires_grad_(False) for name, cfg in MICRO.items()}
    for name, network in made.items():
        network.load_state_dict(published.convert(network.cfg, published_state(network.cfg), where=name))
    return made


def captions(cfg: GlideConfig) -> tuple[Tensor, Tensor]:
    """A caption of five tokens, an empty one, and one that fills the context."""
    context, end = cfg.text.context, cfg.text.vocab - 1
    ids = torch.from_numpy(np.random.RandomState(1).randint(0, end, (4, context)))[:3]
    mask = torch.arange(context)[None] < torch.tensor([[5], [0], [context]])
    return ids.where(mask, torch.tensor(end)), mask


def surroundings(cfg: GlideConfig) -> tuple[Tensor | None, Known | None]:
    """A small image and a known part, for the networks that take them."""
    side = cfg.unet.image_size
    low = numbers((3, 3, cfg.low, cfg.low), 3).clamp(-1, 1) if cfg.low else None
    known = Known(numbers((3, 3, side, side), 4).clamp(-1, 1), (numbers((3, 1, side, side), 5) > 0).float())
    return low, known if cfg.inpaint else None


class Draws(Rng):
    """Noise i is of seed 100 + i."""

    count = 0

    def normal(self, shape):
        self.count += 1
        return numbers((len(self), *shape), 99 + self.count)


def part(network: Glide, **sampling) -> PartSource:
    """A network as a bundle has it, sampled as the published one of its kind."""
    name = next(name for name in NAMES if MICRO[name] == network.cfg)
    values = published.values(name) | {"model": network.cfg.model_dump(mode="json")}
    values["sampling"] = {**values["sampling"], **sampling}
    return PartSource("glide", values, network.state_dict, where=name)


def stage_of(network: Glide, **sampling) -> GlideStage:
    source = ModelSource("tiny", "tiny", {"one": part(network, **sampling)}, letters)
    return GlideStage(Shelf(source, device=torch.device("cpu"), precision="fp32", offload=False), "one")


def paint(stage: GlideStage, rng: Rng, low: Tensor | None = None, known: Known | None = None, **rest) -> Tensor:
    ids, mask = captions(stage.module.cfg)
    null = stage.module.encode_text(ids[1:2], mask[1:2])
    text = stage.module.encode_text(ids, mask)
    return sample_glide(stage, stage.sampling, text, null, rng, low=low, known=known, **rest)


# The published code's answers


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_answers_are_the_published_codes(networks, name):
    network = networks[name]
    side = network.cfg.unet.image_size
    low, known = surroundings(network.cfg)
    text = network.encode_text(*captions(network.cfg))
    enlarged = None if low is None else network.enlarge(low)
    output = network(numbers((3, 3, side, side), 2), torch.tensor([0, 500, 999]), text, enlarged, known)
    assert output.shape == (3, 6, side, side)
    for part, answer in (("text", text.pooled), ("output", output)):
        points = answer.flatten()[:: answer.numel() // 8][:8]
        torch.testing.assert_close(points, GOLDEN[name, part], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_whole_pictures_are_the_published_codes(networks, name):
    few = {} if networks[name].cfg.low else {"steps": "even10"}
    picture = paint(stage_of(networks[name], **few), Draws(range(3)), *surroundings(networks[name].cfg))
    torch.testing.assert_close(picture.flatten().view(8, -1).mean(1), GOLDEN[name, "sample"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("base", 385_030_726), ("upsample", 398_361_286), ("base_inpaint", 385_037_638), ("upsample_inpaint", 398_368_198)],
)
def test_the_published_sizes_have_the_published_numbers_of_parameters(name, parameters):
    with torch.device("meta"):
        network = Glide(SIZES["published"][name])
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


# The network


def test_the_text_transformer_is_torchs_over_words_and_padding(networks):
    network = networks["base"]
    text, cfg = network.text, network.cfg.text
    ids, mask = captions(network.cfg)
    rows = []
    for caption, seen in zip(ids, mask, strict=True):
        places = range(cfg.context)
        words = [text.token.weight[caption[i]] + text.position[i] if seen[i] else text.padding[i] for i in places]
        rows.append(torch.stack(words))
    x = torch.stack(rows)
    for block in text.transformer.blocks:
        layer = nn.TransformerEncoderLayer(
            cfg.width, cfg.heads, 4 * cfg.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        own = block.state_dict()
        names = {"norm1": "norm_attention", "norm2": "norm_mlp", "linear1": "mlp.up", "linear2": "mlp.down"}
        names["self_attn.out_proj"] = "attention.out"
        state = {f"{to}.{kind}": own[f"{name}.{kind}"] for to, name in names.items() for kind in ("weight", "bias")}
        state |= {f"self_attn.in_proj_{kind}": own[f"attention.qkv.{kind}"] for kind in ("weight", "bias")}
        layer.load_state_dict(state)
        x = layer.eval()(x)
    states = torch.nn.functional.layer_norm(x, (cfg.width,), text.norm_out.weight, text.norm_out.bias)
    given = network.encode_text(ids, mask)
    torch.testing.assert_close(given.states, states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given.pooled, states[:, -1] @ text.project.weight.T + text.project.bias, rtol=1e-4, atol=1e-4)


def test_padding_hides_the_token_below_and_the_first_word_sees_the_last(networks):
    network = networks["base"]
    ids, mask = captions(network.cfg)
    given = network.encode_text(ids, mask)
    assert torch.equal(network.encode_text(ids.where(mask, torch.tensor(7)), mask).states, given.states)
    ids[2, -1] += 1
    assert (network.encode_text(ids, mask).states[2, 0] - given.states[2, 0]).abs().max() > 1e-3


def test_every_state_is_context_whatever_the_mask_says(networks):
    network = networks["base"]
    text = network.encode_text(*captions(network.cfg))
    x, t = numbers((3, 3, 16, 16), 2), torch.tensor([500] * 3)
    unmasked = Text(text.pooled, text.states, torch.ones_like(text.mask))
    assert torch.equal(network(x, t, unmasked), network(x, t, text))
    changed = text.states.clone()
    changed[1, -1] += 1  # padding of an empty caption
    assert (network(x, t, Text(text.pooled, changed, text.mask)) - network(x, t, text))[1].abs().max() > 1e-3


def test_a_small_image_is_made_bytes_and_enlarged_bilinearly(networks):
    network = networks["upsample"]
    ramp = torch.linspace(-1, 1, 256)[40:56].expand(1, 3, 16, 16)  # neighbours are one byte apart
    torch.testing.assert_close(network.enlarge(ramp + 0.4 / 127.5), network.enlarge(ramp), rtol=0, atol=0)
    row = network.enlarge(ramp)[0, 0, 5]
    assert row.shape == (32,)
    quarters = (torch.arange(40, 72) - 40) / 2 - 0.25 + 40  # of pixel centres, in bytes
    torch.testing.assert_close(row[1:-1], quarters[1:-1] / 127.5 - 1)


def test_nothing_known_is_a_mask_of_zeros_and_what_is_unknown_is_not_seen(networks):
    network = networks["base_inpaint"]
    text = network.encode_text(*captions(network.cfg))
    x, t = numbers((3, 3, 16, 16), 2), torch.tensor([500] * 3)
    image, mask = surroundings(network.cfg)[1]
    nothing = Known(image, torch.zeros_like(mask))
    assert torch.equal(network(x, t, text), network(x, t, text, known=nothing))
    other = Known(image + (1 - mask), mask)
    assert torch.equal(network(x, t, text, known=other), network(x, t, text, known=Known(image, mask)))
    assert not torch.equal(network(x, t, text, known=Known(image, mask)), network(x, t, text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inpaint": True}, "in_channels is 3, .* are 7"),
        ({"low": 8}, "are 6"),
        ({"text": {"width": 24}}, "context_width 48"),
    ],
)
def test_an_impossible_network_is_refused(change, message):
    values = MICRO["base"].model_dump()
    for key, value in change.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        GlideConfig.parse(values)


# The table


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_come_back_bit_for_bit(networks, name):
    state = published_state(MICRO[name])
    back = to_theirs(published.table(MICRO[name]), networks[name].state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("transformer.resblocks.1.attn.c_qkv.bias", None, "c_qkv.bias is missing"),
        ("padding_embedding", torch.zeros(11, 48), r"padding_embedding is float32 \(11, 48\), .* \(12, 48\)"),
        ("unemb.weight", torch.zeros(300, 48), "unemb.weight has no place"),
    ],
)
def test_what_does_not_fit_is_named(name, change, message):
    state = published_state(MICRO["base"])
    state.pop(name, None)
    if change is not None:
        state[name] = change
    with pytest.raises(WeightsError, match=f"^base.pt: .*{message}") as error:
        published.convert(MICRO["base"], state, where="base.pt")
    assert "\n" not in str(error.value)


def test_a_published_file_is_known_by_its_first_layer():
    with torch.device("meta"):
        for name, cfg in SIZES["published"].items():
            first = {"input_blocks.0.0.weight": torch.empty(192, cfg.unet.in_channels, 3, 3)}
            assert published.identify(first, where="a file") == name
        with pytest.raises(WeightsError, match=r"a file: .* \(32, 3, 3, 3\).*base_inpaint.pt"):
            published.identify({"input_blocks.0.0.weight": torch.empty(32, 3, 3, 3)}, where="a file")
    with pytest.raises(WeightsError, match="is missing"):
        published.identify({}, where="a file")


# Sampling and the painter


def test_what_is_known_is_kept_to_the_last_bit_and_the_rest_is_painted(networks):
    image, mask = surroundings(MICRO["base_inpaint"])[1]
    picture = paint(stage_of(networks["base_inpaint"], steps=3), Rng(range(3)), known=Known(image, mask))
    kept = mask.expand_as(image) > 0
    assert torch.equal(picture[kept], image[kept])
    assert (picture - image)[~kept].abs().mean() > 0.1


def test_the_temperature_scales_the_first_noise_alone(networks):
    states = {}
    for temperature in (1.0, 0.5):
        seen = states[temperature] = []
        stage = stage_of(networks["base"], steps=2, temperature=temperature)
        paint(stage, Draws(range(3)), on_step=lambda step, seen=seen: seen.append(step.x))
    torch.testing.assert_close(states[0.5][0], states[1.0][0] / 2)


def test_a_known_part_that_cannot_be_kept_is_refused(networks):
    known = surroundings(MICRO["base_inpaint"])[1]
    with pytest.raises(RequestError, match="fills no holes"):
        paint(stage_of(networks["base"], steps=1), Rng(range(3)), known=known)
    wrong = Known(known.image, known.mask[..., :8, :8])
    with pytest.raises(RequestError, match=r"are \(3, 3, 16, 16\) and \(3, 1, 8, 8\), expected"):
        paint(stage_of(networks["base_inpaint"], steps=1), Rng(range(3)), known=wrong)


def letters(context: int) -> GlideTokenizer:
    """As many tokens as the micro networks have: one for each byte, some that are never met, the end."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"unmet {i}" for i in range(43)), END]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return GlideTokenizer(core, context)


def glide(*parts: PartSource, context: int = 12, name: str = "tiny") -> GLIDE:
    source = ModelSource(name, name, {f"glide_{i}": part for i, part in enumerate(parts)}, lambda _: letters(context))
    return GLIDE(source, device=torch.device("cpu"), precision="fp32")


@pytest.fixture(scope="module")
def painter() -> GLIDE:
    made = {}
    for name in ("base", "upsample"):
        torch.manual_seed(0)
        made[name] = part(scrambled(Glide(MICRO[name]), 0), steps=2)
    return glide(made["base"], made["upsample"])


def pixels(image) -> bytes:
    return image.tobytes()


def test_an_image_depends_on_its_prompt_and_seed_alone(painter):
    batch = painter.generate(["a corgi", "oil"], n=2, seed=[5, 9])
    assert [image.size for image in batch] == [(32, 32)] * 4
    alone = painter.generate("oil", seed=10)[0]
    assert pixels(alone) == pixels(batch[3])
    assert len({pixels(image) for image in batch}) == 4
    assert batch[3].info["unclip"] == {"prompt": "oil", "seed": 10, "size": 32, "model": "tiny"}


def test_each_network_starts_from_noise_of_its_own(painter):
    states = []
    painter.generate("oil", progress=lambda stage, step: states.append(step.x.flatten()))
    base, upsampler = states[0], states[2] / painter.upsampler.sampling.temperature
    assert torch.corrcoef(torch.stack([base, upsampler[: len(base)]]))[0, 1].abs() < 0.2


def test_in_one_batch_images_differ_by_less_than_a_byte_or_two(painter):
    one, other = (painter.generate(["a corgi", "oil"], seed=3, exact=exact) for exact in (True, False))
    for mine, theirs in zip(one, other, strict=True):
        assert np.abs(np.asarray(mine).astype(int) - np.asarray(theirs)).max() <= 2


def test_sizes_options_and_progress(painter):
    told = []
    options = Options(steps=3, guidance=1.5, upsampler_steps=1)
    image = painter.generate(
        "oil", options=options, progress=lambda stage, step: told.append((stage, step.index, step.total))
    )
    assert told == [("base", 0, 3), ("base", 1, 3), ("base", 2, 3), ("to 32 px", 0, 1)]
    assert image[0].info["unclip"] | {"steps": 3, "guidance": 1.5, "upsampler_steps": 1} == image[0].info["unclip"]
    assert painter.sizes == (16, 32)
    assert painter.generate("oil", size=16)[0].size == (16, 16)
    alone = glide(painter.source.networks["glide_0"])
    assert pixels(alone.generate("oil")[0]) == pixels(painter.generate("oil", size=16)[0])
    assert painter.cut(["oil", "corgi " * 12]) == ["corgi " * 12]


@pytest.mark.parametrize(
    ("prompts", "request_", "message"),
    [
        ([], {}, "no prompt"),
        ("oil", {"n": 0}, "n = 0"),
        ("oil", {"seed": [1, 2]}, "2 seeds for 1 prompts"),
        ("oil", {"size": 64}, "tiny cannot make 64 px: it makes 16, 32"),
        ("oil", {"options": Options(prior_steps=3)}, "tiny is a GLIDE and has no prior"),
    ],
)
def test_what_cannot_be_painted_is_refused(painter, prompts, request_, message):
    with pytest.raises(RequestError, match=message):
        painter.generate(prompts, **request_)


def test_parts_of_different_models_are_refused(painter):
    base, upsampler = painter.source.networks.values()
    with pytest.raises(WeightsError, match="300 tokens and context 9, but the base expects 300 and 12"):
        glide(base, context=9)
    with pytest.raises(WeightsError, match="the base network enlarges 16 px"):
        glide(upsampler)
    with pytest.raises(WeightsError, match="the upsampler takes None px, but the base makes 16 px"):
        glide(base, base)
