"""An index that is open for searching: its rows and what is known of them, and the CLIP that it is asked with."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unclip.clip import Clip, unit
from unclip.search.approximate import choose
from unclip.search.layout import IMAGES, Index
from unclip.search.query import Find, nearest
from unclip.search.rows import side_of
from unclip.server import errors
from unclip.server.search.queries import TOLD, Among, Place

if TYPE_CHECKING:
    import pyarrow

TABLE_BYTES = 256 << 20


class Kept(Index):
    """An index whose tables stay in memory, those that were asked for last, up to TABLE_BYTES of them."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._kept: OrderedDict[int, pyarrow.Table] = OrderedDict()
        self._reading = threading.Lock()

    def table(self, shard: int, columns: Sequence[str] | None = None) -> "pyarrow.Table":
        """What the table says of a shard's rows in the columns that may be told, whichever are asked for."""
        with self._reading:
            if shard not in self._kept:
                self._kept[shard] = super().table(shard, TOLD)
            self._kept.move_to_end(shard)
            while len(self._kept) > 1 and sum(table.nbytes for table in self._kept.values()) > TABLE_BYTES:
                self._kept.popitem(last=False)
            return self._kept[shard]


class Opened:
    """An index, its edition, and the CLIP that it is asked with."""

    def __init__(self, index: Index, clip: Clip, edition: str):
        self.index, self.clip, self.edition = index, clip, edition
        self._ways: dict[Among, Find] = {}

    def __len__(self) -> int:
        return len(self.index)

    def check(self, place: Place) -> None:
        """ApiError when a place is of another edition, or of none."""
        if place.edition != self.edition:
            raise errors.index_changed()
        if not 0 <= place.id < len(self):
            raise errors.not_found("picture")

    def find(self, among: Among) -> Find:
        """How rows are found: exactly, or past a million of them by the cells that `unclip search compress` made, if any.

        Rows that are to be found exactly are held in memory from soon after the first question.
        """
        if among not in self._ways:
            cells, _ = choose(self.index, among)
            self._ways[among] = cells.nearest if cells else lambda some, count: nearest(self.index, some, count, among=among)
            if cells is None:
                threading.Thread(target=side_of(self.index, among).hold, name="holder", daemon=True).start()
        return self._ways[among]

    def told(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the table as JSON has them."""
        return [{name: _plain(value) for name, value in row.items()} for row in rows]

    def vectors(self, ids: Sequence[int], among: Among = "image") -> Tensor:
        """The embeddings (n, E) of some rows, of length one."""
        return unit(side_of(self.index, among).take(torch.tensor(ids)))


def edition_of(folder: Path) -> str:
    """Another one for each index that takes this one's place; sixteen letters that tell nothing."""
    status = (folder / IMAGES).stat()
    return hashlib.sha256(f"{status.st_ino}:{status.st_mtime_ns}".encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A value of a foreign table as text, a finite number, true, false or null."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
