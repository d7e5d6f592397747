"""The whole chain: same seed, same bytes; parts that belong together; requests that can be served and those that cannot."""

import hashlib
import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import unclip
from unclip import pipeline
from unclip.errors import ConfigError, RequestError, UnclipError, WeightsError
from unclip.images import read_settings, save_png
from unclip.pipeline import load
from unclip.request import Options, pick_size
from unclip.rng import Rng
from unclip.weights import store

RED, BLUE = "a red square at the top left", "a blue disc"
DECODED = 32  # px: without upsamplers, so that most tests cost little


def sha(images) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


@pytest.fixture(scope="module")
def four(painter) -> list[str]:
    return sha(painter.generate([RED, BLUE], n=2, seed=7, size=DECODED))


def test_n_images_are_as_many_calls_byte_for_byte(painter, four):
    calls = [painter.generate(prompt, seed=7 + i, size=DECODED)[0] for prompt in (RED, BLUE) for i in range(2)]
    assert sha(calls) == four
    assert len(set(four)) == 4


def test_the_order_of_prompts_changes_nothing(painter, four):
    assert sha(painter.generate([BLUE, RED], n=2, seed=[7, 7], size=DECODED)) == four[2:] + four[:2]
    assert sha(painter.generate([RED, RED, BLUE], seed=[8, 7, 8], size=DECODED)) == [four[1], four[0], four[3]]


