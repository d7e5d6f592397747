"""What is found in folders, tars and tables, in which order, with which captions, and what is said of the rest."""

import json
import os

import pytest
from toy_search import fill, film, png, write_tar

from unclip.errors import DataError
from unclip.search.sources import list_sources


def found(*sources):
    return {entry.path: entry.words() for entry in list_sources(sources).entries}


def test_folders_are_read_all_the_way_down_in_order_without_what_is_hidden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "a" / "deep", [3, 1], {1: " one\n disc "})
    fill(tmp_path / "a" / ".hidden", [7])
    (tmp_path / "a" / "B.JPG").write_bytes(b"")
    (tmp_path / "a" / ".dot.png").write_bytes(png(1))
    (tmp_path / "a" / "notes.md").write_text("no picture")
    (tmp_path / "a" / "B.txt").write_text("")
    listing = list_sources(["./a"])
    assert {entry.path: entry.words() for entry in listing.entries} == {
        "a/B.JPG": None,
        "a/deep/001.png": "one disc",
        "a/deep/003.png": None,
    }
    assert [entry.path for entry in listing.entries] == sorted(entry.path for entry in listing.entries)
    assert (listing.passed_over, listing.faults) == (1, {})


def test_a_file_named_twice_is_one_entry(tmp_path):
    fill(tmp_path, [1, 2], {2: "two"})
    assert len(found(tmp_path, tmp_path / "002.png", tmp_path)) == 2
    assert found(tmp_path / "002.png") == {f"{tmp_path}/002.png": "two"}


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_a_table_gives_captions_to_some(tmp_path, table):
    fill(tmp_path, [1, 2, 3], {3: "beside"})
    rows = {"metadata.jsonl": '{"file_name": "001.png", "text": "one"}', "metadata.csv": 'file_name,text\n001.png,"one"\n'}
    (tmp_path / table).write_text(rows[table])
    assert list(found(tmp_path).values()) == ["one", None, "beside"]


def test_a_table_of_something_else_is_named_and_the_pictures_stay(tmp_path):
    fill(tmp_path, [1])
    (tmp_path / "metadata.csv").write_text("a,b\n1,2\n")
    listing = list_sources([tmp_path])
    assert len(listing.entries) == 1
    assert "has the columns a, b" in listing.faults[str(tmp_path / "metadata.csv")]


def test_a_tars_samples_have_captions_or_none(tmp_path):
    members = [("one.png", png(1)), ("one.txt", b"one"), ("two.png", png(2)), ("three.jpg", b"broken")]
    members += [("two.json", json.dumps({"caption": "two"}).encode()), ("text.txt", b"alone"), ("x/one.png", png(3))]
    members += [("x/one.cls", b"7"), ("x/one.json", b'{"caption": null}')]
    tar = write_tar(tmp_path / "s.tar", members)
    listing = list_sources([tmp_path])
    words = {entry.path.removeprefix(f"{tar}#"): entry.words() for entry in listing.entries}
    assert words == {"one": "one", "three": None, "two": "two", "x/one": None}
    contents = {entry.path.removeprefix(f"{tar}#"): entry.content.read() for entry in listing.entries}
    assert contents == {"one": png(1), "three": b"broken", "two": png(2), "x/one": png(3)}
    assert (listing.passed_over, listing.faults) == (1, {})


def test_a_torn_tar_gives_what_is_whole_and_is_named(tmp_path):
    whole = write_tar(tmp_path / "s.tar", [(f"{number}.png", png(number)) for number in range(6)]).read_bytes()
    size = 512 + -len(png(0)) // 512 * -512
    for cut, left in ((2 * size + 512 + 40, 2), (3 * size + 100, 3)):
        (tmp_path / "s.tar").write_bytes(whole[:cut])
        listing = list_sources([tmp_path / "s.tar"])
        assert len(listing.entries) == left
        assert "torn" in listing.faults[str(tmp_path / "s.tar")]
    (tmp_path / "s.tar").write_bytes(b"no tar at all" * 99)
    with pytest.raises(DataError, match=r"nothing to look at in .*broken: .*s.tar \(not a tar that can be read"):
        list_sources([tmp_path / "s.tar"])


def test_stamps_change_with_the_picture_and_with_its_caption(tmp_path):
    fill(tmp_path, [1], {1: "one"})
    stamps = [list_sources([tmp_path]).entries[0].stamp]
    (tmp_path / "001.txt").write_text("another one")
    stamps.append(list_sources([tmp_path]).entries[0].stamp)
    os.utime(tmp_path / "001.png", ns=(1, 1))
    stamps.append(list_sources([tmp_path]).entries[0].stamp)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "001.png", "text": "told"}')
    stamps.append(list_sources([tmp_path]).entries[0].stamp)
    assert len(set(stamps)) == 4
    assert list_sources([tmp_path]).entries[0].stamp == stamps[-1]


@pytest.mark.parametrize("text", [b"\xff\xfe\xfa", b"[1, 2", b"[1, 2]"], ids=["latin", "torn", "a list"])
def test_a_caption_that_cannot_be_read(tmp_path, text):
    tar = write_tar(tmp_path / "s.tar", [("one.png", png(1)), ("one.json", text)])
    entry = list_sources([tar]).entries[0]
    if text == b"[1, 2]":
        assert entry.words() is None
        return
    with pytest.raises(Exception, match="its caption cannot be read"):
        entry.words()


def test_videos_are_found_by_their_suffix(tmp_path):
    film(tmp_path / "a.MP4", [1])
    assert [entry.kind for entry in list_sources([tmp_path]).entries] == ["video"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("gone", r"gone is not there: expected folders, pictures \(jpg"),
        ("empty", r"nothing to look at in .*empty \(1 files passed over\): expected pictures"),
        ("notes.md", "notes.md is of no kind known: expected pictures"),
    ],
)
def test_sources_that_are_none(tmp_path, source, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.pdf").write_text("x")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match=words) as error:
        list_sources([tmp_path / source])
    assert "\n" not in str(error.value)
