"""The nearest rows of an index past a million, nearly all of them, by faiss: only some of its cells are looked into.

`compress` divides the rows among cells, by k-means, and keeps of each row a byte for every eight numbers (product
quantization, Jegou et al., 2011). What these find is compared by the rows themselves: cosines are exact, and only neighbours
can be missed. How many are is measured on rows of the index, and decides into how many cells a query looks.

    INDEX/approximate_image/     or approximate_text
      about.json                 of which rows it is, how many cells are looked into, what share is found
      cells.faiss
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unclip import files
from unclip.clip import unit
from unclip.config import Config
from unclip.errors import ConfigError, DataError, UnclipError
from unclip.search.layout import Index
from unclip.search.query import Progress, asked, compare, nearest
from unclip.search.rows import Among, Side, side_of

FORMAT = 1
ABOUT, CELLS = "about.json", "cells.faiss"
MANY = 1_000_000  # rows past which an exact search takes long enough to do without
LEAST = 10_000  # rows that k-means needs, and below which exact search takes milliseconds
LEARNT = 64  # rows a cell that k-means sees
COMPARED = 16  # candidates for each row that is wanted
RECALL, NEIGHBOURS, SAMPLED = 0.95, 10, 256  # that share of so many neighbours of so many rows is to be found
DIGESTED = 4096  # rows
PORTION = 1 << 14  # rows that are put into their cells at once


class About(Config):
    """What is told of the cells of an index."""

    format: Literal[1] = FORMAT
    digest: str
    cells: int
    probes: int
    """Cells that are looked into for a query."""
    recall: float
    """The share of the ten nearest rows that is found for rows of the index, which themselves do not count."""
    sampled: int
    """For how many rows that was measured."""


class Approximate:
    """The cells of one side of an index; `nearest` is what there is to ask."""

    def __init__(self, index: Index, among: Among, cells: Any, about: About):
        self.index, self.about, self._cells = index, about, cells
        self.among: Among = among

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Cosines (Q, k) and ids (Q, k) as `query.nearest` gives them, but some of the nearest may be missing."""
        side = asked(self.index, queries, k, self.among)
        q = torch.nn.functional.normalize(queries.detach().cpu().double(), dim=1)
        if not len(q):
            return torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64)
        probes = self.about.probes
        while True:
            cosines, ids = compare(side, q, self.candidates(q, max(k, NEIGHBOURS), probes), k)
            if bool(cosines.isfinite().all()) or probes >= self.about.cells:
                there = int(cosines.isfinite().sum(dim=1).max())
                return cosines[:, :there], ids[:, :there]
            probes *= 4  # where cells are nearly empty

    def candidates(self, q: Tensor, k: int, probes: int) -> Tensor:
        """Ids (Q, m) of what so many cells hold that may be among the k nearest, -1 where they hold no more."""
        count = min(COMPARED * k, self._cells.ntotal)
        _, ids = self._cells.search(
            q.float().numpy(), count, params=_faiss().SearchParametersIVF(nprobe=min(probes, self.about.cells))
        )
        return torch.from_numpy(ids)


def open_cells(index: Index, among: Among = "image") -> Approximate:
    """The cells that `compress` made. DataError when there are none, when they are torn, or of other rows than there are."""
    faiss, folder = _faiss(), _folder(index, among)
    again = f"make them with `unclip search compress {index.folder}`"
    try:
        about = About.parse(json.loads((folder / ABOUT).read_text(encoding="utf-8")), where=str(folder / ABOUT))
        cells = faiss.read_index(str(folder / CELLS), faiss.IO_FLAG_MMAP)
    except FileNotFoundError:
        raise DataError(f"{index.folder} has no cells for approximate search: {again}") from None
    except (OSError, ValueError, RuntimeError, ConfigError) as error:  # faiss raises RuntimeErrors of several lines
        raise DataError(f"cannot read {folder}: {str(error).splitlines()[0]}; {again}") from None
    if about.digest != _digest(side_of(index, among)):
        raise DataError(f"{folder} is of other rows than {index.folder} has now: {again}")
    return Approximate(index, among, cells, about)


def choose(index: Index, among: Among, approximate: bool | None = None) -> tuple[Approximate | None, str | None]:
    """The cells to find with, None for exactly, and what to tell of that.

    `approximate` None: with cells past MANY rows, if there are any that can be used. Raises what `open_cells` does when they
    are asked for.
    """
    if approximate is False or (approximate is None and len(index) <= MANY):
        return None, None
    try:
        cells = open_cells(index, among)
    except UnclipError as error:
        if approximate:
            raise
        return None, f"searched exactly: {error}"
    share = f"{100 * cells.about.recall:.1f} % of the {NEIGHBOURS} nearest"
    return cells, f"searched approximately, which finds {share}, as measured on {cells.about.sampled} rows of the index"


