"""An index on disk: embeddings of unit length in fp16 beside a table of what they are of, in clip-retrieval's layout.

    INDEX/
      unclip-index.json              which CLIP, of which sources, with which options; not in indices that others made
      img_emb/img_emb_0.npy          (n, E) float16, a row a picture
      text_emb/text_emb_0.npy        (n, E) float16, a row a caption, zeros where there is none; or no such folder
      metadata/metadata_0.parquet    image_path, caption, and whatever else its maker knew: ours has the columns of `Row`

Shards are numbered; shard i of each folder holds the same rows. A row's id is its place in all of them, one after the other.
Embeddings are mapped, never read whole.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from unclip import files
from unclip.config import Config
from unclip.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1
MANIFEST = "unclip-index.json"
IMAGES, TEXTS, METADATA = "img_emb", "text_emb", "metadata"
SHARD_ROWS = 1 << 16


@dataclass(frozen=True)
class Row:
    """What is told of one embedding."""

    image_path: str
    """The file as its source was given and the way below it; a sample of a tar has `#` and its key behind."""
    caption: str | None
    kind: Literal["picture", "frame"]
    time: float | None
    """Seconds from a video's beginning."""
    until: float | None
    """Seconds at which the run of equal frames that this one stands for ends."""
    width: int
    height: int
    stamp: str
    """Another one when the file is another: its size and time of change."""


class ClipOf(Config):
    """Which CLIP embedded an index."""

    name: str
    fingerprint: str
    width: int


class Manifest(Config):
    format: Literal[1] = FORMAT
    clip: ClipOf
    sources: tuple[str, ...]
    options: dict[str, Any] = Field(default_factory=dict)
    """What else the embeddings depend on."""
    rows: int


class Index:
    """An index that is there, ours or another's. DataError for a folder that is none, is torn, or does not add up."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        paths = _numbered(self.folder / IMAGES, "npy")
        if not paths:
            raise DataError(
                f"{folder} is no index: expected a folder with {IMAGES}/{IMAGES}_0.npy, see `unclip search index`"
            )
        self.images = [_mapped(path) for path in paths]
        texts = [_mapped(path) for path in _numbered(self.folder / TEXTS, "npy")]
        self.texts = texts or None
        self._tables = _numbered(self.folder / METADATA, "parquet")
        self._check()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def width(self) -> int:
        """E."""
        return self.images[0].shape[1]

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(shard) for shard in self.images])

    def rows(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """What the table says of each of some rows, at least `image_path` and `caption`, either of which may be None."""
        if not self._tables:
            return [{"image_path": None, "caption": None} for _ in ids]
        tables: dict[int, Any] = {}
        found = []
        for id in ids:
            shard = int(np.searchsorted(self._ends, id, side="right"))
            if shard not in tables:
                tables[shard] = self.table(shard)
            values = tables[shard].slice(id - int(self._ends[shard]) + len(self.images[shard]), 1).to_pylist()[0]
            found.append({"image_path": None, "caption": None} | values)
        return found

    def table(self, shard: int, columns: Sequence[str] | None = None) -> "pyarrow.Table":
        """All that the table says of a shard's rows, or those columns of it that it has; DataError where there is none."""
        if not self._tables:
            raise DataError(f"{self.folder} has no {METADATA}: nothing is known of its rows")
        path = self._tables[shard]
        parquet = arrow().parquet
        try:
            there = parquet.read_schema(path, memory_map=True).names
            wanted = None if columns is None else [name for name in columns if name in there]
            table = parquet.read_table(path, columns=wanted, memory_map=True)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise DataError(f"cannot read {path}: {_first_line(error)}") from None
        if len(table) != len(self.images[shard]):
            raise DataError(f"{path} tells of {len(table)} rows, but {IMAGES} has {len(self.images[shard])}: it is torn")
        return table

    def _check(self) -> None:
        widths = {shard.shape[1] for shard in [*self.images, *(self.texts or [])]}
        if len(widths) > 1:
            raise DataError(
                f"{self.folder} has embeddings of {', '.join(map(str, sorted(widths)))} numbers: expected one width"
            )
        if self.texts is not None and [len(shard) for shard in self.texts] != [len(shard) for shard in self.images]:
            raise DataError(f"{self.folder} has as many rows in {TEXTS} as not in {IMAGES}: it is torn")
        if self._tables and len(self._tables) != len(self.images):
            raise DataError(f"{self.folder} has {len(self.images)} shards of embeddings and {len(self._tables)} of metadata")
        if self.manifest is not None and (self.manifest.rows, self.manifest.clip.width) != (len(self), self.width):
            raise DataError(
                f"{self.folder} holds {len(self)} rows of {self.width}, but its {MANIFEST} says {self.manifest.rows} "
                f"of {self.manifest.clip.width}: it is torn, index again"
            )


def read_manifest(folder: Path) -> Manifest | None:
    """What we wrote of an index, None where there is nothing; DataError when it is torn or of a later version."""
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Manifest.parse(values, where=str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ConfigError) as error:
        raise DataError(f"cannot read {path}: {_first_line(error)}") from None


def write_shard(
    folder: Path, number: int, images: np.ndarray, texts: np.ndarray | None, rows: "Iterable[Row] | pyarrow.Table"
) -> None:
    """Writes shard `number` into the folder of an index in the making; the same rows give the same bytes."""
    pa = arrow()
    for name, array in ((IMAGES, images), (TEXTS, texts)):
        if array is not None:
            (folder / name).mkdir(exist_ok=True)
            np.save(folder / name / f"{name}_{number}.npy", array.astype(np.float16))
    (folder / METADATA).mkdir(exist_ok=True)
    table: Any = rows
    if not isinstance(rows, pa.Table):
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema())
    path = folder / METADATA / f"{METADATA}_{number}.parquet"
    pa.parquet.write_table(table.combine_chunks(), path, compression="zstd")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    files.write_text(folder / MANIFEST, manifest.model_dump_json(indent=1))


def arrow() -> Any:
    """pyarrow with its parquet; ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("an index needs pyarrow: install unclip[search]") from None
    return pyarrow


def _schema() -> "pyarrow.Schema":
    pa = arrow()
    text, whole, real = pa.string(), pa.int32(), pa.float64()
    return pa.schema(
        [
            ("image_path", text),
            ("caption", text),
            ("kind", text),
            ("time", real),
            ("until", real),
            ("width", whole),
            ("height", whole),
            ("stamp", text),
        ]
    )


def _numbered(folder: Path, suffix: str) -> list[Path]:
    """The shards of a folder in the order of their numbers, zero-padded or not."""
    named = [(re.search(r"(\d+)$", path.stem), path) for path in folder.glob(f"{folder.name}_*.{suffix}")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def _mapped(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path}: {_first_line(error)}") from None
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32):
        raise DataError(f"{path} holds {array.dtype} of shape {array.shape}: expected (n, E) float16 or float32")
    return array


def _first_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
