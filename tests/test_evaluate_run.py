"""The icons suite on a small set of discs, judges that are bundles, and the verb from its options to its files."""

import json

import numpy as np
import pytest
import torch
from conftest import scrambled
from PIL import Image
from toy_clip import MICRO, save_clip

from unclip.cli import evaluate as verb
from unclip.cli import main
from unclip.clip import Clip
from unclip.data.icons.captions import STYLE_PHRASES
from unclip.data.icons.drawings import Drawings
from unclip.data.icons.scenes import CATEGORIES
from unclip.data.icons.selection import Drawing
from unclip.data.icons.splits import color_held_out, pair_held_out, split_styles
from unclip.errors import RequestError
from unclip.evaluate import suite
from unclip.evaluate.judge import ClipJudge, load_judge
from unclip.evaluate.painters import from_prompts, from_true_z, paint_all
from unclip.evaluate.run import Settings, evaluate
from unclip.evaluate.suite import SPLITS, icons_suite
from unclip.models import decoder as decoder_models
from unclip.models import prior as prior_models
from unclip.models.clip import CLIP
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.pipeline import UnCLIP
from unclip.stages import SamplingConfig
from unclip.tokenizer import Tokenizer
from unclip.weights.source import ModelSource, PartSource

STARTS = ("bo", "ka", "lu", "mi", "ne", "po", "ru", "ti", "vo", "zu")
ENDS = ("bat", "den", "gol", "lip", "mot", "nar", "pek", "rud")
NAMES = [start + end for start in STARTS for end in ENDS]


class Discs(Drawings):
    """Eighty things, each a disc of its own colour, in four styles."""

    def __init__(self, root="discs"):
        self.root = root
        self.listing = []
        for thing in NAMES:
            for style, split in split_styles(thing, STYLE_PHRASES).items():
                self.listing.append(Drawing(len(self.listing), thing, style, "Objects", split, (thing,), ()))

    def pixels(self, index: int, size: int) -> np.ndarray:
        across = np.linspace(-1, 1, size)
        disc = across**2 + across[:, None] ** 2 <= 0.8
        rgba = np.zeros((size, size, 4), dtype=np.uint8)
        rgba[disc] = (*np.random.default_rng(index).integers(0, 256, 3), 255)
        return rgba

    def boxes(self) -> np.ndarray:
        return np.tile([0.05, 0.05, 0.95, 0.95], (len(self.listing), 1))


DISCS = Discs()


@pytest.fixture(scope="module")
def items():
    return icons_suite(DISCS, samples=24, size=32)


def test_every_split_has_its_prompts_and_scenes_have_every_category(items):
    split_of = {drawing.key: drawing.split for drawing in DISCS.listing}
    assert list(dict.fromkeys(item.split for item in items)) == list(SPLITS)
    for split in ("train", "pair", "thing"):
        members = [item for item in items if item.split == split]
        assert len(members) == min(24, sum(held == split for held in split_of.values()))
        assert {split_of[key] for item in members for key in item.meta["drawings"]} == {split}
    scenes = [item.category for item in items if item.split == "scenes"]
    assert {category: scenes.count(category) for category in scenes} == dict.fromkeys(CATEGORIES, 4)


def test_scenes_hold_held_out_combinations_where_they_say_so_and_nowhere_else(items):
    for item in items:
        objects = item.meta["scene"]["objects"]
        combined = len(objects) == 2 and pair_held_out(*(thing["name"] for thing in objects))
        colored = any(thing["color"] and color_held_out(thing["name"], thing["color"]) for thing in objects)
        assert (combined or colored) == (item.split == "scenes-held-out")


def test_a_distractor_is_another_caption_of_the_split_for_other_drawings(items):
    shown = {item.prompt: set(item.meta["drawings"]) for item in items}
    for item in items:
        assert len(item.distractors) == len(set(item.distractors)) <= 99
        assert item.prompt not in item.distractors
        assert all(shown[caption] != set(item.meta["drawings"]) for caption in item.distractors if caption in shown)
    assert all(len(item.distractors) == 99 for item in items if item.split in ("train", "scenes", "scenes-held-out"))


def test_wrong_captions_are_false_and_of_the_same_form(items):
    for item in items:
        assert len(item.wrong) >= 2
        assert item.prompt not in item.wrong
    drawing = next(item for item in items if item.split == "train")
    assert all(caption.startswith(drawing.prompt.rsplit(" ", 2)[0]) for caption in drawing.wrong)


def test_the_suite_is_a_function_of_its_seed_and_a_split_does_not_depend_on_the_others(items):
    again = icons_suite(DISCS, samples=24, size=32, splits=("scenes", "pair"))
    assert again == [item for item in items if item.split in ("pair", "scenes")]
    other = icons_suite(DISCS, samples=24, size=32, splits=("scenes",), seed=1)
    assert [item.prompt for item in other] != [item.prompt for item in items if item.split == "scenes"]


def test_splits_that_do_not_exist_and_no_samples_are_refused():
    with pytest.raises(RequestError, match="no split 'trian': choose among train, pair"):
        icons_suite(DISCS, samples=1, size=32, splits=("trian",))
    with pytest.raises(RequestError, match="samples = 0"):
        icons_suite(DISCS, samples=0, size=32)


def test_a_judge_gives_unit_features_that_do_not_depend_on_company(tmp_path):
    judge = load_judge(save_clip(tmp_path / "judge", 1))
    assert (judge.name, judge.size) == ("judge", 32)
    pictures = [Image.fromarray(DISCS.pixels(i, 64)) for i in range(3)]
    together = judge.images(pictures)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(judge.images(pictures[2:]), together[2:], atol=1e-5)
    assert judge.texts(["a bobat", "a kaden"]).shape == (2, 32)


