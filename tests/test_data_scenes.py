"""The scene grammar: what is said is what is placed, and what is said wrong is wrong."""

import json
from random import Random

import numpy as np
import pytest

from unclip.data.icons import canvas
from unclip.data.icons.scenes import (
    CATEGORIES,
    COUNTS,
    Object,
    Place,
    Scene,
    counterfactuals,
    describe,
    draw,
    draw_background,
    layout,
    scene_of,
)

CUP, HAT = Object("cup"), Object("hat")
FULL = (0.0, 0.0, 1.0, 1.0)
NAMES = ["cup", "hat", "dog", "orange", "axe", "key", "bus"]


def some_scenes(category: str, count: int = 60) -> list[Scene]:
    scenes = []
    for seed in range(count):
        rng = Random(seed)
        scenes.append(draw(rng, category, lambda rng=rng: rng.choice(NAMES), lambda name: name != "orange"))
    return scenes


def meta(scene: Scene) -> dict:
    return {"scene": scene.record(), "others": ["lamp", "owl", "pear"]}


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene("single", (CUP,)), "a cup"),
        (Scene("single", (CUP,), form="upside-down"), "an upside-down cup"),
        (Scene("counting", (CUP,), count=3, background=("blue",)), "three cups on a blue background"),
        (Scene("colors", (Object("axe", "orange"),), prefix="a flat icon of "), "a flat icon of an orange axe"),
        (Scene("two_objects", (CUP, HAT)), "a cup and a hat"),
        (Scene("position", (CUP, HAT), relation="left of"), "a cup to the left of a hat"),
        (Scene("position", (CUP, HAT), relation="on top of"), "a cup on top of a hat"),
        (Scene("color_attr", (Object("cup", "red"), Object("hat", "blue"))), "a red cup and a blue hat"),
        (Scene("single", (CUP,), background=("pink", "blue")), "a cup on a pink to blue gradient background"),
    ],
)
def test_captions(scene, caption):
    assert describe(scene) == caption


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_scene_survives_json(category):
    for scene in some_scenes(category, 10):
        assert scene_of(json.loads(json.dumps(scene.record()))) == scene


@pytest.mark.parametrize("category", CATEGORIES)
def test_scenes_have_what_their_category_asks(category):
    for scene in some_scenes(category):
        pair = category in ("two_objects", "position", "color_attr")
        tinted = category in ("colors", "color_attr")
        assert len({thing.name for thing in scene.objects}) == 1 + pair
        assert all((thing.color is not None) == tinted for thing in scene.objects)
        assert (scene.count in COUNTS) == (category == "counting")
        assert (scene.relation is not None) == (category == "position")
        assert not (tinted and any(thing.name == "orange" for thing in scene.objects))


@pytest.mark.parametrize("category", CATEGORIES)
def test_counterfactuals_differ_from_the_truth_and_each_other(category):
    for scene in some_scenes(category):
        wrong = counterfactuals(meta(scene))
        assert len(wrong) >= 3
        assert len(set(wrong)) == len(wrong)
        assert describe(scene) not in wrong


def test_counterfactuals_change_what_the_category_is_about():
    position = counterfactuals(meta(Scene("position", (CUP, HAT), relation="left of")))
    assert {"a hat to the left of a cup", "a cup to the right of a hat", "a cup above a hat"} <= set(position)
    binding = counterfactuals(meta(Scene("color_attr", (Object("cup", "red"), Object("hat", "blue")))))
    assert "a blue cup and a red hat" in binding
    counting = counterfactuals(meta(Scene("counting", (CUP,), count=2)))
    assert {"three cups", "four cups", "two lamps"} <= set(counting)
    assert "two blue cups" not in counting


def test_the_same_facts_in_another_order_are_no_counterfactual():
    assert "a hat and a cup" not in counterfactuals(meta(Scene("two_objects", (CUP, HAT))))
    position = counterfactuals(meta(Scene("position", (CUP, HAT), relation="above")))
    assert "a hat below a cup" not in position
    standing = counterfactuals(meta(Scene("position", (CUP, HAT), relation="on top of")))
    assert "a cup above a hat" not in standing  # true as well
    assert "a hat on top of a cup" in standing


