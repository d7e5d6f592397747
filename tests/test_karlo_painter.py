"""Karlo as a painter: seeds, batches, samplers, one network in memory at a time, bf16; and its bundle is the same model."""

import numpy as np
import pytest
import torch
import toy_karlo

import unclip
from unclip.cli import main
from unclip.errors import RequestError
from unclip.pipeline import _PRIOR
from unclip.request import Options
from unclip.rng import Rng
from unclip.shelf import Shelf
from unclip.stages import sample_prior
from unclip.weights import source
from unclip.weights.opening import open_model

CAT, MAP = "the red cat", "a map of capri"
FEW = Options(steps=4, prior_steps=3, upsampler_steps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    hub = tmp_path_factory.mktemp("hub")
    return toy_karlo.save(toy_karlo.text_to_image(hub / "words"), hub / "karlo")


@pytest.fixture(scope="module")
def painter(folder) -> unclip.UnCLIP:
    return unclip.load(folder, device="cpu", precision="fp32")


def pixels(images) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_pictures_are_of_the_published_settings_unless_told_otherwise(painter):
    steps = []
    (image,) = painter.generate(CAT, candidates=1, progress=lambda stage, step: steps.append((stage, step.total)))
    counts = {stage: steps.count((stage, total)) for stage, total in steps}
    assert counts == {"prior": 25, "decoder": 25, "to 64 px": 7}
    assert image.size == (64, 64)
    assert painter.sizes == (16, 64)
    scales = [stage.sampling.guidance.scale for stage in (painter.prior, painter.decoder, painter.upsamplers[0])]
    assert scales == [4, 8, 1]


def test_the_best_of_several_candidates_is_kept(painter):
    text, rng, stage = painter.encode_text([CAT, MAP]), Rng([0, 1]), painter.prior
    with torch.inference_mode():
        drawn = [
            sample_prior(
                stage.module, stage.diffusion, FEW.prior(stage.sampling), text, painter.null(), rng.fork(_PRIOR + k)
            )
            for k in range(4)
        ]
    scores = torch.stack([(z * text.pooled).sum(1) for z in drawn])
    best = torch.stack(drawn)[scores.argmax(0), torch.arange(2)]
    kept = painter.sample_z(text, rng, options=FEW, candidates=4)
    torch.testing.assert_close(kept, best, atol=1e-4, rtol=1e-4)  # those four go through the network together
    assert not torch.equal(best, drawn[0])


def test_an_image_depends_on_its_prompt_and_seed_alone(painter):
    batch = painter.generate([CAT, MAP], n=2, seed=[5, 9], options=FEW)
    assert pixels(painter.generate(MAP, seed=10, options=FEW)) == pixels(batch[3:])
    assert len(set(pixels(batch))) == 4


def test_in_one_batch_images_differ_by_less_than_a_byte_or_two(painter):
    alone, together = (painter.generate([CAT, MAP], seed=3, options=FEW, exact=exact) for exact in (True, False))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 2


def test_every_sampler_paints_and_no_two_the_same(painter):
    made = {}
    for sampler in ("dpm++", "ddim", "ddpm"):
        options = Options(sampler=sampler, prior_sampler=sampler, steps=5, prior_steps=5, upsampler_steps=2)
        (image,) = painter.generate(CAT, options=options)
        made[sampler] = image.tobytes()
        assert np.asarray(image).std() > 20
    assert len(set(made.values())) == 3


def test_a_sampler_that_needs_what_was_never_measured_is_refused(painter):
    with pytest.raises(RequestError, match="analytic needs a prior whose error was measured in training: take"):
        painter.generate(CAT, options=Options(prior_sampler="analytic"))


def test_with_one_network_in_memory_at_a_time_the_bytes_are_the_same(folder, painter, monkeypatch):
    built, held = [], []
    build = Shelf._build

    def counted(shelf: Shelf, name: str):
        held.append(len(shelf._built))
        built.append(name)
        return build(shelf, name)

    monkeypatch.setattr(Shelf, "_build", counted)
    sparing = unclip.load(folder, device="cpu", precision="fp32", offload=True)
    assert built == []
    assert pixels(sparing.generate([CAT, MAP], seed=3, size=16, options=FEW)) == pixels(
        painter.generate([CAT, MAP], seed=3, size=16, options=FEW)
    )
    assert built == ["clip", "prior", "decoder"]  # once for all pictures
    assert pixels(sparing.generate(CAT, seed=3, options=FEW)) == pixels(painter.generate(CAT, seed=3, options=FEW))
    assert built[3:] == ["clip", "prior", "decoder", "upsampler_64", "upsampler_64_last"]
    assert set(held) == {0}  # what was there before is let go first


def test_in_bf16_pictures_are_close(folder, painter):
    half = unclip.load(folder, device="cpu", precision="bf16")
    assert half.decoder.module.unet.conv_in.weight.dtype == torch.bfloat16
    text, others = painter.encode_text([CAT]), half.encode_text([CAT])
    toy_karlo.close(others.pooled, text.pooled, 0.05)
    z = half.sample_z(others, Rng([0]), candidates=1)
    toy_karlo.close(z, painter.sample_z(text, Rng([0]), candidates=1), 0.1)
    one, other = (np.asarray(model.generate(CAT, options=FEW)[0]).flatten() for model in (half, painter))
    assert np.corrcoef(one, other)[0, 1] > 0.9  # guidance 8 makes much of little, in a network that never learnt
    assert not np.array_equal(one, other)


def test_a_bundle_of_it_paints_the_same(folder, painter, tmp_path):
    saved = source.save(open_model(folder), tmp_path / "bundle", name="karlo")
    bundle = unclip.load(saved, device="cpu", precision="fp32")
    prompts = ["the red cat!", ""]
    assert torch.equal(bundle.tokenizer(prompts).ids, painter.tokenizer(prompts).ids)
    assert pixels(bundle.generate(prompts, options=FEW)) == pixels(painter.generate(prompts, options=FEW))
    assert bundle.source.provenance == {"published as": "UnCLIPPipeline", "from": "karlo"}


def test_the_command_line_paints_with_it(folder, tmp_path, capsys):
    asked = ["--model", str(folder), "--offload", "--steps", "5", "--sampler", "dpm++", "--prior-steps", "3"]
    assert main(["generate", CAT, *asked, "--upsampler-steps", "2", "--device", "cpu", "-o", str(tmp_path / "out")]) == 0
    (path,) = capsys.readouterr().out.split()
    assert path == str(tmp_path / "out" / "000-the-red-cat-0.png")