def test_the_models_own_clip_is_no_judge_in_whatever_precision(tmp_path):
    model = save_clip(tmp_path / "model", 1)
    exact = save_clip(tmp_path / "judge", 1, dtype=torch.float32)
    with pytest.raises(RequestError, match="a model cannot judge itself"):
        load_judge(exact, judged=model)
    judge = load_judge(save_clip(tmp_path / "apart", 2), judged=model)
    assert judge.fingerprint != load_judge(exact).fingerprint


def micro_judge() -> ClipJudge:
    torch.manual_seed(3)
    return ClipJudge(Clip(CLIP(MICRO), Tokenizer.train(NAMES, vocab=320, context=16), name="micro", precision="fp32"))


def test_an_evaluation_asks_in_batches_and_who_paints_the_real_renders_scores_as_they_do():
    asked = []

    def painter(items):
        asked.append(len(items))
        return [item.real for item in items]

    settings = Settings(samples=20, splits=("train", "scenes"), batch=16, resamples=20)
    result = evaluate("real", lambda: painter, micro_judge(), DISCS, settings)
    assert asked == [16, 16, 8]
    assert json.loads(json.dumps(result.report)) == result.report
    assert result.report["splits"]["train"]["generated"] == result.report["splits"]["train"]["real"]
    assert result.report["splits"]["scenes"]["categories"].keys() == set(CATEGORIES)
    assert len(result.pictures) == len(result.read_as) == len(result.items) == 40


@pytest.fixture(scope="module")
def model() -> UnCLIP:
    torch.manual_seed(4)
    sampling = SamplingConfig(steps=2).model_dump(mode="json")
    modules = {"clip": CLIP(MICRO), "prior": Prior(prior_models.SIZES["micro"])}
    modules["prior"].set_statistics(torch.zeros(32), torch.ones(32))
    modules["decoder"] = scrambled(Decoder(decoder_models.SIZES["micro"]), 4)  # a fresh one answers zeros, whatever z is
    predictions = {"prior": "x0", "decoder": "eps"}

    def part(kind: str, module) -> PartSource:
        config = {"model": module.cfg.model_dump(mode="json")}
        if kind in predictions:
            config |= {"diffusion": {"prediction": predictions[kind]}, "sampling": sampling}
        return PartSource(kind, config, module.state_dict, where=kind)

    parts = {kind: part(kind, module) for kind, module in modules.items()}
    source = ModelSource("micro", "micro", parts, lambda context: Tokenizer.train(NAMES, vocab=320, context=context))
    return UnCLIP(source, device=torch.device("cpu"), precision="fp32")


def test_a_model_is_asked_by_prompt_and_seed_or_by_the_true_z(model, items):
    few = items[:3]
    from_chain = paint_all(from_prompts(model, 32), few, batch=2)
    alone = model.generate(few[2].prompt, seed=few[2].seed, size=32)
    difference = np.asarray(from_chain[2]).astype(int) - np.asarray(alone[0])
    assert abs(difference).max() <= 2
    from_truth = paint_all(from_true_z(model, 32), few, batch=2)
    assert [picture.size for picture in from_truth] == [(32, 32)] * 3
    with pytest.raises(RequestError, match="cannot make 48 px"):
        from_true_z(model, 48)
    assert any(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in zip(from_chain, from_truth, strict=True))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["evaluate", *arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """A model's bundle, a judge's, and a painter of white pictures in the model's place."""
    monkeypatch.setattr(suite, "Drawings", Discs)
    monkeypatch.setattr(verb, "painter", lambda *_, **__: lambda items: [Image.new("RGB", (64, 64), "white") for _ in items])
    return [str(save_clip(tmp_path / "model", 1)), "--judge", str(save_clip(tmp_path / "apart", 2)), "--data", "discs"]


def test_the_verb_prints_one_object_and_writes_what_it_is_asked_to(chain, capsys, tmp_path):
    asked = [*chain, "--samples", "20", "--splits", "train,scenes", "--resamples", "20", "--device", "cpu"]
    files = ["--out", str(tmp_path / "out"), "--log", str(tmp_path / "curve.jsonl"), "--images-seen", "5000"]
    code, out, err = run(capsys, *asked, *files, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["bundle"], report["judge"]["name"], report["samples"]) == (chain[0], "apart", 20)
    assert report["splits"]["train"]["generated"]["top1"]["value"] < 0.2
    assert err.count("wrote ") == 3
    assert json.loads((tmp_path / "curve.jsonl").read_text())["images_seen"] == 5000
    code, out, _ = run(capsys, *asked)
    assert code == 0
    assert "right of 100" in out
    assert "scenes" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "photos"], "there is no suite 'photos'"),
        (["--log", "curve.jsonl"], "--log and --images-seen go together"),
        (["--splits", "train,test"], "no split 'test'"),
        (["--samples", "0"], "--samples"),
        (["--judge", "nobody"], "there is no model 'nobody'"),
    ],
)
def test_what_cannot_be_is_one_line_and_code_2(arguments, words, chain, capsys):
    code, out, err = run(capsys, *chain, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def test_the_models_own_clip_and_no_judge_at_all_are_refused(chain, capsys, monkeypatch, tmp_path):
    code, _, err = run(capsys, chain[0], "--judge", chain[0], "--data", "discs")
    assert code == 2
    assert "cannot judge itself" in err
    monkeypatch.setattr("unclip.weights.store.shipped_folder", lambda: tmp_path / "none")
    code, _, err = run(capsys, chain[0], "--data", "discs")
    assert code == 2
    assert "no judge is shipped" in err
