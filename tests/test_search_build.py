"""An index is what its sources, CLIP and options say: made in one go, killed and gone on with, or brought up to date."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import toy_search
from PIL import Image
from toy_clip import save_clip
from toy_search import contents, fill, film, png, write_tar

from unclip import files
from unclip.cli import main
from unclip.clip import Clip, load_clip, unit
from unclip.errors import DataError
from unclip.search import build as building
from unclip.search.build import build
from unclip.search.layout import Index
from unclip.search.sources import list_sources
from unclip.search.twins import find_twins


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return load_clip(save_clip(tmp_path_factory.mktemp("clips") / "micro", 1), precision="fp32")


@pytest.fixture
def few(monkeypatch):
    """Parts and batches of few."""
    monkeypatch.setattr(building, "PART", 8)
    monkeypatch.setattr(building, "BATCH", 4)


def make(clip, out, *sources, **options):
    return build(list_sources(sources), out, clip, **options)


def paths(index: Index) -> list[str]:
    return [row["image_path"] for row in index.rows(range(len(index)))]


def test_rows_are_what_clip_says_of_each_picture_and_caption(tmp_path, clip, few):
    fill(tmp_path / "p", range(19), {3: "a red disc", 11: "a blue square"})
    report = make(clip, tmp_path / "out", tmp_path / "p")
    index = Index(tmp_path / "out")
    assert (report.rows, report.added, report.kept, len(index)) == (19, 19, 0, 19)
    assert paths(index) == [str(tmp_path / "p" / f"{number:03}.png") for number in range(19)]
    z = unit(clip.images([Image.open(path) for path in paths(index)]))
    assert (torch.from_numpy(np.concatenate(index.images)).float() - z).abs().max() < 1e-3
    texts = torch.from_numpy(np.concatenate(index.texts)).float()
    told = unit(clip.texts(["a red disc", "a blue square"]))
    assert (texts[[3, 11]] - told).abs().max() < 1e-3
    assert (texts.norm(dim=1) > 0).nonzero().flatten().tolist() == [3, 11]
    row = index.rows([3])[0]
    assert (row["caption"], row["kind"], row["width"], row["height"], row["time"]) == ("a red disc", "picture", 40, 30, None)
    assert index.manifest.clip.fingerprint == clip.fingerprint
    assert index.manifest.sources == (str(tmp_path / "p"),)


def test_shards_hold_so_many_rows_each(tmp_path, clip, few, monkeypatch):
    fill(tmp_path / "p", range(11), {10: "the last"})
    make(clip, tmp_path / "one", tmp_path / "p")
    monkeypatch.setattr(building, "SHARD_ROWS", 4)
    make(clip, tmp_path / "many", tmp_path / "p")
    one, many = Index(tmp_path / "one"), Index(tmp_path / "many")
    assert [len(shard) for shard in many.images] == [4, 4, 3]
    assert np.array_equal(np.concatenate(many.images), one.images[0])
    assert np.array_equal(np.concatenate(many.texts), one.texts[0])
    assert many.rows(range(11)) == one.rows(range(11))


def test_tars_and_videos_stand_beside_folders(tmp_path, clip):
    film(tmp_path / "f.mp4", [1, 2, 2, 3])
    write_tar(tmp_path / "t.tar", [("a.png", png(1)), ("a.txt", b"tiles"), ("b.png", png(2))])
    report = make(clip, tmp_path / "out", tmp_path / "t.tar", tmp_path / "f.mp4", every=0.5)
    index = Index(tmp_path / "out")
    assert (report.rows, report.added) == (5, 3)
    film_path, tar = str(tmp_path / "f.mp4"), str(tmp_path / "t.tar")
    assert paths(index) == [film_path] * 3 + [f"{tar}#a", f"{tar}#b"]
    rows = index.rows(range(5))
    assert [(row["kind"], row["time"], row["until"]) for row in rows[:3]] == [
        ("frame", 0, 1),
        ("frame", 1, 3),
        ("frame", 3, 4),
    ]
    assert rows[3]["caption"] == "tiles"
    # the options of before hold until others are given, which only the videos depend on
    assert make(clip, tmp_path / "out", tmp_path).kept == 3
    assert make(clip, tmp_path / "out", tmp_path, every=2).changed == 1
    assert [row["time"] for row in Index(tmp_path / "out").rows([0, 1])] == [0, 2]


def test_bringing_up_to_date_embeds_what_is_new_or_changed_and_drops_the_rest(tmp_path, clip, few, monkeypatch):
    fill(tmp_path / "p", range(12), {4: "four"})
    make(clip, tmp_path / "out", tmp_path / "p")
    old = Index(tmp_path / "out")
    fill(tmp_path / "p", [40, 41])
    shutil.copy(tmp_path / "p" / "041.png", tmp_path / "p" / "002.png")
    for gone in ("004.png", "004.txt", "007.png"):
        (tmp_path / "p" / gone).unlink()
    seen = []
    monkeypatch.setattr(clip, "pixels", lambda x, pixels=clip.pixels: seen.append(len(x)) or pixels(x))
    report = make(clip, tmp_path / "out", tmp_path / "p")
    assert (report.kept, report.added, report.changed, report.deleted, report.rows) == (9, 2, 1, 2, 12)
    assert sum(seen) == 3
    new = Index(tmp_path / "out")
    assert new.texts is None  # the only caption has gone
    make(clip, tmp_path / "fresh", tmp_path / "p")
    fresh = Index(tmp_path / "fresh")
    assert new.rows(range(12)) == fresh.rows(range(12))
    assert np.abs(new.images[0].astype(float) - fresh.images[0]).max() < 1e-3
    assert np.array_equal(new.images[0][0], old.images[0][0])


def test_nothing_is_written_when_nothing_has_changed(tmp_path, clip):
    fill(tmp_path / "p", range(3))
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    make(clip, tmp_path / "out", tmp_path / "p")
    before = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*")}
    report = make(clip, tmp_path / "out", tmp_path / "p")
    assert (report.kept, report.added, list(report.faults)) == (3, 0, [str(tmp_path / "p" / "bad.png")])
    assert {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*")} == before


def test_broken_files_are_counted_and_named_and_the_rest_is_indexed(tmp_path, clip, few):
    fill(tmp_path / "p", range(10), {1: "one"})
    (tmp_path / "p" / "001.txt").write_bytes(b"\xff\xff")
    (tmp_path / "p" / "003.png").write_bytes(b"no picture")
    (tmp_path / "p" / "004.png").write_bytes(png(4)[:-30])
    (tmp_path / "p" / "cut.mp4").write_bytes(b"no video")
    cut = film(tmp_path / "p" / "cut.mkv", [1, 2, 3, 4, 5, 6], every_key=5)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    report = make(clip, tmp_path / "out", tmp_path / "p")
    told = {os.path.basename(name): reason for name, reason in report.faults.items()}
    assert set(told) == {"001.txt".replace("txt", "png"), "003.png", "004.png", "cut.mp4", "cut.mkv"}
    assert told["003.png"] == "not a readable picture: of no format known"
    assert told["cut.mkv"].startswith("cut off")
    listed = [os.path.basename(path) for path in paths(Index(tmp_path / "out"))]
    assert [name for name in listed if name.endswith("png")] == [f"{n:03}.png" for n in range(10) if n not in (3, 4)]
    assert listed.count("cut.mkv") >= 2


def test_nothing_that_can_be_read_leaves_nothing(tmp_path, clip):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"nothing in .*p can be read: .*bad.png \(not a readable picture"):
        make(clip, tmp_path / "out", tmp_path / "p")
    assert not (tmp_path / "out").exists()


def test_another_clips_index_is_refused_until_it_is_made_again(tmp_path, clip):
    fill(tmp_path / "p", range(3))
    make(clip, tmp_path / "out", tmp_path / "p")
    other = load_clip(save_clip(tmp_path / "other", 2), precision="fp32")
    with pytest.raises(DataError, match=rf"another CLIP, micro \({clip.fingerprint[:12]}\), not other .* --again") as error:
        make(other, tmp_path / "out", tmp_path / "p")
    assert "\n" not in str(error.value)
    assert make(other, tmp_path / "out", tmp_path / "p", again=True).added == 3
    assert Index(tmp_path / "out").manifest.clip.name == "other"


@pytest.mark.parametrize("again", [False, True])
def test_what_is_not_ours_is_left_alone(tmp_path, clip, again):
    fill(tmp_path / "p", [1])
    with pytest.raises(DataError, match="is there and is no index of ours"):
        make(clip, tmp_path / "p", tmp_path / "p", again=again)
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["001.png"]


def test_two_at_once_are_one(tmp_path, clip):
    fill(tmp_path / "p", [1])
    with files.locked(tmp_path / ".out.lock"), pytest.raises(DataError, match="is being made by another process"):
        make(clip, tmp_path / "out", tmp_path / "p")
    assert make(clip, tmp_path / "out", tmp_path / "p").rows == 1


@pytest.mark.parametrize("full_at", [1, 5])
def test_a_full_disk_is_one_line_and_the_old_index_stays(tmp_path, clip, few, monkeypatch, full_at):
    fill(tmp_path / "p", range(10))
    make(clip, tmp_path / "out", tmp_path / "p")
    before = contents(tmp_path / "out")
    fill(tmp_path / "p", range(20, 40))
    calls = []

    def full(path):
        calls.append(path)
        if len(calls) > full_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "flush_to_disk", full)
        with pytest.raises(
            DataError, match=r"cannot write .*out: No space left on device; what is finished is kept"
        ) as error:
            make(clip, tmp_path / "out", tmp_path / "p")
    assert "\n" not in str(error.value)
    assert {name: data for name, data in contents(tmp_path / "out").items() if ".building" not in name} == before
    assert make(clip, tmp_path / "out", tmp_path / "p").rows == 30


def script(name: str, *arguments: object) -> dict:
    command = [sys.executable, toy_search.__file__, name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    save_clip(tmp_path / "clip", 1)
    fill(tmp_path / "pictures", range(60), {7: "a red disc", 50: "two green stars"})
    film(tmp_path / "pictures" / "film.mp4", [1, 2, 3])
    report = script("killed_at_random", tmp_path, 20, 1)
    assert report["wrong"] == []
    assert report["died"] == 20
    assert report["went on"] > 3


def test_dying_at_every_fsync_and_rename_of_an_update_changes_nothing(tmp_path, clip, few):
    save_clip(tmp_path / "clip", 1)
    fill(tmp_path / "pictures", range(14), {7: "a red disc"})
    make(clip, tmp_path / "before", tmp_path / "pictures")
    fill(tmp_path / "pictures", range(20, 28))
    (tmp_path / "pictures" / "003.png").unlink()
    report = script("dies_at_each_call", tmp_path)
    assert report["wrong"] == []
    assert report["deaths"] > 15
    assert report["left"] == []


def test_near_duplicates_come_in_groups(tmp_path, clip):
    fill(tmp_path / "p", range(6))
    for name, number in (("a.png", 1), ("b.png", 1), ("c.png", 4)):
        (tmp_path / "p" / name).write_bytes(png(number))
    film(tmp_path / "p" / "still.mp4", [5, 5])
    make(clip, tmp_path / "out", tmp_path / "p", every=0)
    groups = find_twins(Index(tmp_path / "out"), 0.9999)
    names = [[os.path.basename(twin.row["image_path"]) for twin in group] for group in groups]
    assert names[:2] == [["001.png", "a.png", "b.png"], ["004.png", "c.png"]]
    assert all(twin.cosine > 0.9999 for group in groups for twin in group)


def test_twins_are_found_across_blocks_and_chained(tmp_path, monkeypatch):
    from unclip.search import twins

    monkeypatch.setattr(twins, "BLOCK", 4)
    angles = np.array([0, 90, 20, 180, 92, 10, 270, 30, 181, 40])
    rows = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float16)
    (tmp_path / "img_emb").mkdir()
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", rows)
    labels = np.arange(10)
    monkeypatch.setattr(twins, "_groups", lambda index, found: labels.__setitem__(slice(None), found))
    find_twins(Index(tmp_path), float(np.cos(np.radians(11))))
    assert labels.tolist() == [0, 1, 0, 3, 1, 0, 6, 0, 3, 0]


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_clip(tmp_path / "clip", 1)
    fill(tmp_path / "p", [1, 2])
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "p" / "twin.png").write_bytes(png(2))
    assert main(["search", "index", "p", "-o", "out", "--clip", "clip", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "out\n"
    assert "broken: p/bad.png: not a readable picture" in printed.err
    assert "3 rows: 3 new, 1 broken in " in printed.err
    assert main(["search", "index", "-o", "out", "--clip", "clip", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["index"], told["rows"], told["kept"], told["added"], list(told["faults"])) == (
        "out",
        3,
        3,
        0,
        ["p/bad.png"],
    )
    assert main(["search", "twins", "out", "--above", "0.9999"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["p/002.png", "p/twin.png"]
    assert main(["search", "twins", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"][0][0]["path"].startswith("p/")
    assert main(["search", "index", "-o", "none"]) == 2
    assert "nothing to index" in capsys.readouterr().err
