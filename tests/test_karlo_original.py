"""Karlo's original files: networks answer as Karlo's own code did, and a folder of them paints as the diffusers one does."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_karlo
from foreign_files import saved, scripted
from torch import Tensor

import unclip
from unclip.errors import WeightsError
from unclip.models.clip import CLIP, CLIPConfig, Text, VisionConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.unet import UNetConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.weights import clip as clips
from unclip.weights import karlo, rename, store
from unclip.weights.opening import open_model

LINES = [line.split() for line in Path(__file__).with_name("golden").joinpath("karlo.txt").read_text().splitlines()]
GOLDEN = {line[0]: torch.tensor([float(word) for word in line[1:]]) for line in LINES if line[0] != "#"}
EMBED, CONTEXT = 32, 12
WIDE = UNetConfig(
    image_size=32,
    channels=32,
    mult=(1, 2, 3),
    depth=2,
    attention=(16, 8),
    head_channels=32,
    out_channels=6,
    context_width=48,
)
FLAT = UNetConfig(
    image_size=32, channels=32, mult=(1, 2, 3), depth=2, in_channels=6, scale_shift=False, middle_attention=False
)
NETWORKS = {
    "prior": (
        Prior,
        PriorConfig(embed=EMBED, text_embed=EMBED, text_width=EMBED, context=CONTEXT, width=64, layers=3, heads=4),
        karlo.original_prior,
    ),
    "decoder": (
        Decoder,
        DecoderConfig(unet=WIDE, embed=EMBED, text_width=EMBED, text_embed=EMBED),
        karlo.original_decoder,
    ),
    "upsampler": (Upsampler, UpsamplerConfig(unet=FLAT, low=8, high=32, clamped=False), karlo.original_upsampler),
}


def numbers(shape, seed: int) -> Tensor:
    """Normal noise that is the same in every version of every library."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def original_state(name: str) -> dict[str, Tensor]:
    """Random weights under the original names, drawn in the names' alphabetical order."""
    make, cfg, table = NETWORKS[name]
    with torch.device("meta"):
        shapes = {key: tuple(like.shape) for key, like in rename.to_theirs(table(cfg), make(cfg).state_dict()).items()}
    rng, state = np.random.RandomState(0), {}
    for key, shape in sorted(shapes.items()):
        noise = rng.standard_normal(shape)
        weights = noise * np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1 * noise + key.endswith("weight")
        state[key] = torch.from_numpy(np.asarray(weights)).float()
    if name == "prior":
        state["clip_std"] = state["clip_std"].abs() + 0.5
    return state


