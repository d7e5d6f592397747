"""The splits never move: they are hashes of names. Were these numbers to change, trained models had seen the test set."""

import pytest

from unclip.data.icons.splits import color_held_out, fraction, pair_held_out, split_styles

STYLES = ("fluent-emoji", "fluent-emoji-flat", "noto", "twemoji")
THINGS = [f"thing-{number}" for number in range(4000)]


def test_golden_fractions():
    assert fraction("thing", "red-apple") == 0.07805510832991613
    assert fraction("pair", "red-apple", "noto") == 0.8256356477981788


@pytest.mark.parametrize("thing", ["axe", "badger", "beach-with-umbrella", "beverage-box", "black-bird"])
def test_golden_held_out_things(thing):
    assert split_styles(thing, STYLES) == dict.fromkeys(STYLES, "thing")


def test_golden_held_out_pairs_and_colors():
    assert split_styles("amphora", STYLES)["fluent-emoji-flat"] == "pair"
    assert split_styles("accordion", STYLES)["fluent-emoji"] == "pair"
    assert split_styles("red-apple", STYLES) == dict.fromkeys(STYLES, "train")
    colors = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black"]
    assert [color for color in colors if color_held_out("banana", color)] == ["blue", "pink", "gray", "black"]


def test_shares_are_what_they_say():
    splits = [split for thing in THINGS for split in split_styles(thing, STYLES).values()]
    assert splits.count("thing") / len(splits) == pytest.approx(0.05, abs=0.01)
    assert splits.count("pair") / len(splits) == pytest.approx(0.095, abs=0.01)
    assert sum(pair_held_out("a", thing) for thing in THINGS) / len(THINGS) == pytest.approx(0.1, abs=0.015)


def test_a_pair_is_held_out_only_beside_a_trained_style():
    for thing in THINGS:
        splits = split_styles(thing, STYLES).values()
        assert "pair" not in splits or "train" in splits
    assert {split_styles(thing, ["noto"])["noto"] for thing in THINGS} == {"train", "thing"}


def test_the_order_of_names_does_not_matter():
    assert all(pair_held_out("dog", thing) == pair_held_out(thing, "dog") for thing in THINGS[:500])
    assert split_styles("amphora", STYLES) == split_styles("amphora", STYLES[::-1])
