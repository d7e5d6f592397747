"""English for captions, and the captions of single drawings."""

from random import Random

import pytest

from unclip.data.icons import captions
from unclip.data.icons.english import article, is_countable, plural, with_article, words
from unclip.data.icons.names import names
from unclip.data.icons.selection import Drawing

APPLE = Drawing(0, "red-apple", "fluent-emoji", "Food & Drink", "train", ("red apple", "apple"), ("fruit", "school"))


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("red apple", "a red apple"),
        ("avocado", "an avocado"),
        ("hourglass", "an hourglass"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("euro banknote", "a euro banknote"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("x-ray", "an x-ray"),
        ("french fries", "french fries"),
        ("skis", "skis"),
        ("spaghetti", "spaghetti"),
        ("glass of milk", "a glass of milk"),
        ("nest with eggs", "a nest with eggs"),
        ("statue of liberty", "the statue of liberty"),
        ("mount fuji", "mount fuji"),
        ("cactus", "a cactus"),
        ("bus", "a bus"),
        ("people hugging", "people hugging"),
        ("octopus", "an octopus"),
    ],
)
def test_articles(phrase, expected):
    assert with_article(phrase) == expected


@pytest.mark.parametrize(
    ("singular", "expected"),
    [
        ("lemon", "lemons"),
        ("box", "boxes"),
        ("cherry blossom", "cherry blossoms"),
        ("fallen leaf", "fallen leaves"),
        ("wolf", "wolves"),
        ("mouse", "mice"),
        ("fish", "fish"),
        ("key", "keys"),
        ("butterfly", "butterflies"),
        ("slice of pizza", "slices of pizza"),
        ("face with tears of joy", "faces with tears of joy"),
        ("person in a tuxedo", "people in a tuxedo"),
        ("office building", "office buildings"),
        ("wine glass", "wine glasses"),
    ],
)
def test_plurals(singular, expected):
    assert plural(singular) == expected


def test_slugs_are_spelled_as_english():
    assert words("jack-o-lantern") == "jack-o'-lantern"
    assert words("womans-hat") == "woman's hat"
    assert words("see-no-evil-monkey") == "see-no-evil monkey"
    assert article("large") == "a"
    assert not is_countable("popcorn")


def test_our_own_names_come_first_and_once():
    assert names("locked", ["locked"]) == ("closed padlock", "padlock", "lock")
    assert names("puzzle-piece", ["puzzle-piece", "jigsaw"]) == ("puzzle piece", "jigsaw")
    assert names("vampire", ["person-vampire"]) == ("vampire",)


def test_the_canonical_caption():
    assert captions.canonical(APPLE) == "a 3d render of a red apple"


def test_captions_are_drawn_from_the_generator_alone():
    drawn = [captions.caption(APPLE, Random(seed)) for seed in range(300)]
    assert drawn == [captions.caption(APPLE, Random(seed)) for seed in range(300)]
    assert {"a red apple", "red apple", "a 3d icon of a red apple", "a red apple, 3d render"} <= set(drawn)
    assert all("apple" in caption for caption in drawn)
    assert any("fruit" in caption for caption in drawn)


@pytest.mark.parametrize("style", sorted(captions.STYLE_PHRASES))
def test_a_style_is_never_said_of_another(style):
    """No phrase of one style is also one of another's: the words tell the styles apart."""
    own = {*captions.STYLE_PHRASES[style], *captions.STYLE_SUFFIXES[style]}
    others = {
        phrase
        for table in (captions.STYLE_PHRASES, captions.STYLE_SUFFIXES)
        for other, phrases in table.items()
        for phrase in phrases
        if other != style
    }
    assert not own & others