def answer(name: str) -> Tensor:
    make, cfg, table = NETWORKS[name]
    with torch.device("meta"):
        expected = make(cfg).state_dict()
    state = rename.to_ours(table(cfg), expected, original_state(name), where=name)
    network = store.build(lambda: make(cfg), state, where=name).eval().requires_grad_(False)
    x, low, z, t = numbers((2, 3, 32, 32), 1), numbers((2, 3, 32, 32), 2), numbers((2, EMBED), 3), torch.tensor([5, 900])
    mask = torch.arange(CONTEXT) < torch.tensor([[5], [CONTEXT]])
    text = Text(numbers((2, EMBED), 4), numbers((2, CONTEXT, EMBED), 5), mask)
    given = {"prior": lambda: (z, t, text), "decoder": lambda: (x, t, z, text), "upsampler": lambda: (x, t, low)}
    return network(*given[name]())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_answers_are_the_original_codes(name):
    given = answer(name).flatten()
    expected = GOLDEN[name]
    points = given[:: given.numel() // 8][:8]
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


# The folder


def openai_state(source) -> dict[str, Tensor]:
    """The pipeline's text encoder, and eyes, in OpenAI's names."""
    part = source.networks["clip"]
    vision = VisionConfig(image_size=32, patch=8, width=128, layers=1, heads=2)
    cfg = CLIPConfig.parse(part.config["model"] | {"vision": vision.model_dump()})
    ours = CLIP(cfg).state_dict() | part.read() | {"logit_scale": torch.tensor(4.5)}
    return rename.to_theirs(clips.openai(cfg), ours)


def write_original(source, folder: Path) -> None:
    """A model in the files in which Karlo was published."""
    parts = {name: part.read() for name, part in source.networks.items()}
    shapes = {"prior": karlo.PRIOR, "decoder": karlo.DECODER, "upsampler_64": karlo.UPSAMPLER}
    prior = rename.to_theirs(karlo.original_prior(shapes["prior"]), parts["prior"])
    mean, std = prior.pop("clip_mean"), prior.pop("clip_std")
    saved(folder / "ViT-L-14_stats.th", (mean, std))
    table = karlo.original_upsampler(shapes["upsampler_64"])
    steps = {"model_first_steps.": parts["upsampler_64"], "model_last_step.": parts["upsampler_64_last"]}
    states = {
        "prior-ckpt-step=01000000-of-01000000": {"model.": prior},
        "decoder-ckpt-step=01000000-of-01000000": {
            "model.": rename.to_theirs(karlo.original_decoder(shapes["decoder"]), parts["decoder"])
        },
        "improved-sr-ckpt-step=1.2M": {prefix: rename.to_theirs(table, state) for prefix, state in steps.items()},
    }
    for stem, groups in states.items():
        flat = {f"{prefix}{name}": tensor for prefix, state in groups.items() for name, tensor in state.items()}
        saved(folder / f"{stem}.ckpt", {"state_dict": flat, "epoch": 3})
    scripted(folder / "ViT-L-14.pt", openai_state(source))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """One model twice: the diffusers layout, the original files."""
    hub = tmp_path_factory.mktemp("hub")
    pipeline = toy_karlo.text_to_image(hub / "words")
    pipeline.text_encoder.half().float()  # OpenAI's files are in fp16
    diffusers, original = toy_karlo.save(pipeline, hub / "karlo"), hub / "original"
    original.mkdir()
    source = open_model(diffusers)
    with pytest.MonkeyPatch.context() as patch:
        tiny(patch, source)
        write_original(source, original)
    merges = (hub / "words" / "vocabulary" / "merges.txt").read_bytes()
    (original / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(merges))
    return diffusers, original


@pytest.fixture
def original(folders, monkeypatch) -> Path:
    tiny(monkeypatch, open_model(folders[0]))
    return folders[1]


def tiny(patch: pytest.MonkeyPatch, source) -> None:
    """The files say nothing of their shapes, which are constants: here, those of the toy."""
    for name, part, config in (
        ("PRIOR", "prior", PriorConfig),
        ("DECODER", "decoder", DecoderConfig),
        ("UPSAMPLER", "upsampler_64", UpsamplerConfig),
    ):
        patch.setattr(karlo, name, config.parse(source.networks[part].config["model"]))


def test_the_original_files_paint_as_the_diffusers_folder(folders, original):
    one, other = (unclip.load(folder, device="cpu", precision="fp32") for folder in (folders[0], original))
    prompts = ["the red cat!", ""]
    assert torch.equal(one.tokenizer(prompts).ids, other.tokenizer(prompts).ids)
    pictures = [model.generate(prompts, seed=3) for model in (one, other)]
    assert [image.tobytes() for image in pictures[0]] == [image.tobytes() for image in pictures[1]]
    assert other.embed(pictures[0]).shape == (2, toy_karlo.EMBED)  # the original files have eyes
    for name in ("decoder", "upsampler_64", "upsampler_64_last"):
        assert one.source.networks[name].config == other.source.networks[name].config
    bounds = [model.prior.sampling.guidance.bound for model in (one, other)]
    assert bounds == [5, 10]  # what predicted z are clamped to; none comes near


def test_the_published_shapes_have_the_published_numbers_of_parameters():
    """The sizes that the model's card gives: 1 B, 900 M, 700 M + 700 M."""
    shapes = ((Prior, karlo.PRIOR, 1.04e9), (Decoder, karlo.DECODER, 8.9e8), (Upsampler, karlo.UPSAMPLER, 7.0e8))
    with torch.device("meta"):
        for make, cfg, published in shapes:
            assert sum(parameter.numel() for parameter in make(cfg).parameters()) == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "ViT-L-14_stats.th").unlink(), "has 0 files ViT-L-14_stats.th, expected one"),
        (
            lambda folder: shutil.copy(next(folder.glob("prior*")), folder / "prior-ckpt-other.ckpt"),
            r"has 2 files prior-ckpt-\*\.ckpt, expected one",
        ),
        (
            lambda folder: saved(folder / "ViT-L-14_stats.th", {"mean": torch.ones(3)}),
            "holds a dict, expected the mean and the standard deviation",
        ),
        (lambda folder: saved(next(folder.glob("decoder*")), {"model": {}}), "holds no state_dict of tensors"),
        (
            lambda folder: saved(next(folder.glob("decoder*")), {"state_dict": {}}),
            r"decoder-ckpt.*the tensor cf_param is missing \(and",
        ),
        (
            lambda folder: saved(next(folder.glob("decoder*")), {"state_dict": {"ema.cf_param": torch.ones(3)}}),
            r"decoder-ckpt.*the tensor ema\.cf_param has no place in this network: expected model\.",
        ),
        (lambda folder: (folder / "bpe_simple_vocab_16e6.txt.gz").unlink(), "has no vocab.json"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(original, tmp_path, damage, words):
    folder = tmp_path / "karlo"
    shutil.copytree(original, folder)
    damage(folder)
    with pytest.raises(WeightsError, match=words) as error:
        unclip.load(folder, device="cpu")
    assert "\n" not in str(error.value)