def compress(index: Index, *, among: Among = "image", progress: Progress | None = None) -> About:
    """Makes the cells of one side of an index and puts them into its folder, whole or not at all.

    `progress` is told how many rows are in their cells. DataError for an index of too few rows, one that is being made, and
    one that cannot be written to; ConfigError without faiss.
    """
    faiss, folder = _faiss(), index.folder.absolute()
    try:
        with files.locked(folder.with_name(f".{folder.name}.lock")):
            files.remove_leftovers(folder)
            cells, about = _filled(faiss, index, among, progress)
            with files.replacing_folder(_folder(index, among)) as made:
                _write(faiss, cells, made / CELLS)
                (made / ABOUT).write_text(about.model_dump_json(indent=1), encoding="utf-8")
    except BlockingIOError:
        raise DataError(f"{folder} is being made by another process: wait for it") from None
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from None
    return about


def _filled(faiss: Any, index: Index, among: Among, progress: Progress | None) -> tuple[Any, About]:
    """Cells with all rows in them that have a direction, and what is told of them."""
    side = side_of(index, among)
    directed = torch.tensor([], dtype=torch.int64)
    for block in side.blocks:
        directed = torch.cat([directed, block.lengths.nonzero().flatten() + block.start])
    if len(directed) < LEAST:
        raise DataError(f"{index.folder} has {len(directed):,} rows to compress: expected {LEAST:,} or more")
    draw = directed[torch.randperm(len(directed), generator=torch.Generator().manual_seed(0))]
    cells = _learnt(faiss, side, draw)
    for ids in directed.split(PORTION):
        cells.add_with_ids(unit(side.take(ids)).numpy(), ids.numpy())
        if progress is not None:
            progress(cells.ntotal, len(directed))
    about = About(digest=_digest(side), cells=cells.nlist, probes=1, recall=0, sampled=SAMPLED)
    return cells, _measured(Approximate(index, among, cells, about), draw[:SAMPLED].sort().values)


def _learnt(faiss: Any, side: Side, draw: Tensor) -> Any:
    """Empty cells, from the first rows of a draw."""
    count = min(2 * int(len(draw) ** 0.5), len(draw) // LEARNT)
    pieces = max(piece for piece in range(1, max(1, side.width // 8) + 1) if side.width % piece == 0)
    # "np": not also trained for Hamming distances, which nobody asks for and which takes most of the time
    cells = faiss.index_factory(side.width, f"IVF{count},PQ{pieces}np", faiss.METRIC_INNER_PRODUCT)
    cells.train(unit(side.take(draw[: max(LEARNT * count, LEAST)].sort().values)).numpy())
    return cells


def _measured(approximate: Approximate, ids: Tensor) -> About:
    """Of rows with these ids: the share of their neighbours that is found, in as few cells as find enough of them."""
    index, among, about = approximate.index, approximate.among, approximate.about
    q = side_of(index, among).take(ids)
    near = nearest(index, q, NEIGHBOURS + 1, among=among)[1]
    truth = torch.stack([row[row != id][:NEIGHBOURS] for id, row in zip(ids, near, strict=True)])
    probes = about.probes
    while True:
        found = approximate.candidates(unit(q), NEIGHBOURS, probes)
        recall = float((truth[:, :, None] == found[:, None]).any(dim=2).float().mean())
        if recall >= RECALL or probes >= about.cells:
            return about.model_copy(update={"probes": min(probes, about.cells), "recall": round(recall, 4)})
        probes *= 2


def _write(faiss: Any, cells: Any, path: Path) -> None:
    try:
        faiss.write_index(cells, str(path))
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from None


def _folder(index: Index, among: Among) -> Path:
    return index.folder / f"approximate_{among}"


def _digest(side: Side) -> str:
    """Another one for other rows: of how many there are, and of some thousands of them, evenly spread.

    Of a large index that somebody changes in place, which we never do, a single row may go unnoticed: it is then compared as
    it is now and found as it was.
    """
    ids = torch.linspace(0, len(side) - 1, min(DIGESTED, len(side)), dtype=torch.float64).round().long()
    digest = hashlib.sha256(f"{len(side)} {side.width}".encode())
    digest.update(side.take(ids).numpy().tobytes())
    return digest.hexdigest()


def _faiss() -> Any:
    """faiss; ConfigError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise ConfigError("approximate search needs faiss: install unclip[search]") from None
    return faiss
