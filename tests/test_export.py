"""The diffusers layout, written: it reads back bit for bit, diffusers paints with it, and what it cannot hold is refused."""

import json

import numpy as np
import pytest
import torch
import toy_karlo
from diffusers import PriorTransformer, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.pipeline_unclip import UnCLIPPipeline
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from unclip.errors import RequestError
from unclip.weights import export
from unclip.weights.opening import open_model
from unclip.weights.source import ModelSource, PartSource

PROMPTS = ["the red cat", "a map of capri, by the sea", "", "an unknown wörd"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    pipeline = toy_karlo.text_to_image(tmp_path_factory.mktemp("words"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    return toy_karlo.save(theirs, tmp_path_factory.mktemp("hub") / "karlo")


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    return export.save_pipeline(open_model(folder), tmp_path_factory.mktemp("exported") / "karlo")


def test_what_is_written_reads_back_bit_for_bit(folder, exported):
    one, other = open_model(folder), open_model(exported)
    assert list(one.networks) == list(other.networks)
    for name, part in one.networks.items():
        assert other.networks[name].config == part.config
        state, again = part.read(), other.networks[name].read()
        assert again.keys() == state.keys()
        assert all(torch.equal(state[key].nan_to_num(7), again[key].nan_to_num(7)) for key in state)
    before, after = (model.tokenizer(77)(PROMPTS) for model in (one, other))
    assert torch.equal(before.ids, after.ids)


def test_diffusers_paints_the_same_with_it(theirs, exported):
    classes = {
        "prior": PriorTransformer,
        "decoder": UNet2DConditionModel,
        "text_proj": UnCLIPTextProjModel,
        "text_encoder": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "super_res_first": UNet2DModel,
        "super_res_last": UNet2DModel,
        **dict.fromkeys(("prior_scheduler", "decoder_scheduler", "super_res_scheduler"), UnCLIPScheduler),
    }
    index = json.loads((exported / "model_index.json").read_text(encoding="utf-8"))
    assert index.pop("_class_name") == "UnCLIPPipeline"
    assert {name: kind for name, (_, kind) in index.items()} == {name: kind.__name__ for name, kind in classes.items()}
    again = UnCLIPPipeline(**{name: kind.from_pretrained(exported, subfolder=name) for name, kind in classes.items()})
    again.set_progress_bar_config(disable=True)
    steps = {"prior_num_inference_steps": 4, "decoder_num_inference_steps": 4, "super_res_num_inference_steps": 3}
    made = [
        model(PROMPTS[:2], generator=torch.Generator().manual_seed(0), output_type="np", **steps).images
        for model in (theirs, again)
    ]
    assert made[0].std() > 0.1
    assert np.abs(made[0] - made[1]).max() < 1e-5


def test_eyes_are_written_too(tmp_path):
    hub = toy_karlo.save(toy_karlo.variations(tmp_path / "words"), tmp_path / "variations")
    pipeline = toy_karlo.save(toy_karlo.text_to_image(tmp_path / "other words"), tmp_path / "karlo")
    seeing, painting = open_model(hub), open_model(pipeline)
    whole = ModelSource("whole", "whole", {**painting.networks, "clip": seeing.networks["clip"]}, seeing.tokenizer)
    again = open_model(export.save_pipeline(whole, tmp_path / "whole"))
    assert again.networks["clip"].config == seeing.networks["clip"].config
    state, read = seeing.networks["clip"].read(), again.networks["clip"].read()
    assert all(torch.equal(state[name], read[name]) for name in state)


def changed(source: ModelSource, part: str, path: str, value) -> ModelSource:
    """The model with one value of a part's config set to another; dots lead into it."""
    *folders, last = path.split(".")
    old = source.networks[part]
    config = json.loads(json.dumps(old.config))
    inner = config
    for key in folders:
        inner = inner[key]
    inner[last] = value
    parts = {**source.networks, part: PartSource(old.kind, config, old.read, old.where)}
    return ModelSource(source.name, source.where, parts, source.tokenizer)


@pytest.mark.parametrize(
    ("part", "path", "value", "reason"),
    [
        ("clip", "model.loss", "sigmoid", "clip.loss"),
        ("prior", "model.text_width", 64, "prior.text_width"),
        ("decoder", "model.text_embed", 64, "decoder.text_width"),
        ("prior", "diffusion.prediction", "v", "prior.diffusion.prediction"),
        ("decoder", "diffusion.schedule", "linear", "decoder.diffusion.schedule"),
        ("decoder", "model.unet.norm", "layer", "decoder.unet.norm"),
        ("decoder", "model.unet.fold", 2, "decoder.unet.fold"),
        ("decoder", "model.unet.attention", [16, 8], "decoder.unet.attention"),
        ("decoder", "model.unet.attention_mlp", True, "decoder.unet.attention_mlp"),
        ("upsampler_64", "model.clamped", True, "upsampler.clamped"),
        ("upsampler_64", "model.residual", True, "upsampler.residual"),
        ("upsampler_64", "model.unet.scale_shift", True, "upsampler.unet.scale_shift"),
        ("upsampler_64", "model.unet.depth", [1, 2], "upsampler.unet.depth"),
    ],
)
def test_a_network_that_diffusers_has_not_is_named(folder, tmp_path, part, path, value, reason):
    out = tmp_path / "out"
    with pytest.raises(RequestError) as error:
        export.save_pipeline(changed(open_model(folder), part, path, value), out)
    assert str(error.value) == f"karlo has no place in the diffusers layout: its {reason} is not one diffusers has"
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_all_parts_and_a_folder_that_exists_are_refused(folder, micro_bundle, tmp_path):
    source = open_model(folder)
    parts = {name: part for name, part in source.networks.items() if part.kind != "prior"}
    with pytest.raises(RequestError, match="has clip, decoder, upsampler_64, upsampler_64_last: diffusers wants a clip"):
        export.save_pipeline(ModelSource("karlo", "karlo", parts, source.tokenizer), tmp_path / "out")
    with pytest.raises(RequestError, match=r"upsampler_64, upsampler_256: diffusers wants .* exactly one upsampler"):
        export.save_pipeline(open_model(micro_bundle), tmp_path / "out")
    with pytest.raises(RequestError, match="exists: give another folder, or remove it"):
        export.save_pipeline(source, tmp_path)
    assert list(tmp_path.iterdir()) == []
