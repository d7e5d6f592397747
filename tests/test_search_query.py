"""Queries find what brute force finds, whatever rows an index holds; a shot is found once; errors say what is wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from toy_clip import save_clip
from toy_search import brute_force, drawn, fill, film, foreign_index, png, write_tar

from unclip import int8
from unclip.cli import main
from unclip.clip import Clip, load_clip, unit
from unclip.errors import ConfigError, DataError, RequestError, WeightsError
from unclip.search import query, rows, sheet
from unclip.search.ask import clip_of, embed_mix
from unclip.search.build import build
from unclip.search.layout import ClipOf, Index, Manifest, Row, write_manifest, write_shard
from unclip.search.query import Hit, check_clip, hits, hits_of_each, mixed, nearest
from unclip.search.sources import list_sources


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return load_clip(save_clip(tmp_path_factory.mktemp("clips") / "micro", 1), precision="fp32")


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """The passes over the rows that queries took, in small blocks."""
    taken = []
    quick, every = query._candidates, query._of_every_row
    monkeypatch.setattr(rows, "BLOCK", 300)
    monkeypatch.setattr(rows, "WIDENED", 70 * 64)
    monkeypatch.setattr(query, "SERIAL", 120)
    monkeypatch.setattr(query, "_candidates", lambda *given: taken.append(str(given[3])[6:]) or quick(*given))
    monkeypatch.setattr(query, "_of_every_row", lambda *given: taken.append("every") or every(*given))
    return taken


def random_rows(seed: int, count: int = 2000, width: int = 64) -> np.ndarray:
    return unit(torch.from_numpy(np.random.default_rng(seed).standard_normal((count, width)))).numpy()


def random_queries(seed: int, count: int, width: int = 64) -> torch.Tensor:
    return 3 * torch.from_numpy(np.random.default_rng(1000 + seed).standard_normal((count, width))).float()


def own_index(folder, shards) -> Index:
    """As we write it."""
    for number, shard in enumerate(shards):
        write_shard(folder, number, shard, None, [Row("a.png", None, "picture", None, None, 8, 8, "s")] * len(shard))
    made_by = ClipOf(name="icons", fingerprint="0", width=shards[0].shape[1])
    write_manifest(folder, Manifest(clip=made_by, sources=("a",), rows=sum(map(len, shards))))
    return Index(folder)


def same(index: Index, q: torch.Tensor, k: int = 10, **options) -> bool:
    """Whether ids, and cosines to the last bit, are those of brute force."""
    matrix = np.concatenate(index.images if options.get("among") != "text" else index.texts)
    expected, ids = brute_force(matrix, q, k)
    found = nearest(index, q, k, **options)
    return torch.equal(found[1], ids) and torch.equal(found[0], expected)


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_neighbours_are_those_of_brute_force_over_shards_and_blocks(tmp_path, passes, count, dtype):
    matrix = random_rows(1).astype(dtype)
    index = foreign_index(tmp_path / "i", [matrix[:700], matrix[700:701], matrix[701:]])
    assert same(index, random_queries(1, count))
    assert "every" not in passes
    assert nearest(index, random_queries(1, count), 1)[0].dtype == torch.float32


@pytest.mark.skipif(not int8.available(), reason="this processor does not multiply bytes")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_that_are_held_are_multiplied_as_bytes(tmp_path, passes, monkeypatch, count, dtype):
    matrix = random_rows(12, 6000) * np.exp(np.random.default_rng(12).uniform(-12, 8, (6000, 1)))
    matrix[::7] = 0
    matrix[::13, 3] = np.nan
    index = foreign_index(tmp_path / "i", [matrix[:700].astype(dtype), matrix[700:].astype(dtype)])
    side = rows.side_of(index, "image")
    for most, expected in ((6000 * 64 - 1, "float16"), (6000 * 64, "int8")):
        monkeypatch.setattr(rows, "HELD", most)
        side.hold()
        passes.clear()
        assert same(index, random_queries(12, count), 3)
        assert passes == [expected]


@pytest.mark.skipif(not int8.available(), reason="this processor does not multiply bytes")
def test_rows_whose_bytes_are_nearly_alike_are_asked_in_fp16_too(tmp_path, passes):
    matrix = random_rows(4, 1) + 3e-3 * random_rows(5, 1500)
    index = own_index(tmp_path, [unit(torch.from_numpy(matrix)).numpy(), random_rows(6, 500)])
    rows.side_of(index, "image").hold()
    assert same(index, torch.from_numpy(random_rows(4, 1)).float() + 0.1 * random_queries(4, 1), 10)
    assert passes[:2] == ["int8", "float16"]


@pytest.mark.parametrize("count", [1, 20])
def test_lengths_of_our_own_rows_are_taken_for_one(tmp_path, passes, count):
    """A row that is NaN nevertheless, as a broken CLIP makes it, is found by nobody."""
    matrix = random_rows(11)
    matrix[::60] = np.nan
    index = own_index(tmp_path, [matrix[:900], matrix[900:]])
    assert same(index, random_queries(11, count))
    assert rows.side_of(index, "image").unit
    assert nearest(index, random_queries(11, count), 3000)[1].shape == (count, 2000 - 34)


@pytest.mark.parametrize("count", [2, 30])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_of_others_have_any_length_or_none(tmp_path, passes, count, dtype):
    matrix = random_rows(2) * np.exp(np.random.default_rng(2).uniform(-12, 8, (2000, 1)))
    matrix[::7] = 0
    matrix[::11, 3] = np.nan
    matrix[5, 0] = np.inf
    index = foreign_index(tmp_path / "i", [matrix[:999].astype(dtype), matrix[999:].astype(dtype)])
    assert same(index, random_queries(2, count))
    cosines, ids = nearest(index, random_queries(2, count), 3000)
    directed = set(range(2000)) - {*range(0, 2000, 7), *range(0, 2000, 11), 5}
    directed = {id for id in directed if np.abs(matrix[id].astype(dtype)).max() > 0}
    assert ids.shape == (count, len(directed))
    assert set(ids[0].tolist()) == directed
    assert cosines.isfinite().all()


@pytest.mark.parametrize("count", [1, 20])
def test_the_lower_id_is_first_among_equals_however_many_there_are(tmp_path, passes, count):
    matrix = random_rows(3, 4000)
    matrix[500:2500] = matrix[7]
    matrix[2600:2640] = matrix[8]
    index = foreign_index(tmp_path / "i", [matrix.astype(np.float16)])
    q = torch.from_numpy(matrix[7]).float().expand(count, -1)
    assert same(index, q, 20)
    assert passes[-1] == "every"
    assert nearest(index, q, 3)[1][0].tolist() == [7, 500, 501]
    passes.clear()
    assert same(index, torch.from_numpy(matrix[8]).float().expand(count, -1), 20)
    assert "every" not in passes


def test_rows_that_are_nearly_alike_are_told_apart(tmp_path, passes):
    """Differences of a tenth of what bf16 can tell: more candidates than it spares are within its rounding."""
    matrix = (random_rows(4, 1) + 3e-4 * random_rows(5, 1500)).astype(np.float32)
    index = foreign_index(tmp_path / "i", [matrix, random_rows(6, 500).astype(np.float32)])
    assert same(index, torch.from_numpy(random_rows(4, 1)).float() + 0.1 * random_queries(4, 12), 10)
    assert passes in (["bfloat16", "float32"], ["float32"])  # the latter where the machine has no bf16


def test_a_block_of_long_rows_is_not_multiplied_in_fp16(tmp_path, passes):
    matrix = (random_rows(7, 600) * 40_000).astype(np.float16)
    index = foreign_index(tmp_path / "i", [matrix])
    assert same(index, torch.from_numpy(matrix[3:4].astype(np.float32)), 5)
    assert passes == ["float16"]


def test_as_many_neighbours_as_there_are(tmp_path):
    index = foreign_index(tmp_path / "i", [random_rows(8, 5).astype(np.float16)])
    cosines, ids = nearest(index, random_queries(8, 2), 50)
    assert ids.shape == cosines.shape == (2, 5)
    void = foreign_index(tmp_path / "v", [np.zeros((5, 64), np.float16)])
    assert nearest(void, random_queries(8, 2), 3)[1].shape == (2, 0)
    assert hits(void, random_queries(8, 1)[0], 3) == []
    assert nearest(index, torch.zeros(0, 64), 3)[1].shape == (0, 3)


def test_progress_counts_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 100)
    index = foreign_index(tmp_path / "i", [random_rows(9, 250).astype(np.float16)])
    told = []
    nearest(index, random_queries(9, 1), 3, progress=lambda done, total: told.append((done, total)))
    assert told == [(100, 250), (200, 250), (250, 250)]


def test_what_cannot_be_asked(tmp_path):
    index = foreign_index(tmp_path / "i", [random_rows(10, 50).astype(np.float16)])
    with pytest.raises(RequestError, match="0 neighbours: expected 1 or more"):
        nearest(index, random_queries(1, 1), 0)
    with pytest.raises(RequestError, match="zeros or not finite"):
        nearest(index, torch.zeros(1, 64), 3)
    with pytest.raises(RequestError, match="zeros or not finite"):
        nearest(index, torch.full((1, 64), torch.nan), 3)
    with pytest.raises(DataError, match=r"embeddings of 64 numbers: expected queries \(Q, 64\), not \(1, 32\)"):
        nearest(index, torch.ones(1, 32), 3)
    with pytest.raises(DataError, match="knows no captions"):
        nearest(index, random_queries(1, 1), 3, among="text")
    empty = foreign_index(tmp_path / "e", [np.zeros((0, 64), np.float16)])
    with pytest.raises(DataError, match="e is empty: nothing to find"):
        nearest(empty, random_queries(1, 1), 3)


def test_mixtures_are_weighted_sums_of_directions():
    a, b = torch.tensor([3.0, 0]), torch.tensor([0, 0.1])
    assert torch.allclose(mixed([(a, 1), (b, 1)]), torch.tensor([0.5**0.5, 0.5**0.5]))
    assert torch.allclose(mixed([(a, 1), (b, -0.5)]), unit(torch.tensor([1, -0.5])))
    assert torch.allclose(mixed([(b, 7)]), torch.tensor([0.0, 1]))
    with pytest.raises(RequestError, match="cancels out at the weights 1, -1"):
        mixed([(a, 1), (a, -1)])
    with pytest.raises(RequestError, match="cancels out at the weights 0"):
        mixed([(a, 0)])
    with pytest.raises(RequestError, match="nothing to look for"):
        mixed([])


def shown(*angles: float) -> np.ndarray:
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float16)


def frames_index(folder, angles, paths) -> Index:
    """Rows at these angles, frames of these paths one a second, or pictures where a path ends in png."""
    table = [
        Row(path, None, "picture" if path.endswith("png") else "frame", time, time + 1, 4, 4, "s")
        for time, path in enumerate(paths)
    ]
    folder.mkdir()
    write_shard(folder, 0, shown(*angles), None, table)
    return Index(folder)


def test_frames_of_one_shot_are_one_hit(tmp_path):
    angles = [2, 1, 3, 70, 5, 6, 4, 1, 2]
    index = frames_index(tmp_path / "i", angles, ["a.mp4"] * 6 + ["b.mp4", "c.png", "d.png"])
    found = hits(index, torch.tensor([1.0, 0]), 9)
    # of a.mp4 the second of the first shot, the best of what comes after the cut, and the cut's own other side
    assert [hit.id for hit in found] == [1, 7, 8, 6, 4, 3]
    assert [hit.row["image_path"] for hit in found[:2]] == ["a.mp4", "c.png"]
    assert found[0].score == pytest.approx(np.cos(np.radians(1)), abs=1e-3)


def test_a_long_shot_does_not_fill_the_answer(tmp_path):
    angles = [*np.linspace(0, 1, 30), 40, 80, 85]
    index = frames_index(tmp_path / "i", angles, ["a.mp4"] * 30 + ["b.png", "c.png", "d.png"])
    assert [hit.id for hit in hits(index, torch.tensor([1.0, 0]), 3)] == [0, 30, 31]
    both = hits_of_each(index, torch.tensor([[1.0, 0], [0, 1]]), 2)
    assert [[hit.id for hit in found] for found in both] == [[0, 30], [32, 31]]


def make(folder, clip, *sources, **options) -> Index:
    build(list_sources(sources), folder, clip, **options)
    return Index(folder)


def test_captions_are_looked_through_and_a_films_is_told_once(tmp_path, clip):
    fill(tmp_path / "p", range(6), {2: "a red disc", 4: "a blue square"})
    film(tmp_path / "p" / "f.mp4", [7, 8])
    (tmp_path / "p" / "f.txt").write_text("sunset over the sea")
    index = make(tmp_path / "i", clip, tmp_path / "p", every=0.5)
    found = hits(index, embed_mix(clip, ["a blue square"]), 5, among="text")
    assert found[0].row["caption"] == "a blue square"
    assert sorted(hit.row["caption"] for hit in found) == ["a blue square", "a red disc", "sunset over the sea"]
    assert found[0].score == pytest.approx(1, abs=1e-3)
    assert same(index, clip.texts(["a red disc"]), 3, among="text")


def test_an_index_is_asked_with_its_own_clip(tmp_path, clip):
    fill(tmp_path / "p", range(2))
    index = make(tmp_path / "i", clip, tmp_path / "p")
    check_clip(index, clip)
    other = load_clip(save_clip(tmp_path / "other", 2), precision="fp32")
    with pytest.raises(
        DataError, match=rf"another CLIP, micro \({clip.fingerprint[:12]}\), not other \({other.fingerprint[:12]}\)"
    ):
        check_clip(index, other)
    with pytest.raises(
        WeightsError, match=rf"made with the CLIP micro \({clip.fingerprint[:12]}\), which .* say where it is"
    ):
        clip_of(index)
    assert clip_of(index, str(save_clip(tmp_path / "micro", 1))).fingerprint == clip.fingerprint
    theirs = foreign_index(tmp_path / "f", [random_rows(1, 4, clip.width).astype(np.float16)])
    check_clip(theirs, other)
    with pytest.raises(ConfigError, match="does not say which CLIP made it: name that with --clip"):
        clip_of(theirs)
    with pytest.raises(DataError, match=rf"of 8 numbers, but those of micro have {clip.width}"):
        check_clip(foreign_index(tmp_path / "g", [random_rows(1, 4, 8).astype(np.float16)]), clip)


def test_a_shipped_clip_is_opened_by_its_name(tmp_path):
    icons = load_clip("icons")
    made_by = ClipOf(name=icons.name, fingerprint=icons.fingerprint, width=icons.width)
    write_shard(
        tmp_path, 0, random_rows(1, 2, icons.width), None, [Row("a.png", None, "picture", None, None, 8, 8, "s")] * 2
    )
    write_manifest(tmp_path, Manifest(clip=made_by, sources=("a",), rows=2))
    assert clip_of(Index(tmp_path)).name == icons.name


def test_the_command_line_from_pictures_to_a_sheet(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_clip(tmp_path / "clip", 1)
    fill(tmp_path / "p", range(7), {1: "a red disc"})
    film(tmp_path / "p" / "film.mp4", [40, 41])
    write_tar(tmp_path / "p" / "t.tar", [("b.png", png(30)), ("b.txt", b"two green stars")])
    assert main(["search", "index", "p", "-o", "out", "--clip", "clip", "--every", "0.5"]) == 0
    capsys.readouterr()

    def ask(*arguments: str) -> str:
        assert main(["search", "query", "out", "--clip", "clip", *arguments]) == 0
        return capsys.readouterr().out

    lines = ask("--image", "p/003.png", "-k", "3").splitlines()
    assert len(lines) == 3
    assert lines[0] == "1.0000  p/003.png"
    drawn(41, (64, 48)).save(tmp_path / "asked.png")
    assert ask("-i", "asked.png", "-k", "1").split()[1:] == ["p/film.mp4", "0:01"]
    assert "p/t.tar#b  two green stars" in ask("two green stars", "--among", "text", "-k", "1")
    told = json.loads(ask("a red disc", "a blue square", "-i", "p/002.png", "-w", "1", "-w", "-0.5", "-w", "2", "--json"))
    eyes = load_clip(tmp_path / "clip")
    z = [*eyes.texts(["a red disc", "a blue square"]), *eyes.images([drawn(2)])]
    expected = hits(Index(tmp_path / "out"), mixed(list(zip(z, [1, -0.5, 2], strict=True))), 10)
    assert [hit["id"] for hit in told["hits"]] == [hit.id for hit in expected]
    assert (told["weights"], told["images"], told["clip"]) == ([1, -0.5, 2], ["p/002.png"], "clip")

    (tmp_path / "p" / "005.png").unlink()
    ask("a red disc", "-k", "10", "--sheet", "sheet.png")
    with Image.open(tmp_path / "sheet.png") as made:
        assert made.width == 5 * (sheet.SIDE + 6) + 6
    (tmp_path / "queries.txt").write_text("a red disc\n\ntwo green stars\n")
    listed = ask("--queries", "queries.txt", "-k", "2").split("\n\n")
    assert [part.splitlines()[0] for part in listed] == ["a red disc", "two green stars"]
    answers = json.loads(ask("--queries", "queries.txt", "-k", "2", "--json"))["answers"]
    assert [len(answer["hits"]) for answer in answers] == [2, 2]


def test_a_sheet_shows_the_very_frame_and_leaves_a_blank_for_what_is_gone(tmp_path, clip):
    fill(tmp_path / "p", [1])
    film(tmp_path / "p" / "film.mp4", [40, 41])
    write_tar(tmp_path / "p" / "t.tar", [("b.png", png(30))])
    index = make(tmp_path / "i", clip, tmp_path / "p", every=0.5)
    found = [Hit(id, 0.5, row) for id, row in enumerate(index.rows(range(4)))]
    (tmp_path / "p" / "001.png").unlink()
    image, faults = sheet.draw_sheet(found)
    assert faults == [f"cannot read {tmp_path / 'p' / '001.png'}: No such file or directory"]
    tiles = [
        image.crop((6 + x, 6, 6 + x + sheet.SIDE, 6 + sheet.SIDE)) for x in range(0, 4 * (sheet.SIDE + 6), sheet.SIDE + 6)
    ]
    assert tiles[0].getcolors() == [(sheet.SIDE**2, sheet.BLANK)]
    for tile, number in zip(tiles[1:], (40, 41, 30), strict=True):
        size = (40, 30) if number == 30 else (64, 48)
        short = min(size)
        left = (size[0] - short) // 2
        expected = drawn(number, size).crop((left, 0, left + short, short)).resize(tile.size)
        assert np.abs(np.asarray(tile, float) - np.asarray(expected, float)).mean() < 12


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to look for"),
        ([""], "an empty query"),
        (["a disc", "-k", "0"], "0 neighbours: expected 1 or more"),
        (["-i", "gone.png"], "cannot read gone.png: No such file"),
        (["-i", "bad.png"], "cannot read bad.png: it is not a whole picture"),
        (["a disc", "a disc", "-w", "1", "-w", "-1"], "cancels out at the weights 1, -1"),
        (["a disc", "-w", "1", "-w", "2"], "2 weights for 1 parts"),
        (["a disc", "-w", "nan"], "a weight of nan"),
        (["a disc", "--among", "text"], "knows no captions"),
        (["a disc", "--queries", "q.txt"], "--queries has all that is looked for"),
        (["--queries", "q.txt"], "an empty query"),
        (["a disc", "--sheet", "none/sheet.png"], "cannot write none/sheet.png"),
        (["a disc", "--clip", "other"], "was made with another CLIP, clip ("),
        (["a disc", "--approximate"], "has no cells for approximate search: make them with `unclip search compress i`"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(asked, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(asked)
    clip = [] if "--clip" in arguments else ["--clip", "clip"]
    assert main(["search", "query", "i", *arguments, *clip]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert told in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("folder", ["p", "nowhere"])
def test_a_folder_that_is_no_index_is_said_so(asked, capsys, monkeypatch, folder):
    monkeypatch.chdir(asked)
    (asked / "hollow").mkdir(exist_ok=True)
    for name in (folder, "hollow"):
        assert main(["search", "query", name, "a disc"]) == 2
        assert f"{name} is no index" in capsys.readouterr().err


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A folder with an index i of pictures p, its clip and another, and what is wrong to ask."""
    folder = tmp_path_factory.mktemp("asked")
    eyes = load_clip(save_clip(folder / "clip", 1))
    save_clip(folder / "other", 2)
    fill(folder / "p", range(2))
    build(list_sources([folder / "p"]), folder / "i", eyes)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "q.txt").write_text("\n")
    return folder
