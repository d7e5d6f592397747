"""The thesaurus, from a WordNet and keywords of our own: synonyms, kinds, keywords, feelings, colours, and what is none."""

import hashlib
import io
import tarfile

import pytest

from unclip.data.icons import packages
from unclip.data.icons.packages import THESAURUS, read_files
from unclip.data.icons.selection import Drawing
from unclip.data.icons.thesaurus import known_things, thesaurus, words_alike
from unclip.data.icons.vocabulary import to_json
from unclip.data.icons.wordnet import FILES, WordNet
from unclip.errors import DataError

ANIMAL, ARTIFACT, ATTRIBUTE, FEELING, PERSON, POSSESSION, TOP = 5, 6, 7, 12, 18, 21, 3
NOUNS = {  # words: (lexicographer's file, above, gloss)
    "entity": (TOP, "", "that which is"),
    "animal": (ANIMAL, "entity", "a living thing that moves"),
    "cat,true cat": (ANIMAL, "animal", "feline mammal with fur"),
    "tabby,tabby cat": (ANIMAL, "cat,true cat", "a cat with stripes"),
    "Felis catus,house tiger": (ANIMAL, "cat,true cat", "any domesticated cat"),
    "kitten,kitty": (ANIMAL, "animal", "young domestic cat"),
    "pool,kitty": (POSSESSION, "entity", "the stakes of the betters"),
    "mouser,rude mouser": (ANIMAL, "cat,true cat", "an offensive name for a cat"),
    "crane": (ANIMAL, "animal", "large bird"),
    "crane,derrick": (ARTIFACT, "tool", "lifts heavy things with hooks"),
    "tool": (ARTIFACT, "entity", "an implement"),
    "keyboard,clavier": (ARTIFACT, "tool", "a set of keys"),
    "piano,pianoforte": (ARTIFACT, "keyboard,clavier", "keys that strike strings"),
    "person": (PERSON, "entity", "a human being"),
    "monarch": (PERSON, "person", "a ruler"),
    "queen,female monarch": (PERSON, "monarch", "a woman who rules"),
    "queen": (ANIMAL, "cat,true cat", "a female cat that has kittens"),
    "worker": (PERSON, "person", "somebody who works"),
    "doctor": (PERSON, "worker", "somebody who heals"),
    "anger": (FEELING, "entity", "a strong emotion"),
    "chromatic color": (ATTRIBUTE, "entity", "a colour that has hue"),
    "red": (ATTRIBUTE, "chromatic color", "of blood"),
    "crimson,deep red": (ATTRIBUTE, "red", "a vivid red"),
}
ADJECTIVES = {  # words: (kin, gloss)
    "enraged,furious,maddened": ("anger", "marked by extreme anger"),
    "angry,furious,wild": ("", "of the elements"),
    "striped": ("", "with stripes"),
    "red,ruddy": ("", "of the colour of blood"),
    "happy": ("", "in good spirits"),
}
MET = {"cat": 9, "crane": 1, "queen": 3}  # of each word's first sense


def number(words: str, table: dict) -> str:
    return f"{list(table).index(words) + 1:08d}"


def data_line(words: str, table: dict, file: int, pointers: list[tuple[str, str]], gloss: str) -> str:
    said = [word.replace(" ", "_") for word in words.split(",")]
    listed = " ".join(f"{word} 0" for word in said)
    pointed = " ".join(f"{kind} {target} n 0000" for kind, target in pointers)
    return f"{number(words, table)} {file:02d} n {len(said):02x} {listed} {len(pointers):03d} {pointed} | {gloss}  "


def index_lines(table: dict) -> list[str]:
    senses: dict[str, list[str]] = {}
    for words in table:
        for word in words.split(","):
            senses.setdefault(word.lower().replace(" ", "_"), []).append(number(words, table))
    return [f"{word} n {len(at)} 1 @ {len(at)} 0 {' '.join(at)}" for word, at in sorted(senses.items())]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """WordNet's files, with their licence on top."""
    nouns = [
        data_line(words, NOUNS, file, [("@", number(above, NOUNS))] if above else [], gloss)
        for words, (file, above, gloss) in NOUNS.items()
    ]
    adjectives = [
        data_line(words, ADJECTIVES, 0, [("+", number(kin, NOUNS))] if kin else [], gloss)
        for words, (kin, gloss) in ADJECTIVES.items()
    ]
    first = {line.split()[0]: line.split()[-1 * int(line.split()[2])] for line in index_lines(NOUNS)}
    met = [f"{word}%1:05:00:: {first[word]} 1 {count}" for word, count in MET.items()] + ["striped%5:00:00:: 00000003 1 4"]
    lines = {"data.noun": nouns, "data.adj": adjectives, "index.sense": met, "index.verb": ["paint v 1 1 @ 1 0 00000001  "]}
    lines |= {"index.noun": index_lines(NOUNS), "index.adj": index_lines(ADJECTIVES)}
    return {
        name: "\n".join(["  1 the licence", *content]).encode() for name, content in lines.items() if name != "index.sense"
    } | {"index.sense": "\n".join(met).encode()}


