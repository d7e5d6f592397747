"""Near-duplicates in an index: pictures whose embeddings point the same way, in groups, by exact products of blocks.

A group is what is connected: its ends may be further apart than its neighbours. Frames of one video are not each other's
twins.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unclip.clip import unit
from unclip.search.layout import Index
from unclip.search.rows import side_of

BLOCK = 4096

Progress = Callable[[int, int], object]


class Twin(NamedTuple):
    """One of a group: what the index tells of it, and its cosine to the group's first."""

    row: dict[str, Any]
    cosine: float


def find_twins(index: Index, above: float, *, progress: Progress | None = None) -> list[list[Twin]]:
    """Groups of rows whose cosine is at least `above`, in the order of their first rows. DataError for a torn index.

    Every pair is compared: N rows cost N^2 / 2 products. `progress` is told how many pairs of blocks are done.
    """
    paths = _path_numbers(index)
    labels = np.arange(len(index))
    blocks = [(start, min(start + BLOCK, len(index))) for start in range(0, len(index), BLOCK)]
    pairs = [(one, two) for number, one in enumerate(blocks) for two in blocks[number:]]
    for done, ((one, one_end), (two, two_end)) in enumerate(pairs):
        cosines = _rows(index, np.arange(one, one_end)) @ _rows(index, np.arange(two, two_end)).T
        i, j = (found.numpy() for found in torch.nonzero(cosines >= above, as_tuple=True))
        i, j = i + one, j + two
        apart = (i < j) & (paths[i] != paths[j])
        _join(labels, i[apart], j[apart])
        if progress is not None:
            progress(done + 1, len(pairs))
    return _groups(index, labels)


def _path_numbers(index: Index) -> np.ndarray:
    """A number for each row's file, the same for the rows of one; rows without a path have one each."""
    numbers: dict[Any, int] = {}
    found = []
    for row in range(0, len(index), BLOCK):
        ids = range(row, min(row + BLOCK, len(index)))
        for id, told in zip(ids, index.rows(ids), strict=True):
            found.append(numbers.setdefault(id if told["image_path"] is None else told["image_path"], len(numbers)))
    return np.array(found, dtype=np.int64)


def _rows(index: Index, ids: np.ndarray) -> Tensor:
    """Rows (n, E) of the index in fp32, of unit length."""
    return unit(side_of(index, "image").take(torch.from_numpy(ids)))


def _join(labels: np.ndarray, i: np.ndarray, j: np.ndarray) -> None:
    """Gives all that these pairs connect one label, the lowest; labels are those of the lowest row before and after."""
    while True:
        one, two = labels[i], labels[j]
        differ = one != two
        if not differ.any():
            return
        np.minimum.at(labels, np.maximum(one, two)[differ], np.minimum(one, two)[differ])
        while ((jumped := labels[labels]) != labels).any():
            labels[:] = jumped


def _groups(index: Index, labels: np.ndarray) -> list[list[Twin]]:
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    groups = []
    for ids in members:
        if len(ids) > 1:
            z = _rows(index, ids)
            told = index.rows(ids.tolist())
            groups.append([Twin(row, cosine) for row, cosine in zip(told, (z @ z[0]).tolist(), strict=True)])
    return groups
