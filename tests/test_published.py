"""Folders of whole families: GLIDE's files paint, LAION's prior stands beside its CLIP, and half of one is refused."""

import json
from pathlib import Path

import pytest
import torch
import toy_karlo
from foreign_files import saved
from test_glide import letters, published_state
from test_laion_prior import config, drawn
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel

import unclip
from unclip.diffusion import schedule as schedules
from unclip.errors import WeightsError
from unclip.models import glide
from unclip.pipeline import _PRIOR
from unclip.request import Options
from unclip.rng import Rng
from unclip.stages import sample_prior
from unclip.weights import source
from unclip.weights.opening import open_model

FEW = Options(steps=4, upsampler_steps=2)


def gpt2(folder: Path) -> None:
    """As many tokens as `letters` has, in GPT-2's two files."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("o", "i"), ("oi", "l"), *((pieces[i], pieces[i + 1]) for i in range(100, 141))]
    entries = [*pieces, *("".join(pair) for pair in merges), "<|endoftext|>"]
    (folder / "encoder.json").write_text(json.dumps({piece: i for i, piece in enumerate(entries)}), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "vocab.bpe").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(entries) == letters(12).vocab


@pytest.fixture
def glides(tmp_path, monkeypatch) -> Path:
    """GLIDE's folder, all four networks; published sizes are the micro ones here."""
    monkeypatch.setitem(glide.SIZES, "published", glide.SIZES["micro"])
    folder = tmp_path / "glide"
    folder.mkdir()
    gpt2(folder)
    for name, cfg in glide.SIZES["micro"].items():
        saved(folder / f"{name}.pt", published_state(cfg))
    return folder


def test_glides_files_paint_and_so_does_a_bundle_of_them(glides, tmp_path):
    painter = unclip.load(glides, device="cpu", precision="fp32")
    assert isinstance(painter, unclip.GLIDE)
    assert painter.sizes == (16, 32)
    assert [stage.cfg.unet.image_size for stage in painter.inpainting] == [16, 32]
    assert painter.base.sampling.guidance.scale == 3
    images = painter.generate(["oil", "a corgi"], options=FEW)
    assert [image.size for image in images] == [(32, 32)] * 2
    assert images[0].tobytes() != images[1].tobytes()
    bundle = unclip.load(source.save(open_model(glides), tmp_path / "bundle", name="glide"), device="cpu", precision="fp32")
    assert [image.tobytes() for image in bundle.generate(["oil", "a corgi"], options=FEW)] == [i.tobytes() for i in images]
    sparing = unclip.load(glides, device="cpu", precision="fp32", offload=True)
    assert sparing.generate("oil", options=FEW)[0].tobytes() == images[0].tobytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "vocab.bpe").unlink(), r"has 0 files vocab\.bpe\*, expected one"),
        (
            lambda folder: saved(folder / "other.pt", {"x": torch.ones(1)}),
            r"other\.pt: the tensor input_blocks\.0\.0\.weight",
        ),
        (lambda folder: (folder / "upsample.pt").write_bytes(b"PK\3\4"), r"upsample\.pt is torn"),
        (lambda folder: saved(folder / "copy.pt", published_state(glide.SIZES["micro"]["base"])), "twice"),
    ],
)
def test_a_folder_of_glides_that_is_not_whole_is_one_line(glides, damage, words):
    damage(glides)
    with pytest.raises(WeightsError, match=words) as error:
        unclip.load(glides, device="cpu")
    assert "\n" not in str(error.value)


def laions(folder: Path) -> Path:
    """LAION's prior of 1000 timesteps, and the CLIP that it was trained on in a folder below."""
    version = "0.15.4"
    torch.manual_seed(5)
    state = drawn(version) | {"noise_scheduler.betas": schedules.cosine(1000).betas.float()}
    state["net.to_time_embeds.0.weight"] = 0.3 * torch.randn(1000, 32)
    words = toy_karlo.tokenizer(folder / "clip")
    tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(words), "bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    clip = CLIPConfig(text_config=tower | text, vision_config=tower | {"image_size": 32, "patch_size": 8}, projection_dim=32)
    toy_karlo.louder(CLIPModel(clip)).save_pretrained(folder / "clip")
    words.save_pretrained(folder / "clip")
    saved(folder / "latest.pth", {"ema_model": state, "version": version})
    return folder


def test_laions_prior_is_sampled_with_the_clip_beside_it(tmp_path):
    model = unclip.load(laions(tmp_path / "laion"), device="cpu", precision="fp32")
    assert list(model.source.networks) == ["clip", "prior"]
    assert model.prior.cfg == config("0.15.4").model_copy(update={"timesteps": 1000})
    text = model.encode_text(["the red cat", "a map"])
    z = model.sample_z(text, Rng([3, 4]), candidates=1)
    stage = model.prior
    with torch.inference_mode():
        own = sample_prior(stage.module, stage.diffusion, stage.sampling, text, model.null(), Rng([3, 4]).fork(_PRIOR))
    assert torch.equal(z, own)
    assert stage.sampling.steps == 64
    assert z.isfinite().all()
    assert (z[0] - z[1]).abs().max() > 1e-3


def test_laions_prior_without_a_clip_is_refused(tmp_path):
    folder = laions(tmp_path / "laion")
    (folder / "clip").rename(tmp_path / "elsewhere")
    with pytest.raises(
        WeightsError, match=r"has LAION's prior and no CLIP: put ViT-L-14\.pt and its vocabulary beside latest"
    ):
        open_model(folder)