def centre(place: Place) -> tuple[float, float]:
    return place.left + place.side / 2, place.top + place.side / 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("relation", "axis", "sign"),
    [("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("below", 1, 1), ("on top of", 1, -1)],
)
def test_relations_are_placed_as_said(relation, axis, sign, seed):
    places = layout(Scene("position", (CUP, HAT), relation=relation), [FULL, FULL], Random(seed))
    first, second = (next(place for place in places if place.object == index) for index in (0, 1))
    distance = centre(first)[axis] - centre(second)[axis]
    assert sign * distance > 0.3
    assert abs(centre(first)[1 - axis] - centre(second)[1 - axis]) < 0.05


@pytest.mark.parametrize("count", COUNTS)
def test_copies_do_not_overlap_and_stay_inside(count):
    for seed in range(30):
        places = layout(Scene("counting", (CUP,), count=count), [FULL], Random(seed))
        assert len(places) == count
        for number, one in enumerate(places):
            assert -1e-9 <= one.left <= 1 - one.side + 1e-9
            assert -1e-9 <= one.top <= 1 - one.side + 1e-9
            for other in places[number + 1 :]:
                apart = max(abs(one.left - other.left), abs(one.top - other.top))
                assert apart >= one.side - 1 / canvas.GRID


def test_what_stands_on_something_touches_it():
    boxes = [(0.2, 0.3, 0.8, 0.7), (0.1, 0.2, 0.9, 0.9)]
    lower, upper = layout(Scene("position", (CUP, HAT), relation="on top of"), boxes, Random(0), jitter=0.0)
    bottom_of_upper = upper.top + boxes[0][3] * upper.side
    top_of_lower = lower.top + boxes[1][1] * lower.side
    assert 0 <= bottom_of_upper - top_of_lower < 0.08


def test_backgrounds_keep_away_from_the_objects_colors():
    drawn = [draw_background(Random(seed), plain=0.0, avoid=["blue", "green"]) for seed in range(200)]
    assert all("blue" not in name and "green" not in name for background in drawn for name in background)
    assert {len(background) for background in drawn} == {1, 2}
    assert draw_background(Random(0), plain=1.0) == ()


def test_a_gradient_goes_from_one_color_to_the_other():
    down = canvas.fill(64, ((0, 0, 0), (255, 255, 255)), 0)
    assert (np.diff(down[:, 0, 0].astype(int)) >= 0).all()
    assert (down[:, :1] == down).all()
    assert (canvas.fill(64, ((0, 0, 0), (255, 255, 255)), 1) == down.swapaxes(0, 1)).all()
    assert (canvas.fill(8, ((1, 2, 3),)) == (1, 2, 3)).all()


@pytest.mark.parametrize("name", sorted(canvas.COLORS))
def test_a_tinted_layer_has_the_color_in_the_middle(name):
    """A layer of one shade becomes the colour itself, whatever the shade was; transparent pixels stay transparent."""
    for shade in (30, 128, 230):
        layer = np.full((4, 4, 4), shade, dtype=np.uint8)
        layer[..., 3] = 255
        layer[0] = 0
        tinted = canvas.tint(layer, canvas.COLORS[name])
        assert np.abs(tinted[1:, :, :3].astype(int) - canvas.COLORS[name]).max() <= 2
        assert (tinted[0] == 0).all()


def test_paste_blends_premultiplied_and_cuts_at_the_edge():
    picture = canvas.fill(4, ((255, 255, 255),))
    layer = np.zeros((4, 4, 4), dtype=np.uint8)
    layer[...] = (100, 0, 0, 128)  # half transparent, premultiplied
    canvas.paste(picture, layer, 2, -2)
    assert (picture[:2, 2:] == (100 + 127, 127, 127)).all()
    assert (picture[2:] == 255).all()
    assert (picture[:, :2] == 255).all()
    canvas.paste(picture, layer, 9, 9)  # wholly outside
    assert (picture[2:] == 255).all()
