"""What training reads: an endless source of captioned pictures that is a pure function of (seed, position).

A run that was killed at position p goes on at p without having read what came before, whatever the number of workers.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unclip.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One captioned picture: `image` is uint8 (S, S, 3), `meta` says where it came from and what is known of its content."""

    key: str
    image: np.ndarray
    caption: str
    meta: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """An endless, randomly accessible stream of samples."""

    def sample(self, position: int, size: int) -> Sample:
        """The sample at `position` >= 0, `size` pixels square; the same arguments give the same sample, in any process."""
        ...

    def __len__(self) -> int:
        """How many pictures one epoch holds."""
        ...


def open_source(path: str | Path, seed: int) -> Source:
    """The source that fits what is at `path`: an icons set, webdataset tars (or one tar), a folder of captioned pictures.

    Raises DataError when there is nothing of these.
    """
    from unclip.data.folder import FolderSource
    from unclip.data.icons import IconStream
    from unclip.data.shards import ShardSource

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
