"""What a row of an index shows, as a JPEG of our own making: never a file as it is.

The files are those that the index names, read with the bounds under which it was made.
"""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.data.pictures import LARGEST
from unclip.errors import ConfigError
from unclip.images import rgb
from unclip.search import video
from unclip.search.sources import TAR, Span, list_sources
from unclip.server.errors import ApiError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
FILE_BYTES = 256 << 20
QUALITY = 92


def draw(row: dict[str, Any], side: int) -> bytes:
    """A row's picture, or its frame of a video, with no side longer than `side` px; ApiError 404 where there is none."""
    path, time = row["image_path"], row["time"] if row.get("kind") == "frame" else None
    if not isinstance(path, str):
        raise _not_there("The index does not say where this picture is.")
    try:
        image = _picture(path, side) if time is None else video.frame_at(path, time)
    except ConfigError:
        raise _not_there("This is a frame of a video, and PyAV, which reads them, is not installed here.") from None
    except Exception:  # whatever a library makes of a file that is another by now: the file is at fault
        raise _not_there("This picture is not where it was when it was indexed, or cannot be read any more.") from None
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)  # drawings have colours side by side
    return buffer.getvalue()


def _picture(path: str, side: int) -> Image.Image:
    """The picture at a path of an index, somewhat larger than `side` where it comes so; OSError or ValueError without."""
    with Image.open(io.BytesIO(_bytes(path)), formats=FORMATS) as opened:
        if opened.width * opened.height > LARGEST:
            raise ValueError("it is too large")
        opened.draft("RGB", (2 * side, 2 * side))
        return rgb(opened)


def _bytes(path: str) -> bytes:
    """A file's, or those of a tar's member, for which its name stands behind a #."""
    file = Path(path)
    tar, mark, _ = path.rpartition(f"{TAR}#")
    if mark and not file.is_file():
        holder = Path(f"{tar}{TAR}")
        return _members(holder, holder.stat().st_mtime_ns)[path].read()
    if not file.is_file() or file.stat().st_size > FILE_BYTES:  # also what never ends
        raise FileNotFoundError(path)
    return file.read_bytes()


@lru_cache(maxsize=8)
def _members(tar: Path, changed: int) -> dict[str, Span]:
    """Where the pictures of a tar are in it, by their paths."""
    return {entry.path: entry.content for entry in list_sources([tar]).entries}


def _not_there(message: str) -> ApiError:
    return ApiError(404, message, code="not_found")
