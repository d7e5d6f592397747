"""What several test files share: drawn squares, a pool of them, and a bundle of micro networks with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unclip import pipeline
from unclip.data import pool as pools
from unclip.data.source import Sample
from unclip.diffusion.process import DiffusionConfig
from unclip.images import save_png
from unclip.models import clip, decoder, prior, upsampler
from unclip.stages import SamplingConfig
from unclip.tokenizer import Tokenizer
from unclip.weights import store
from unclip.weights.store import fingerprint

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (240, 220, 40)}
PLACES = ("top left", "top right", "bottom left", "bottom right")
SHAPES = ("square", "bar", "disc")


class Squares:
    """An endless source: a coloured shape in a corner of a white picture, and a caption that says so."""

    def __len__(self) -> int:
        return 48

    def sample(self, position: int, size: int) -> Sample:
        index = position % len(self)
        colour, place, shape = list(COLOURS)[index % 4], index // 4 % 4, SHAPES[index // 16]
        y, x = np.mgrid[:size, :size] / size - 0.25 - 0.5 * np.array([place // 2, place % 2])[:, None, None]
        inside = {"square": np.maximum(abs(x), abs(y)), "bar": np.maximum(3 * abs(x), abs(y)), "disc": np.hypot(x, y)}[shape]
        image = np.where((inside < 0.2)[..., None], np.uint8(COLOURS[colour]), np.uint8(255))
        caption = f"a {colour} {shape} at the {PLACES[place]}"
        return Sample(str(position), image, caption, {"split": "pair" if index % 5 == 0 else "train"})


def scrambled(module: nn.Module, seed: int, std: float = 0.05) -> nn.Module:
    """The module with noise on every weight, so that nothing stays zero that starts so; in eval mode, without gradients."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def squares() -> Squares:
    return Squares()


@pytest.fixture(scope="session")
def tokenizer(squares) -> Tokenizer:
    captions = [squares.sample(position, 8).caption for position in range(len(squares))]
    return Tokenizer.train(captions, vocab=640, context=16)


@pytest.fixture(scope="session")
def micro_clip() -> clip.CLIP:
    torch.manual_seed(0)
    return scrambled(clip.CLIP(clip.SIZES["micro"]), 0, std=0.1)


@pytest.fixture(scope="session")
def pool(squares, tokenizer, micro_clip, tmp_path_factory) -> pools.Pool:
    """48 squares at 32 px, embedded by `micro_clip`."""
    made = pools.build(squares, tmp_path_factory.mktemp("pools") / "squares", samples=48, size=32, name="squares")
    pools.embed(made, micro_clip, tokenizer, fingerprint=fingerprint(micro_clip.state_dict()))
    return made


@pytest.fixture(scope="session")
def micro_bundle(tokenizer, micro_clip, tmp_path_factory):
    """The folder of a whole model: 32, 64 and 256 px, random weights, few steps."""
    torch.manual_seed(1)
    few = {"steps": 3, "guidance": {"scale": 1.5, "threshold": "static"}}
    made = prior.Prior(prior.SIZES["micro"])
    made.set_statistics(torch.linspace(-1, 1, 32), torch.linspace(0.5, 2, 32))

    def part(kind, config, module, prediction, **sampling):
        diffusion = DiffusionConfig(prediction=prediction).model_dump(mode="json")
        saved = {"model": config.model_dump(mode="json"), "diffusion": diffusion}
        return store.Part(
            kind, saved | {"sampling": SamplingConfig(**sampling).model_dump(mode="json")}, module.state_dict()
        )

    parts = {
        "clip": store.Part("clip", {"model": micro_clip.cfg.model_dump(mode="json")}, micro_clip.state_dict()),
        "prior": part(
            "prior", made.cfg, scrambled(made, 1), "x0", steps=3, sampler="ddim", eta=1.0, guidance={"threshold": "none"}
        ),
        "decoder": part(
            "decoder", decoder.SIZES["micro"], scrambled(decoder.Decoder(decoder.SIZES["micro"]), 2), "v", **few
        ),
    }
    for side, steps in ((64, 2), (256, 1)):
        config = upsampler.SIZES["micro"][side]
        module = scrambled(upsampler.Upsampler(config), side)
        parts[f"upsampler_{side}"] = part("upsampler", config, module, "x0" if config.residual else "v", steps=steps)
    return store.save_bundle(
        tmp_path_factory.mktemp("bundles") / "tiny",
        parts,
        name="tiny",
        version="1",
        tokenizer_json=tokenizer.to_json(),
        card="# tiny",
        provenance={},
    )


@pytest.fixture(scope="session")
def painter(micro_bundle) -> pipeline.UnCLIP:
    """That model, loaded, in fp32."""
    return pipeline.load(micro_bundle, device="cpu", precision="fp32")


@pytest.fixture
def two_files(tmp_path) -> list[str]:
    """Pictures of 32 px, soft colours, in a.png and b.png."""
    rng = np.random.default_rng(0)
    for name in "ab":
        tile = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        save_png(Image.fromarray(tile).resize((32, 32), Image.Resampling.BICUBIC), tmp_path / f"{name}.png")
    return [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