def test_a_second_process_gives_the_same_bytes(painter, micro_bundle):
    code = f"""
import hashlib, torch
torch.set_num_threads({torch.get_num_threads()})
from unclip import load
model = load({str(micro_bundle)!r}, device="cpu", precision="fp32")
for image in model.generate({RED!r}, n=2, seed=3, size=64):
    print(hashlib.sha256(image.tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sha(painter.generate(RED, n=2, seed=3, size=64))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_differ_by_less_than_two_bytes(micro_bundle, precision):
    model = load(micro_bundle, device="cpu", precision=precision)
    exact, batched = (model.generate([RED, BLUE], n=2, seed=1, size=64, exact=e) for e in (True, False))
    for one, other in zip(exact, batched, strict=True):
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 2
        assert one.info == other.info


def test_every_stream_of_noise_is_an_images_own(painter):
    """The upsampler's and the decoder's noise come from the seed, not from what was drawn before."""
    shorter = painter.generate(RED, seed=5, size=DECODED, candidates=2)[0]
    assert sha([shorter]) == sha(painter.generate(RED, seed=5, size=DECODED, candidates=2))
    x = torch.zeros(1, 3, 32, 32)
    first, second = (painter.upsample(x, 64, rng) for rng in (Rng([5]), Rng([5])))
    assert torch.equal(first, second)
    assert not torch.equal(first, painter.upsample(x, 64, Rng([6])))


@pytest.mark.parametrize("size", [32, 64, 256])
def test_every_size_it_says_it_makes(painter, size):
    assert painter.sizes == (32, 64, 256)
    stages = []
    (image,) = painter.generate(RED, size=size, progress=lambda stage, step: stages.append((stage, step.index)))
    assert (image.size, image.mode) == ((size, size), "RGB")
    expected = [("prior", i) for i in range(3)] + [("decoder", i) for i in range(3)]
    expected += [("to 64 px", i) for i in range(2)] if size > 32 else []
    assert stages == expected + ([("to 256 px", 0)] if size > 64 else [])


def test_the_default_size_is_256_or_the_most_there_is():
    assert pick_size("tiny", (32, 64, 256, 1024), None) == 256
    assert pick_size("tiny", (32, 64), None) == 64
    assert pick_size("tiny", (512,), None) == 512


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prompts": []}, "no prompt"),
        ({"n": 0}, "n = 0"),
        ({"candidates": 0}, "candidates = 0"),
        ({"size": 100}, "tiny cannot make 100 px: it makes 32, 64, 256"),
        ({"seed": [1, 2]}, "2 seeds for 1 prompts"),
        ({"prompts": "caf\udce9"}, "is not text"),
    ],
    ids=["none", "n", "candidates", "size", "seeds", "bytes"],
)
def test_what_cannot_be_served_is_one_line_before_anything_is_painted(painter, asked, words):
    steps = []
    with pytest.raises(RequestError, match=words) as error:
        painter.generate(**{"prompts": RED, "progress": lambda *step: steps.append(step)} | asked)
    assert "\n" not in str(error.value)
    assert steps == []


PROMPTS = {
    "empty": "",
    "spaces": "   ",
    "chinese": "一只红色的猫",
    "arabic": "قطة حمراء",
    "emoji": "🍕👨‍👩‍👧",
    "nul": "a\0b",
    "lines": "a red\nsquare\r\n",
    "special": "<|endoftext|> a cat",
    "long": "a red square " * 500,
    "combining": "e" + "\u0301" * 40,
}


@pytest.mark.parametrize("name", PROMPTS)
def test_any_prompt_gives_a_picture_that_remembers_it(painter, name, tmp_path):
    (image,) = painter.generate(PROMPTS[name], size=DECODED, candidates=1)
    assert np.asarray(image).std() > 0
    assert image.info["unclip"]["prompt"] == PROMPTS[name]
    save_png(image, tmp_path / "a.png", image.info["unclip"])
    assert read_settings(tmp_path / "a.png") == image.info["unclip"]


def test_prompts_that_are_cut_are_named(painter):
    assert painter.cut([RED, PROMPTS["long"], ""]) == [PROMPTS["long"]]
    assert painter.cut(["red " * 14, "red " * 15]) == ["red " * 15]


def test_settings_make_the_picture_again(painter):
    options = Options(steps=2, guidance=3.0, prior_steps=2, upsampler_steps=1, sampler="ddim")
    (image,) = painter.generate(RED, seed=11, size=64, options=options, candidates=1)
    settings = json.loads(json.dumps(image.info["unclip"]))
    assert settings == {
        "prompt": RED,
        "seed": 11,
        "size": 64,
        "model": "tiny",
        "candidates": 1,
        "steps": 2,
        "guidance": 3.0,
        "prior_steps": 2,
        "upsampler_steps": 1,
        "sampler": "ddim",
    }
    known = ("prompt", "seed", "size", "model", "candidates")
    again = Options(**{key: value for key, value in settings.items() if key not in known})
    assert sha(painter.generate(RED, seed=11, size=64, options=again, candidates=1)) == sha([image])
    assert sha(painter.generate(RED, seed=11, size=64, candidates=1)) != sha([image])


def test_every_option_has_its_effect(painter):
    plain = sha(painter.generate(RED, size=64, candidates=1))
    for change in (
        {"steps": 2},
        {"guidance": 4.0},
        {"prior_steps": 2},
        {"prior_guidance": 4.0},
        {"upsampler_steps": 1},
        {"sampler": "ddpm"},
    ):
        assert sha(painter.generate(RED, size=64, candidates=1, options=Options(**change))) != plain, change
    for wrong in ({"sampler": "euler"}, {"guidance": -1}, {"pace": 3}):
        with pytest.raises(ConfigError):
            Options.parse(wrong, where="options")


def test_a_caption_and_a_seed_both_matter(painter, four):
    assert sha(painter.generate(RED, seed=7, size=DECODED)) == four[:1]
    assert sha(painter.generate(RED, seed=8, size=DECODED)) == four[1:2]
    assert sha(painter.generate("a yellow bar", seed=7, size=DECODED))[0] not in four


def test_raising_in_progress_cancels(painter):
    asked = []

    def stop(stage, step):
        asked.append((stage, step.index))
        if stage == "decoder" and step.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        painter.generate([RED, BLUE], size=DECODED, candidates=1, progress=stop)
    assert asked == [("prior", i) for i in range(3)] * 2 + [("decoder", 0), ("decoder", 1)]
    assert len(painter.generate(RED, size=DECODED, candidates=1)) == 1  # and nothing is left in the way


def test_the_candidate_with_the_larger_dot_product_is_painted(painter, monkeypatch):
    text = painter.encode_text([RED, BLUE])
    direction = torch.nn.functional.normalize(text.pooled, dim=1)
    lengths = torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, -9.0]])

    def fake(*given):
        return (direction * lengths[..., None]).flatten(0, 1)

    monkeypatch.setattr(pipeline, "sample_prior", fake)
    z = painter.sample_z(text, Rng([0, 1]), candidates=3)
    torch.testing.assert_close((z * direction).sum(1), torch.tensor([3.0, 5.0]))


def test_candidates_are_other_draws_and_the_first_is_the_only_one_alone(painter):
    text = painter.encode_text([RED])
    alone = painter.sample_z(text, Rng([0]), candidates=1)
    scores = [(painter.sample_z(text, Rng([0]), candidates=k) * text.pooled).sum().item() for k in (1, 2, 4, 8)]
    assert all(more > fewer - 1e-3 for fewer, more in pairwise(scores))  # a batch of another size may round otherwise
    assert scores[-1] > scores[0]
    assert torch.equal(alone, painter.sample_z(text, Rng([0]), candidates=1))


def test_without_a_caption_the_decoder_is_given_the_empty_one(painter):
    z = painter.sample_z(painter.encode_text([RED]), Rng([0]))
    bare = painter.decode(z, Rng([0]))
    torch.testing.assert_close(bare, painter.decode(z, Rng([0]), text=painter.encode_text([""])))
    assert not torch.equal(bare, painter.decode(z, Rng([0]), text=painter.encode_text([RED])))


def test_images_of_any_shape_and_mode_are_embedded(painter):
    rng = np.random.default_rng(0)
    square = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    wide = Image.new("RGB", (100, 40), (0, 255, 0))
    wide.paste(square, (30, 0))
    z = painter.embed([square, wide, square.convert("L"), Image.new("RGBA", (3, 9), (1, 2, 3, 0))])
    assert z.shape == (4, 32)
    assert z.isfinite().all()
    torch.testing.assert_close(z[0], z[1])
    assert torch.equal(painter.embed(square), painter.embed([square]))


def changed(bundle, folder, *, config=None, state=None, without=(), rename=None):
    """A copy of a bundle with a part's config or tensors changed, saved properly, so that sizes and checksums fit."""
    parts = {}
    for name, entry in store.read_manifest(bundle).parts.items():
        if name in without:
            continue
        values, tensors = store.load_part(bundle, name)
        for change, what in ((config, values), (state, tensors)):
            if change is not None and name in change:
                change[name](what)
        parts[(rename or {}).get(name, name)] = store.Part(entry.kind, values, tensors)
    about = {"name": "tiny", "version": "1", "card": "", "provenance": {}}
    return store.save_bundle(folder, parts, tokenizer_json=store.read_tokenizer(bundle), **about)


