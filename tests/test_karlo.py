"""Karlo, loaded from the diffusers layout: networks and the whole pipelines equal diffusers' on random weights."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy_karlo
from diffusers.pipelines.deprecated.unclip import pipeline_unclip, pipeline_unclip_image_variation
from diffusers.schedulers import scheduling_unclip
from PIL import Image
from toy_karlo import EMBED, Recorded, close, in_double

import unclip
from unclip.errors import RequestError
from unclip.models.clip import Text

# Without "!": diffusers has made it the pad token, and reads it as padding; Karlo's own code reads it as the mark it is.
PROMPTS = ["the red cat", "a map of capri, by the sea"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return toy_karlo.text_to_image(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    return toy_karlo.save(theirs, tmp_path_factory.mktemp("hub") / "karlo")


@pytest.fixture(scope="module")
def ours(folder) -> unclip.UnCLIP:
    return unclip.load(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def their_variations(tmp_path_factory):
    return toy_karlo.variations(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def our_variations(their_variations, tmp_path_factory) -> unclip.UnCLIP:
    folder = toy_karlo.save(their_variations, tmp_path_factory.mktemp("hub") / "variations")
    return unclip.load(folder, device="cpu", precision="fp32")


@pytest.fixture(autouse=True)
def _same_draws_every_time():
    torch.manual_seed(2)


def texts(theirs) -> Iterator[Text]:
    for prompt in PROMPTS:
        with torch.no_grad():
            yield Text(*theirs._encode_prompt([prompt], "cpu", 1, False))


def picture(width: int, height: int) -> Image.Image:
    """Smooth, so that a resize has nothing to guess."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    channels = [np.sin(5 * x + phase) * np.cos(4 * y - phase) for phase in (0.0, 1.0, 2.0)]
    return Image.fromarray((127.5 * (np.stack(channels, axis=-1) + 1)).astype(np.uint8))


def pixels_of(x: torch.Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] as diffusers gives them: (B, H, W, 3) in [0, 1], not rounded to bytes."""
    return ((x.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()


def test_captions(ours, theirs):
    mine = ours.encode_text(PROMPTS)
    for row, text in enumerate(texts(theirs)):
        close(mine.pooled[row], text.pooled[0])
        assert torch.equal(mine.mask[row], text.mask[0])
        close(mine.states[row][mine.mask[row]], text.states[0][text.mask[0]])


@torch.no_grad()
def test_the_prior_alone(ours, theirs):
    z, t = torch.randn(2, EMBED), torch.tensor([3, 960])
    pooled, states, mask = theirs._encode_prompt(PROMPTS, "cpu", 1, False)
    expected = theirs.prior(z, t, pooled, states, mask).predicted_image_embedding
    close(ours.prior.module(z, t, Text(pooled, states, mask)), expected)
    close(ours.prior.module.restore(z), theirs.prior.post_process_latents(z))


@torch.no_grad()
def test_the_decoder_alone_with_and_without_its_conditions(ours, theirs):
    x, z, t = torch.randn(4, 3, 16, 16), torch.randn(2, EMBED), torch.tensor([3, 960, 40, 500])
    text = Text(*theirs._encode_prompt(PROMPTS, "cpu", 1, True))  # the empty captions stand first
    tokens, added = theirs.text_proj(
        image_embeddings=z,
        prompt_embeds=text.pooled,
        text_encoder_hidden_states=text.states,
        do_classifier_free_guidance=True,
    )
    mask = F.pad(text.mask, (4, 0), value=True)
    expected = theirs.decoder(x, t, encoder_hidden_states=tokens, class_labels=added, attention_mask=mask).sample
    dropped = torch.tensor([True, True, False, False])
    close(ours.decoder.module(x, t, torch.cat([z, z]), text, dropped), expected)


@pytest.mark.parametrize("last", [False, True])
@torch.no_grad()
def test_the_two_upsamplers_alone(ours, theirs, last):
    x, low, t = torch.randn(2, 3, 64, 64), torch.rand(2, 3, 16, 16), torch.tensor([3, 960])
    enlarged = F.interpolate(low, size=(64, 64), mode="bicubic", align_corners=False, antialias=True)
    assert enlarged.max() > 1  # which is not clamped
    network = ours.upsamplers[0].network(last)
    close(network.enlarge(low), enlarged)
    expected = (theirs.super_res_last if last else theirs.super_res_first)(torch.cat([x, enlarged], dim=1), t).sample
    close(network(x, t, enlarged), expected)


def test_the_whole_pipeline_is_theirs(ours, theirs, monkeypatch):
    """Prompt to picture, the published 25, 25 and 7 steps, guidance 4 and 8, the same noise."""
    noise = Recorded(len(PROMPTS), 5)
    for module in (pipeline_unclip, scheduling_unclip):
        monkeypatch.setattr(module, "randn_tensor", noise.randn_tensor)
    in_double(theirs.prior_scheduler, theirs.decoder_scheduler, theirs.super_res_scheduler)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(PROMPTS, output_type="np").images
    noise.restart()
    text = ours.encode_text(PROMPTS)
    z = ours.sample_z(text, noise, candidates=1)
    x = ours.upsample(ours.decode(z, noise, text=text), 64, noise)
    assert np.abs(pixels_of(x) - expected).max() <= 1 / 255
    assert expected.std() > 0.1


@torch.no_grad()
def test_a_pictures_embedding(our_variations, their_variations):
    close(our_variations.embed(picture(32, 32)), their_variations._encode_image([picture(32, 32)], "cpu", 1))


@torch.no_grad()
def test_a_larger_pictures_embedding_differs_by_the_rounding_of_bytes(our_variations, their_variations):
    """Theirs is made bytes after each direction of the resize, ours stays in floats."""
    given = our_variations.embed(picture(80, 80))
    expected = their_variations._encode_image([picture(80, 80)], "cpu", 1)
    close(given, expected, 0.02)
    assert not torch.equal(given, expected)
    other = our_variations.embed(picture(80, 80).transpose(Image.Transpose.ROTATE_90))
    assert (given - other).abs().max() > 0.2 * given.abs().max()


def test_variations_of_a_picture_are_theirs(our_variations, their_variations, monkeypatch):
    noise = Recorded(2, 6)
    for module in (pipeline_unclip_image_variation, scheduling_unclip):
        monkeypatch.setattr(module, "randn_tensor", noise.randn_tensor)
    in_double(their_variations.decoder_scheduler, their_variations.super_res_scheduler)
    their_variations.set_progress_bar_config(disable=True)
    expected = their_variations(picture(32, 32), num_images_per_prompt=2, output_type="np").images
    noise.restart()
    z = our_variations.embed([picture(32, 32)] * 2)
    x = our_variations.upsample(our_variations.decode(z, noise), 64, noise)
    assert np.abs(pixels_of(x) - expected).max() <= 1 / 255
    assert expected.std() > 0.1


def test_what_a_model_lacks_a_part_for_is_refused_in_one_line(ours, our_variations):
    with pytest.raises(RequestError, match=r"^variations has no prior: it paints from pictures, not from prompts$"):
        our_variations.generate("the red cat")
    with pytest.raises(RequestError, match=r"^karlo reads captions only: its repository has no image encoder$"):
        ours.embed(picture(32, 32))
