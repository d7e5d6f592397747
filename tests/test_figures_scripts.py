"""The scripts that show what a model paints: diversity, nearest drawings, the showcase, a film of training."""

import json
import shlex
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from test_evaluate_run import Discs
from test_scripts import script
from toy_clip import save_clip
from toy_training import run_toy

from unclip.cli import main as unclip_main
from unclip.data.icons import IconStream
from unclip.data.icons.captions import STYLE_PHRASES, canonical
from unclip.data.icons.english import with_article
from unclip.errors import RequestError
from unclip.evaluate.suite import icons_suite
from unclip.images import grid
from unclip.pipeline import load


@pytest.fixture(scope="module")
def diversity():
    return script("diversity_figures")


@pytest.fixture(scope="module")
def nearest():
    return script("nearest_figures")


@pytest.fixture(scope="module")
def film():
    return script("training_film")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("judges") / "judge", 3)


def call(module, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    module.main()


def image_of(path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def test_things_are_drawn_by_all_styles_and_seen_in_training(diversity):
    listing = Discs().listing
    found = diversity.drawn_by_all(listing)
    held = {drawing.thing for drawing in listing if drawing.split == "thing"}
    assert {by_style["noto"].thing for by_style in found} == {drawing.thing for drawing in listing} - held
    lacking = next(drawing for drawing in listing if drawing.split == "pair")
    fewer = diversity.drawn_by_all([drawing for drawing in listing if drawing is not lacking])
    assert len(fewer) == len(found) - 1


def test_things_are_chosen_by_the_seed_alone(diversity):
    stream = IconStream(Discs(), 0)
    things = diversity.choose(stream, 6, 0)
    again, other = ([thing.name for thing in diversity.choose(stream, 3, seed)] for seed in (0, 1))
    assert again == [thing.name for thing in things[:3]] != other
    assert [thing.style for thing in things] == [*STYLE_PHRASES, *STYLE_PHRASES][:6]
    assert things[1].prompt("bare") == with_article(things[1].name)
    named = next(drawing for drawing in stream.listing() if drawing.key == f"{things[1].style}/{things[1].name}")
    assert things[1].prompt("in a style") == canonical(named)
    assert things[1].drawings[1].tobytes() == stream.canonical(named.index, 64).image.tobytes()
    with pytest.raises(RequestError, match="--prompts 99: expected from 1 to"):
        diversity.choose(stream, 99, 0)


def test_the_ratio_is_of_pictures_to_drawings_and_half_is_enough(diversity):
    told = diversity.figures(np.array([0.1, 0.3, 0.2]), np.array([0.4, 0.6, 0.2]))
    assert told["ratio"]["value"] == 0.5
    assert told["by_prompt"] == [0.25, 0.5, 1.0]
    assert told["at_least_half"]["value"] == pytest.approx(2 / 3, abs=1e-6)


def test_the_diversity_script_tells_of_every_way(diversity, micro_bundle, judge, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(diversity, "Drawings", Discs)
    monkeypatch.setattr(diversity, "SEEDS", 3)
    options = [micro_bundle, "--judge", judge, "--prompts", 2, "--out", tmp_path, "--options", "", "steps=2 guidance=1"]
    call(diversity, monkeypatch, *options)
    report = json.loads((tmp_path / "diversity.json").read_text())
    assert list(report["ways"]) == ["", "steps=2 guidance=1"]
    assert report["ways"][""] != report["ways"]["steps=2 guidance=1"]
    # The figures are those of the pictures that the prompts and seeds give.
    things = diversity.choose(IconStream(Discs(), 0), 2, 0)
    assert report["things"] == [thing.name for thing in things]
    painted = load(micro_bundle).generate([thing.prompt("in a style") for thing in things], n=3, size=64, exact=False)
    x = np.stack([np.asarray(image, float) for image in painted]).reshape(2, 3, -1)
    pairs = [np.sqrt(((x[:, i] - x[:, j]) ** 2).mean(1)) / 255 for i, j in ((0, 1), (0, 2), (1, 2))]
    told = report["ways"][""]["in a style"]["pixels"]["pictures"]["value"]
    assert told == pytest.approx(np.mean(pairs), abs=2e-3)  # batches differ a little
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 2 * 2
    with Image.open(tmp_path / "diversity.webp") as sheet:
        assert sheet.width == 8 * 70 + 6 + 12


def test_the_nearest_is_the_one_that_was_copied(nearest):
    rng = np.random.default_rng(0)
    training = {"judge": np.eye(4), "pixels": rng.integers(0, 256, (4, 12), dtype=np.uint8)}
    copied = {"judge": np.eye(4)[[2, 0]], "pixels": training["pixels"][[1, 3]]}
    found = nearest.nearest(copied, training)
    assert (found["judge"].place.tolist(), found["pixels"].place.tolist()) == ([2, 0], [1, 3])
    assert (found["judge"].distance.tolist(), found["pixels"].distance.tolist()) == ([0, 0], [0, 0])


def test_copies_are_told_from_pictures_like_unseen_drawings(nearest):
    discs = Discs()
    training = [drawing for drawing in discs.listing if drawing.split == "train"]
    keys = [drawing.key for drawing in training]
    items = icons_suite(discs, samples=10, size=64, splits=["train", "pair"])
    known, held = items[:10], items[10:]
    unseen = np.linspace(0.1, 0.2, 101)
    own = np.array([keys.index(item.meta["drawings"][0]) for item in known])
    copies = nearest.figures(known, nearest.Nearest(own, np.zeros(10)), np.zeros(10), unseen, training)
    shares = ("nearer_than_half", "nearer_than_95_percent", "shows_its_thing", "is_its_drawing")
    assert [copies[name]["value"] for name in shares] == [1, 1, 1, 1]
    assert "nearer_than_its_render" not in copies
    distance = np.linspace(0.1, 0.2, len(held))
    renders = distance + np.where(np.arange(len(held)) % 2, 0.01, -0.01)
    others = nearest.figures(held, nearest.Nearest(np.zeros(len(held), int), distance), renders, unseen, training)
    assert others["nearer_than_half"]["value"] == others["nearer_than_its_render"]["value"] == 0.5
    assert others["nearer_than_95_percent"]["value"] == pytest.approx(0.1)  # the first of ten
    assert others["quantiles"]["50"] == pytest.approx(0.15)
    assert "is_its_drawing" not in others


def test_the_nearest_script_shows_each_picture_beside_two_drawings(
    nearest, micro_bundle, judge, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(nearest, "Drawings", Discs)
    call(nearest, monkeypatch, micro_bundle, "--judge", judge, "--samples", 4, "--out", tmp_path)
    report = json.loads((tmp_path / "nearest.json").read_text())
    counts = {split: sum(drawing.split == split for drawing in Discs().listing) for split in ("train", "pair", "thing")}
    assert report["training_drawings"] == counts["train"]
    for eye in ("judge", "pixels"):
        assert {split: told["n"] for split, told in report[eye]["pictures"].items()} == {"train": 4, "pair": 4}
        assert {split: told["n"] for split, told in report[eye]["unseen drawings"].items()} == {
            split: counts[split] for split in ("pair", "thing")
        }
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 4
    with Image.open(tmp_path / "nearest.webp") as sheet:
        assert sheet.width == 6 * (3 * 70 + 6 + 6) + 6


def test_the_showcase_is_what_its_commands_paint(micro_bundle, tmp_path, monkeypatch, capsys):
    showcase = script("showcase")
    monkeypatch.setattr(showcase, "PROMPTS", dict([*showcase.PROMPTS.items()][:2]))
    monkeypatch.setattr(showcase, "SEEDS", 3)
    drawn = []
    monkeypatch.setattr(showcase, "save_lossy", lambda frames, path, limit: drawn.append((frames, path.name)))
    call(showcase, monkeypatch, "--model", micro_bundle, "--out", tmp_path)
    ((sheet,), name) = drawn[0]
    text = (tmp_path / "showcase.md").read_text()
    assert f"]({name})" in text
    assert "`tiny`, version 1" in text
    commands = [line.split("`")[1] for line in text.splitlines() if "unclip generate" in line]
    rows = []
    for number, command in enumerate(commands):
        words = [tmp_path / str(number) if word == "out" else word for word in shlex.split(command)]
        assert unclip_main([*map(str, words[1:]), "--model", str(micro_bundle)]) == 0
        rows.append(grid([image_of(path) for path in capsys.readouterr().out.splitlines()], 3))
    expected = grid(rows, 1, list(showcase.PROMPTS))
    assert len(commands) == 2
    assert np.abs(np.asarray(sheet, int) - np.asarray(expected, int)).max() <= 2


def test_every_prompt_of_the_showcase_is_asked_for_once():
    showcase = script("showcase")
    page = showcase.page("a model")
    assert [page.count(showcase.command(prompt)) for prompt in showcase.PROMPTS] == [1] * 12


def test_a_film_has_a_frame_for_each_preview_and_tells_what_was_seen(film, tmp_path, monkeypatch):
    run_toy(tmp_path / "run", steps=40)
    found = film.previews(tmp_path / "run")
    assert [preview.images for preview in found] == [0, 80, 160, 240, 320]
    for preview in found:  # as wide as what is written on it, which a toy's are not
        image_of(preview.path).resize((240, 6)).save(preview.path)
    bands = [film.frame(image_of(preview.path), preview.images) for preview in found]
    assert len({band.crop((0, 0, 240, film.BAND)).tobytes() for band in bands}) == 5
    assert bands[2].crop((0, film.BAND, 240, film.BAND + 6)).tobytes() == image_of(found[2].path).tobytes()
    out = tmp_path / "film.webp"
    call(film, monkeypatch, tmp_path / "run", "-o", out)
    with Image.open(out) as shown:
        assert (getattr(shown, "n_frames"), shown.height) == (5, 6 + film.BAND)  # noqa: B009  # which plain pictures lack
    call(film, monkeypatch, tmp_path / "run", "-o", out, "--frames", 2)
    with Image.open(out) as shown:
        assert getattr(shown, "n_frames") == 2  # noqa: B009


def test_a_film_is_thinned_where_pictures_differ_least(film):
    assert film.thinned(5, 5) == [0, 1, 2, 3, 4]
    places = film.thinned(200, 20)
    assert (places[0], places[-1]) == (0, 199)
    assert len(places) <= 20
    gaps = np.diff(places)
    assert gaps[0] == 1
    assert (np.diff(gaps) >= -1).all()
    assert gaps[-1] > 20


def test_a_film_of_finished_models_goes_by_what_they_saw(film, micro_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(film, "PROMPTS", ["a red square", "a blue disc"])
    monkeypatch.setattr(film, "SEEDS", 2)
    shutil.copytree(micro_bundle, tmp_path / "other")
    call(film, monkeypatch, f"{micro_bundle}=9000", f"{tmp_path}/other=80", "-o", tmp_path / "film.webp")
    with Image.open(tmp_path / "film.webp") as shown:
        assert getattr(shown, "n_frames") == 2  # noqa: B009
    with pytest.raises(RequestError, match=r"icons: expected a run's folder alone, or models, each as MODEL=IMAGES"):
        call(film, monkeypatch, "icons", "-o", tmp_path / "film.webp")


def test_a_run_that_shows_nothing_makes_no_film(film, tmp_path):
    with pytest.raises(RequestError, match="has no previews"):
        film.previews(tmp_path)
    (tmp_path / "previews").mkdir()
    Image.new("RGB", (6, 6)).save(tmp_path / "previews" / "000010.png")
    with pytest.raises(RequestError, match=r"has no 000010\.json beside it"):
        film.previews(tmp_path)
