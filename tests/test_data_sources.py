"""Folders and shards of captioned pictures: both conventions, every way they break, the limit, and no hang."""

import io
import json
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.data import pictures
from unclip.data.folder import FolderSource
from unclip.data.opening import open_source
from unclip.data.shards import ShardSource, read_index
from unclip.errors import DataError


def picture(color: tuple[int, ...] = (200, 30, 60), size: tuple[int, int] = (40, 24), form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA" if len(color) == 4 else "RGB", size, color).save(buffer, form, **options)
    return buffer.getvalue()


def fill(root: Path, count: int) -> None:
    root.mkdir(exist_ok=True)
    for number in range(count):
        (root / f"{number:03}.png").write_bytes(picture((number, 0, 0)))
        (root / f"{number:03}.txt").write_text(f"picture\nnumber {number}\n")


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def shard_members(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    members = []
    for number in range(start, start + count):
        members += [(f"{number:05}.png", picture((number, 0, 0))), (f"{number:05}.txt", f"number {number}".encode())]
    return members


def captions(source, count: int) -> set[str]:
    return {source.sample(position, 8).caption for position in range(count)}


def test_a_folder_with_text_files(tmp_path):
    fill(tmp_path, 6)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "more.JPG").write_bytes(picture(form="JPEG"))
    (tmp_path / "below" / "more.txt").write_text("one more", encoding="utf-8-sig")
    source = FolderSource(tmp_path, 0)
    assert len(source) == 7
    assert captions(source, 7) == {*(f"picture number {number}" for number in range(6)), "one more"}
    sample = source.sample(0, 16)
    assert sample.image.shape == (16, 16, 3)
    assert sample.image.dtype == np.uint8
    assert sample.meta == {"width": 40, "height": 24}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("column", ["text", "caption"])
def test_a_folder_with_a_table(tmp_path, name, column):
    rows = [{"file_name": f"{number}.png", column: f'a "quoted", caption {number}'} for number in range(4)]
    for row in rows:
        (tmp_path / row["file_name"]).write_bytes(picture())
    if name == "metadata.jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        quoted = (f'{row["file_name"]},"{row[column].replace(chr(34), chr(34) * 2)}"\n' for row in rows)
        text = f"file_name,{column}\n" + "".join(quoted)
    (tmp_path / name).write_text(text)
    assert captions(FolderSource(tmp_path, 0), 4) == {row[column] for row in rows}


def test_what_a_table_says_wrong_is_named(tmp_path):
    (tmp_path / "good.png").write_bytes(picture())
    lines = [
        {"file_name": "good.png", "text": "good"},
        {"file_name": "good.png", "text": "twice"},
        {"file_name": "gone.png", "text": "gone"},
        {"file_name": "../outside.png", "text": "outside"},
        {"file_name": "silent.png", "text": " "},
        {"text": "nameless"},
        [1],
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode() + b"\xff\xfe not text\n"
    (tmp_path / "metadata.jsonl").write_bytes(text)
    source = FolderSource(tmp_path, 0)
    assert source.sample(0, 8).caption == "good"
    assert source.faults.found == {
        "good.png (metadata.jsonl line 2)": "listed twice",
        "gone.png": "no such file",
        "../outside.png": "metadata.jsonl line 4 points outside the folder",
        "silent.png": "no caption in metadata.jsonl line 5",
        "metadata.jsonl line 6": "no file_name",
        "metadata.jsonl line 7": "not a row of the table",
        "metadata.jsonl line 8": "not a row of the table",
    }


def test_a_csv_of_other_columns_or_bytes_is_refused(tmp_path):
    (tmp_path / "metadata.csv").write_text("image,label\na.png,3\n")
    with pytest.raises(DataError, match="has the columns image, label: expected file_name and text"):
        FolderSource(tmp_path, 0)
    (tmp_path / "metadata.csv").write_bytes(b"file_name,text\na.png,caf\xe9\n")
    with pytest.raises(DataError, match="not utf-8"):
        FolderSource(tmp_path, 0)


def break_one(root: Path, how: str) -> str:
    """Breaks sample 003 and returns the reason that is to be named."""
    image, text = root / "003.png", root / "003.txt"
    if how == "truncated":
        image.write_bytes(np.random.default_rng(0).bytes(40))
        return "not a readable picture"
    if how == "torn":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        image.write_bytes(buffer.getvalue()[:4000])
        return "not a readable picture"
    if how == "latin-1":
        text.write_bytes("café".encode("latin-1"))
        return "its caption is not utf-8"
    if how == "empty":
        text.write_text(" \n")
        return "its caption is empty"
    text.unlink()
    return "no caption: 003.txt is missing"


@pytest.mark.parametrize("how", ["truncated", "torn", "latin-1", "empty", "missing"])
def test_a_broken_sample_is_counted_named_and_skipped(tmp_path, how):
    fill(tmp_path, 8)
    reason = break_one(tmp_path, how)
    source = FolderSource(tmp_path, 0)
    assert captions(source, 16) == {f"picture number {number}" for number in range(8) if number != 3}
    assert list(source.faults.found) == ["003.png"]
    assert source.faults.found["003.png"].startswith(reason)


def test_what_was_read_before_does_not_change_a_sample(tmp_path):
    fill(tmp_path, 12)
    for number in (2, 3, 7):
        (tmp_path / f"{number:03}.png").write_bytes(b"broken")
    forward = FolderSource(tmp_path, 5)
    expected = [forward.sample(position, 8) for position in range(24)]
    for position in reversed(range(24)):
        sample = FolderSource(tmp_path, 5).sample(position, 8)
        assert sample.key == expected[position].key
        assert (sample.image == expected[position].image).all()


def test_past_the_limit_it_stops(tmp_path):
    fill(tmp_path, 8)
    for number in range(3):
        (tmp_path / f"{number:03}.png").write_bytes(b"broken")
    source = FolderSource(tmp_path, 0, limit_bad=2)
    with pytest.raises(
        DataError, match=r"3 of 8 samples are broken, more than the 2 let pass: 00\d.png \(not a readable picture"
    ):
        captions(source, 8)
    assert len(captions(FolderSource(tmp_path, 0), 8)) == 5


def test_a_folder_of_nothing_but_broken_pictures_ends(tmp_path):
    fill(tmp_path, 4)
    for number in range(4):
        (tmp_path / f"{number:03}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="none of the 4 samples can be read"):
        FolderSource(tmp_path, 0).sample(0, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no captioned picture"):
        FolderSource(tmp_path / "empty", 0)


def test_a_decompression_bomb_is_a_bad_picture(tmp_path, monkeypatch):
    fill(tmp_path, 3)
    monkeypatch.setattr(pictures, "LARGEST", 900)
    with pytest.raises(DataError, match="40 x 24 pixels, more than 900"):
        FolderSource(tmp_path, 0).sample(0, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow's own limit raises at twice this
    with pytest.raises(DataError, match="not a readable picture: Image size"):
        FolderSource(tmp_path, 0).sample(0, 8)


def test_pictures_are_upright_over_white_and_cropped():
    def square(data: bytes, **options) -> np.ndarray:
        return pictures.square(
            data, 8, name="x", seed=0, position=options.pop("position", 0), **{"crop": "center", **options}
        )[0]

    assert (square(picture((255, 0, 0, 0))) == 255).all()
    assert np.abs(square(picture((0, 0, 0, 128))).astype(int) - 127).max() <= 1
    halves = Image.new("RGB", (60, 20), (0, 0, 255))
    halves.paste((255, 0, 0), (0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned by 90 degrees clockwise: red at the top
    buffer = io.BytesIO()
    halves.save(buffer, "PNG", exif=exif)
    upright = square(buffer.getvalue())
    assert tuple(upright[0, 4]) == (255, 0, 0)
    assert tuple(upright[-1, 4]) == (0, 0, 255)
    crops = [square(buffer.getvalue(), crop="random", position=position) for position in range(6)]
    assert len({crop.tobytes() for crop in crops}) > 3
    assert (crops[2] == square(buffer.getvalue(), crop="random", position=2)).all()


def test_shards_are_read_at_random(tmp_path):
    write_tar(tmp_path / "a.tar", shard_members(3))
    members = [("x/7.json", json.dumps({"caption": "seven"}).encode()), ("x/7.webp", picture(form="WEBP"))]
    write_tar(tmp_path / "b.tar", members)
    source = ShardSource(tmp_path, 0)
    assert captions(source, 4) == {"number 0", "number 1", "number 2", "seven"}
    keys = {source.sample(position, 8).key for position in range(4)}
    assert keys == {"a.tar/00000", "a.tar/00001", "a.tar/00002", "b.tar/x/7"}
    assert not source.faults.found
    assert len(ShardSource(tmp_path / "a.tar", 0)) == 3


def test_the_index_is_kept_and_made_anew_when_the_tar_changes(tmp_path):
    tar = write_tar(tmp_path / "a.tar", shard_members(3))
    assert len(read_index(tar).keys) == 3
    index = tmp_path / "a.tar.index.json"
    written = index.stat().st_mtime_ns
    read_index(tar)
    assert index.stat().st_mtime_ns == written
    write_tar(tar, shard_members(5))
    assert len(read_index(tar).keys) == 5
    index.write_text("{torn")
    assert len(read_index(tar).keys) == 5


def test_a_read_only_folder_keeps_its_index_in_the_cache(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "data" / "a.tar", shard_members(2))
    (tmp_path / "data" / "a.tar.index.json").mkdir()  # nothing can be written there, whoever runs this
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(read_index(tar).keys) == 2
    kept = list((tmp_path / "cache").rglob("*.json"))
    assert len(kept) == 1
    assert read_index(tar).keys == json.loads(kept[0].read_text())["keys"]


@pytest.mark.parametrize("cut", [100, 1024, 1536, 3072])
def test_a_torn_tar_keeps_its_whole_samples(tmp_path, cut):
    tar = write_tar(tmp_path / "a.tar", shard_members(6))
    data = tar.read_bytes()
    end = len(data.rstrip(b"\0"))
    tar.write_bytes(data[: end - cut])
    source = ShardSource(tmp_path, 0)
    assert "torn: it ends before its end mark" in source.faults.found["a.tar/"]
    assert 4 <= len(source) <= 5
    assert captions(source, 12) <= {f"number {number}" for number in range(6)}


def test_what_is_wrong_in_a_tar_is_named(tmp_path):
    members = [
        *shard_members(2),
        ("00000.png", picture()),  # again, later
        ("00000.txt", b"again"),
        ("silent.png", picture()),
        ("blind.txt", b"no picture"),
        ("latin.png", picture()),
        ("latin.txt", "café".encode("latin-1")),
        ("wordless.png", picture()),
        ("wordless.json", b'{"width": 3}'),
        ("doubled.png", picture()),
        ("doubled.png", picture()),
        ("doubled.txt", b"doubled"),
        ("__MACOSX/notes", b""),
    ]
    write_tar(tmp_path / "a.tar", members)
    source = ShardSource(tmp_path, 0)
    assert captions(source, 20) == {"number 0", "number 1", "doubled"}
    assert source.faults.found == {
        "a.tar/00000 (again)": "a key that the tar has already",
        "a.tar/silent": "no caption",
        "a.tar/blind": "no picture",
        "a.tar/latin": "its caption is not utf-8",
        "a.tar/wordless": "its json has no caption",
        "a.tar/doubled.png": "a member that the sample has already",
    }


def test_no_tar_at_all(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar" * 1000)
    with pytest.raises(DataError, match=r"holds no sample \(a.tar/ \(not a tar that can be read"):
        ShardSource(tmp_path, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no .tar"):
        ShardSource(tmp_path / "empty", 0)


def test_the_index_reads_headers_only(tmp_path):
    """A tar of sparse gigabytes is indexed at once: its pictures are skipped, not read."""
    tar = tmp_path / "big.tar"
    with tar.open("wb") as file:
        for number in range(4):
            for name, size in ((f"{number}.png", 1 << 30), (f"{number}.txt", 512)):
                member = tarfile.TarInfo(name)
                member.size = size
                file.write(member.tobuf())
                file.seek(size, io.SEEK_CUR)
        file.write(bytes(1024))
    start = time.perf_counter()
    assert len(read_index(tar).keys) == 4
    assert time.perf_counter() - start < 1


def test_the_source_that_fits_is_opened(tmp_path):
    fill(tmp_path / "pictures", 2)
    write_tar(tmp_path / "shards" / "a.tar", shard_members(2))
    assert isinstance(open_source(tmp_path / "pictures", 0), FolderSource)
    assert isinstance(open_source(tmp_path / "shards", 0), ShardSource)
    assert isinstance(open_source(tmp_path / "shards" / "a.tar", 0), ShardSource)
    (tmp_path / "icons").mkdir()
    (tmp_path / "icons" / "icons.json").write_text("{}")
    with pytest.raises(DataError, match="no complete icons set"):
        open_source(tmp_path / "icons", 0)
    with pytest.raises(DataError, match="there is no"):
        open_source(tmp_path / "nowhere", 0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"neither a folder nor a .tar"):
        open_source(tmp_path / "file", 0)
