"""Which source fits what is at a path."""

from pathlib import Path

from unclip.data.folder import FolderSource
from unclip.data.icons import IconStream
from unclip.data.shards import ShardSource
from unclip.data.source import Source
from unclip.errors import DataError


def open_source(path: str | Path, seed: int) -> Source:
    """The source that fits what is at `path`: an icons set, webdataset tars (or one tar), a folder of captioned pictures.

    Raises DataError when there is nothing of these.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no {path}: expected a folder of captioned pictures, webdataset tars or an icons set")
    if (path / "icons.json").exists():
        return IconStream(path, seed)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return ShardSource(path, seed)
    if path.is_dir():
        return FolderSource(path, seed)
    raise DataError(f"{path} is neither a folder nor a .tar: expected captioned pictures, webdataset tars or an icons set")