@pytest.fixture(scope="module")
def wordnet(files) -> WordNet:
    return WordNet(files)


def drawing(name: str, keywords: str, category: str = "Objects", split: str = "train", names: str = "") -> Drawing:
    called = (name, *filter(None, names.split(",")))
    return Drawing(0, name, "noto", category, split, called, tuple(filter(None, keywords.split(","))))


THINGS = [
    drawing("cat", "pet", "Animals & Nature"),
    drawing("building crane", "hooks,heavy", names="crane"),
    drawing("musical keyboard", "piano,music"),
    drawing("health worker", "doctor,nurse", "People & Body"),
    drawing("enraged face", "mad,doctor", "Smileys & Emotion"),
    drawing("grinning face", "happy,smile,joy", "Smileys & Emotion"),
    drawing("beaming squinting face", "happy,smile,joy", "Smileys & Emotion"),
    drawing("smirking face", "happy,smug", "Smileys & Emotion"),
    drawing("axe", "wood", split="thing"),
]


@pytest.fixture(scope="module")
def found(wordnet) -> dict[str, dict[str, list[str]]]:
    return thesaurus(known_things(THINGS, wordnet), wordnet, {"axe"})


def test_a_sense_shares_its_words_and_has_others_below(wordnet):
    (cat,) = wordnet.senses["noun"]["cat"]
    assert wordnet.nouns[cat].words == ("cat", "true cat")
    assert wordnet.nouns[wordnet.nouns[cat].above[0]].words == ("animal",)
    assert {wordnet.nouns[one].words[0] for one in wordnet.below[cat]} == {"tabby", "Felis catus", "queen", "mouser"}
    assert (wordnet.often("noun", "cat"), wordnet.often("adj", "striped"), wordnet.often("verb", "cat")) == (9, 4, 0)
    assert [wordnet.nouns[one].file for one in wordnet.senses["noun"]["kitty"]] == [ANIMAL, POSSESSION]


def test_likeness_is_twice_the_depth_of_what_is_shared_over_both_depths(wordnet):
    tabby, tiger, tool = (wordnet.senses["noun"][word][0] for word in ("tabby", "house tiger", "tool"))
    assert wordnet.likeness(tabby, tiger) == 2 * 3 / (4 + 4)  # entity, animal, cat are above both
    assert wordnet.likeness(tabby, tabby) == 1
    assert wordnet.likeness(tabby, tool) == 2 * 1 / (4 + 2)


def test_the_things_sense_is_the_one_that_its_keywords_tell_of(wordnet):
    senses = {thing.name: thing.sense for thing in known_things(THINGS, wordnet)}
    assert wordnet.nouns[senses["building crane"]].words == ("crane", "derrick")
    assert wordnet.nouns[senses["cat"]].words == ("cat", "true cat")
    assert senses["health worker"] is None
    assert "axe" not in senses


def test_synonyms_share_the_sense_and_kinds_are_below_it(found):
    assert found["synonym"] == {"building crane": ["derrick"]}  # "true cat" ends in "cat", which is read anyway
    # "tabby cat" says cat already; Latin, coarse words, and a queen, who is met as another, are none.
    assert found["kind"] == {"cat": ["house tiger", "kitten", "kitty", "tabby"]}


def test_keywords_are_nouns_that_are_near_the_thing(found):
    assert found["keyword"] == {"health worker": ["doctor"], "musical keyboard": ["piano"]}


def test_feelings_are_adjectives_of_a_faces_own_sense_or_its_keywords(found):
    # Of the faces with short names that are happy, the grinning one shares most with the others.
    assert found["feeling"] == {"enraged face": ["furious face", "maddened face"], "grinning face": ["happy face"]}


def test_colours_have_shades(found):
    assert found["color"] == {"red": ["crimson", "deep red", "ruddy"]}


def test_words_one_letter_away_from_names_are_none_of_them(wordnet):
    assert words_alike({"tabbyy", "cranes", "keyboard"}, wordnet, 5) == ["crane", "keyboards", "tabby"]


def test_the_file_is_a_text_of_short_lines():
    text = to_json({"format": 1, "things": {"cat": [], "dog": ["hound " * 9] * 5}, "tags": [f"tag {i}" for i in range(99)]})
    assert max(map(len, text.splitlines())) < 130
    assert text.count("\n") > 10


def test_wordnet_is_read_from_its_pinned_tarball_alone(files, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in {**files, "data.adv": b"", "package.json": b"{}"}.items():
            member = tarfile.TarInfo(f"package/dict/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (tmp_path / THESAURUS.tarball).write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="it is torn or another version"):
        read_files(THESAURUS, tmp_path, FILES)
    own = packages.Package(THESAURUS.name, THESAURUS.version, "own", hashlib.sha512(buffer.getvalue()).hexdigest())
    assert read_files(own, tmp_path, FILES) == files
