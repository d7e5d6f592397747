"""Kandinsky's priors, 2.1 and 2.2, loaded from the diffusers layout: their embeddings are diffusers' own."""

import pytest
import torch
import toy_karlo
from diffusers import KandinskyPriorPipeline, KandinskyV22PriorPipeline, UnCLIPScheduler
from diffusers.pipelines.kandinsky import pipeline_kandinsky_prior
from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2_prior
from diffusers.schedulers import scheduling_unclip
from toy_karlo import Recorded, close, in_double
from transformers import CLIPImageProcessor

import unclip
from unclip.errors import RequestError

PROMPTS = ["the red cat", "a map of capri, by the sea"]
PIPELINES = {
    "2.1": (KandinskyPriorPipeline, pipeline_kandinsky_prior),
    "2.2": (KandinskyV22PriorPipeline, pipeline_kandinsky2_2_prior),
}


@pytest.fixture(params=PIPELINES)
def version(request, tmp_path):
    """A pipeline, the module in which it draws its noise, and the pipeline's folder."""
    kind, module = PIPELINES[request.param]
    torch.manual_seed(4)
    words = toy_karlo.tokenizer(tmp_path / "words")
    pipeline = kind(
        prior=toy_karlo.prior(),
        image_encoder=toy_karlo.image_encoder(),
        text_encoder=toy_karlo.text_encoder(len(words)),
        tokenizer=words,
        scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample_range=10.0),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, module, toy_karlo.save(pipeline, tmp_path / "prior")


def test_an_embedding_is_theirs(version, monkeypatch):
    """25 steps, guidance 4, the same noise."""
    theirs, drawing, folder = version
    noise = Recorded(len(PROMPTS), 7)
    for module in (drawing, scheduling_unclip):
        monkeypatch.setattr(module, "randn_tensor", noise.randn_tensor)
    in_double(theirs.scheduler)
    expected = theirs(PROMPTS, num_inference_steps=25, guidance_scale=4.0)
    noise.restart()
    ours = unclip.load(folder, device="cpu", precision="fp32")
    z = ours.sample_z(ours.encode_text(PROMPTS), noise, candidates=1)
    close(z, expected.image_embeds)
    assert (expected.image_embeds[0] - expected.image_embeds[1]).abs().max() > 0.1
    assert expected.image_embeds.shape == (2, toy_karlo.EMBED)


def test_it_embeds_prompts_and_pictures_and_paints_nothing(version):
    ours = unclip.load(version[2], device="cpu", precision="fp32")
    assert list(ours.source.networks) == ["clip", "prior"]
    with pytest.raises(RequestError, match="has no decoder: it embeds prompts, and paints nothing"):
        ours.generate(PROMPTS)