def set_in(*path):
    *keys, last, value = path

    def change(values):
        for key in keys:
            values = values[key]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"without": ["prior", "decoder"]}, "has upsamplers and no decoder"),
        ({"state": {"prior": lambda s: s.pop("query")}}, "prior: the tensor query is missing"),
        ({"state": {"decoder": lambda s: s.update(extra=torch.zeros(1))}}, "the tensor extra has no place"),
        ({"state": {"clip": lambda s: s.update(logit_scale=torch.zeros(2))}}, r"logit_scale is .*\(2,\)"),
        ({"config": {"prior": lambda v: v.pop("sampling")}}, r"prior/config\.json: the key sampling is missing"),
        ({"config": {"prior": lambda v: v.pop("model")}}, r"prior/config\.json: the key model is missing"),
        ({"config": {"prior": set_in("model", "depth", 3)}}, r"prior/config\.json: model: unknown key depth"),
        ({"config": {"decoder": set_in("model", "unet", "fold", "two")}}, "unet.fold = 'two'"),
        ({"config": {"decoder": set_in("diffusion", "prediction", "u")}}, "diffusion: prediction = 'u'"),
        ({"config": {"decoder": set_in("sampling", "steps", [])}}, "sampling: steps"),
        ({"config": {"clip": set_in("model", "end_token", 5)}}, "clip.end_token is 5, but the tokenizer's is 2"),
        (
            {"config": {"prior": set_in("model", "context", 24)}},
            r"position is .*\(20, 32\), the network expects .*\(28, 32\)",
        ),
        ({"without": ["upsampler_64"]}, "takes 64 px, but what is before it makes 32 px"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_bundle_that_is_not_whole_is_one_line(micro_bundle, tmp_path, what, words):
    with pytest.raises(UnclipError, match=words) as error:
        load(changed(micro_bundle, tmp_path / "bundle", **what))
    assert "\n" not in str(error.value)


def test_parts_of_different_models_are_refused(micro_bundle, tmp_path):
    from unclip.models.prior import SIZES, Prior

    config = SIZES["micro"].model_copy(update={"context": 8})
    state = Prior(config).state_dict()

    def replace(tensors):
        tensors.clear()
        tensors.update(state)

    what = {"config": {"prior": set_in("model", "context", 8)}, "state": {"prior": replace}}
    with pytest.raises(WeightsError, match=r"prior\.context is 8, too short for clip\.text\.context 16"):
        load(changed(micro_bundle, tmp_path / "short", **what))
    config = SIZES["micro"].model_copy(update={"embed": 16})
    state = Prior(config).state_dict()
    what["config"] = {"prior": set_in("model", "embed", 16)}
    with pytest.raises(WeightsError, match=r"prior\.embed is 16, but clip\.embed is 32"):
        load(changed(micro_bundle, tmp_path / "narrow", **what))


def test_a_copy_with_nothing_changed_paints_the_same(micro_bundle, painter, tmp_path, four):
    model = load(changed(micro_bundle, tmp_path / "bundle"), device="cpu", precision="fp32")
    assert sha(model.generate(RED, seed=7, size=DECODED)) == four[:1]


def test_the_package_offers_it_all():
    assert unclip.load is load
    assert unclip.UnCLIP is pipeline.UnCLIP
