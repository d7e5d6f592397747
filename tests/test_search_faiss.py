"""Approximate search finds nearly all neighbours, says how many, and never answers for rows that are no longer there."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from toy_clip import save_clip
from toy_search import fill, foreign_index

from unclip import files
from unclip.cli import main
from unclip.clip import load_clip, unit
from unclip.errors import ConfigError, DataError
from unclip.search import approximate
from unclip.search.approximate import choose, compress, open_cells
from unclip.search.build import build
from unclip.search.layout import IMAGES, Index
from unclip.search.query import hits, hits_of_each, nearest
from unclip.search.sources import list_sources

COUNT, WIDTH, CLUSTERS = 12_000, 32, 300


def clustered() -> np.ndarray:
    """Rows about some centres, of any length; a few have no direction."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((CLUSTERS, WIDTH))[rng.integers(0, CLUSTERS, COUNT)]
    matrix = (matrix + 0.5 * rng.standard_normal((COUNT, WIDTH))) * rng.uniform(0.5, 2, (COUNT, 1))
    matrix[::100] = 0
    matrix[50] = np.nan
    return matrix.astype(np.float16)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory) -> Index:
    matrix = clustered()
    index = foreign_index(tmp_path_factory.mktemp("clustered") / "i", [matrix[:5000], matrix[5000:]])
    told = []
    about = compress(index, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (COUNT - COUNT // 100 - 1,) * 2
    assert about.recall >= approximate.RECALL
    assert about.probes < about.cells
    assert not list(index.folder.glob(".*"))
    return index


def asked(index: Index, count: int = 200) -> torch.Tensor:
    """Directions near rows of an index."""
    rows = torch.from_numpy(np.concatenate(index.images)[1 : 60 * count : 60].astype(np.float32))
    return unit(rows) + 0.05 * torch.from_numpy(np.random.default_rng(1).standard_normal(rows.shape)).float()


def test_nearly_all_neighbours_are_found_with_exact_cosines(compressed):
    cells, q = open_cells(compressed), asked(compressed)
    truth, found = nearest(compressed, q, 10), cells.nearest(q, 10)
    share = (truth[1][:, :, None] == found[1][:, None]).any(dim=2).float().mean()
    assert share > 0.9
    assert abs(float(share) - cells.about.recall) < 0.05  # what was measured holds for others
    equal = truth[1] == found[1]
    assert torch.equal(truth[0][equal], found[0][equal])
    assert (found[0][:, 1:] <= found[0][:, :-1]).all()
    ids = [[hit.id for hit in each] for each in hits_of_each(compressed, q[:5], 3, find=cells.nearest)]
    assert ids == found[1][:5, :3].tolist()
    assert cells.nearest(q[:0], 3)[1].shape == (0, 3)


def test_as_many_neighbours_as_are_asked_for(compressed):
    cosines, ids = open_cells(compressed).nearest(asked(compressed, 2), 3000)
    assert ids.shape == (2, 3000)
    assert cosines.isfinite().all()
    assert all(len(set(row.tolist())) == 3000 for row in ids)


def test_looking_into_every_cell_finds_what_is_compared(compressed):
    cells = open_cells(compressed)
    every = approximate.Approximate(compressed, "image", cells._cells, cells.about.model_copy(update={"probes": 10**6}))
    truth = nearest(compressed, asked(compressed), 10)[1]
    share = (truth[:, :, None] == every.nearest(asked(compressed), 10)[1][:, None]).any(dim=2).float().mean()
    assert share >= 0.97


@pytest.fixture
def copied(compressed, tmp_path) -> Index:
    return Index(shutil.copytree(compressed.folder, tmp_path / "copy"))


def test_a_copy_is_as_good(copied):
    assert open_cells(copied).nearest(asked(copied, 3), 5)[1].shape == (3, 5)


@pytest.mark.parametrize("change", ["order", "fewer"])
def test_cells_of_other_rows_are_refused(copied, change):
    path = copied.folder / IMAGES / f"{IMAGES}_1.npy"
    rows = np.load(path)
    np.save(path, rows[::-1] if change == "order" else rows[:-1])
    with pytest.raises(DataError, match=r"approximate_image is of other rows than .*copy has now: make them with `unclip"):
        open_cells(Index(copied.folder))


@pytest.mark.parametrize("name", ["about.json", "cells.faiss"])
def test_torn_cells_are_refused(copied, name):
    path = copied.folder / "approximate_image" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cannot read .*approximate_image: .*; make them with") as error:
        open_cells(copied)
    assert "\n" not in str(error.value)


def test_an_update_of_the_index_drops_its_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(approximate, "LEAST", 0)
    monkeypatch.setattr(approximate, "_measured", lambda approximate, ids: approximate.about)  # of too few rows
    monkeypatch.setattr(approximate, "_learnt", one_cell)
    clip = load_clip(save_clip(tmp_path / "clip", 1))
    fill(tmp_path / "p", range(6))
    build(list_sources([tmp_path / "p"]), tmp_path / "i", clip)
    compress(Index(tmp_path / "i"))
    assert (
        len(hits_of_each(Index(tmp_path / "i"), clip.texts(["a"]), 3, find=open_cells(Index(tmp_path / "i")).nearest)[0])
        == 3
    )
    build(list_sources([tmp_path / "p"]), tmp_path / "i", clip)
    assert open_cells(Index(tmp_path / "i")).about.cells == 1  # nothing has changed
    fill(tmp_path / "p", [9])
    build(list_sources([tmp_path / "p"]), tmp_path / "i", clip)
    with pytest.raises(DataError, match="has no cells for approximate search"):
        open_cells(Index(tmp_path / "i"))


def one_cell(faiss, side, draw):
    """In place of cells that so few rows cannot teach."""
    cells = faiss.index_factory(side.width, "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    cells.train(unit(side.take(draw)).numpy())
    return cells


def test_what_cannot_be_compressed(tmp_path, compressed):
    few = foreign_index(tmp_path / "few", [clustered()[:500]])
    with pytest.raises(DataError, match="few has 494 rows to compress: expected 10,000 or more"):
        compress(few)
    with pytest.raises(DataError, match="knows no captions"):
        compress(few, among="text")
    with pytest.raises(DataError, match="none has 0 rows to compress"):
        compress(foreign_index(tmp_path / "none", [clustered()[:0]]))
    with files.locked(compressed.folder.with_name(".i.lock")), pytest.raises(DataError, match="made by another process"):
        compress(compressed)


def test_without_faiss_the_extra_is_named_and_exact_search_goes_on(compressed, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for ask in (compress, open_cells, lambda index: choose(index, "image", True)):
        with pytest.raises(ConfigError, match=r"^approximate search needs faiss: install unclip\[search\]$"):
            ask(compressed)
    monkeypatch.setattr(approximate, "MANY", 1000)
    assert choose(compressed, "image") == (
        None,
        "searched exactly: approximate search needs faiss: install unclip[search]",
    )
    assert len(hits(compressed, asked(compressed, 1)[0], 5)) == 5


def test_many_rows_are_searched_approximately_and_told_so(compressed, monkeypatch):
    assert choose(compressed, "image") == (None, None)
    monkeypatch.setattr(approximate, "MANY", 1000)
    cells, how = choose(compressed, "image")
    assert cells is not None
    assert how == (
        f"searched approximately, which finds {100 * cells.about.recall:.1f} % of the 10 nearest, "
        "as measured on 256 rows of the index"
    )
    assert choose(compressed, "image", False) == (None, None)


def test_the_command_line(tmp_path, capsys, compressed, monkeypatch):
    clip = load_clip(save_clip(tmp_path / "clip", 1))
    rows = unit(torch.randn(COUNT, clip.width, generator=torch.Generator().manual_seed(0))).half().numpy()
    foreign_index(tmp_path / "i", [rows])
    monkeypatch.chdir(tmp_path)
    assert main(["search", "compress", "i", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["index"], told["sampled"]) == ("i", 256)
    assert main(["search", "compress", "i"]) == 0
    assert capsys.readouterr().out == f"{100 * told['recall']:.1f} % of the 10 nearest, in {told['probes']} of 187 cells\n"
    assert main(["search", "query", "i", "a red disc", "--clip", "clip", "--approximate", "-k", "3"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert f"which finds {100 * told['recall']:.1f} % of the 10 nearest" in printed.err


@pytest.mark.parametrize("order", ["torch, faiss", "faiss, torch"])
def test_faiss_and_torch_work_in_one_process(order):
    """Each brings a runtime of threads of its own."""
    code = f"""
import {order}
import numpy as np
rows = torch.nn.functional.normalize(torch.randn(3000, 64), dim=1)
flat = faiss.IndexFlatIP(64)
flat.add(rows.numpy())
for _ in range(3):
    ids = flat.search(rows[:500].numpy(), 1)[1][:, 0]
    assert (torch.from_numpy(ids) == (rows[:500] @ rows.T).argmax(dim=1)).all()
print('both')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "both\n"), done.stderr
