"""A contact sheet of what was found: each as CLIP saw it, the middle square, frames of videos at their very time."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.clip import look
from unclip.data.faults import Broken
from unclip.data.pictures import square
from unclip.errors import DataError, UnclipError
from unclip.images import grid
from unclip.search.query import Hit
from unclip.search.sources import TAR, Span, list_sources
from unclip.search.video import clock, frame_at

SIDE = 160  # px of a tile
COLUMNS = 5
BLANK = (224, 224, 224)


def draw_sheet(found: Sequence[Hit]) -> tuple[Image.Image, list[str]]:
    """The sheet, best first, with rank, score and name, and why some tiles are blank. DataError when nothing was found."""
    if not found:
        raise DataError("nothing was found: no sheet is drawn")
    tiles, captions, faults = [], [], []
    for rank, hit in enumerate(found, 1):
        try:
            tiles.append(_tile(hit.row))
        except UnclipError as error:
            faults.append(str(error))
            tiles.append(Image.new("RGB", (SIDE, SIDE), BLANK))
        time = hit.row.get("time")
        name = str(hit.row["image_path"] or f"row {hit.id}").rpartition("/")[2]
        captions.append(f"{rank}. {hit.score:.4f} {name}" + ("" if time is None else f" {clock(time)}"))
    return grid(tiles, COLUMNS, captions), faults


def _tile(row: dict[str, Any]) -> Image.Image:
    path, time = row["image_path"], row.get("time")
    if path is None:
        raise DataError("the index does not say where its pictures are")
    if time is not None:
        return look(frame_at(path, time), SIDE)
    try:
        pixels, _ = square(_content(path), SIDE, name=path, crop="center", seed=0, position=0)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except Broken as broken:
        raise DataError(f"{path}: {broken.args[1]}") from None
    return Image.fromarray(pixels)


def _content(path: str) -> bytes:
    """A picture's bytes, of a file or, with `#` and a key behind, of a tar's sample."""
    tar, mark, _ = path.rpartition(f"{TAR}#")
    if not mark or Path(path).is_file():
        return Path(path).read_bytes()
    holder = Path(f"{tar}{TAR}")
    spans = _samples(holder, holder.stat().st_mtime_ns)
    if path not in spans:
        raise DataError(f"{path} is no longer in its tar")
    return spans[path].read()


@lru_cache(maxsize=4)
def _samples(tar: Path, changed: int) -> dict[str, Span]:
    return {entry.path: entry.content for entry in list_sources([tar]).entries}
