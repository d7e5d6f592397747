"""A small index of pictures, films and a tar, made with a tiny CLIP, for the tests of searching over HTTP."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from toy_clip import save_clip
from toy_search import drawn, fill, film, png, write_tar

from unclip.clip import Clip, load_clip
from unclip.search.build import build
from unclip.search.sources import list_sources

CAPTIONS = {0: "a red disc", 1: "a blue square", 2: "a cat on a mat"}
COUNT = 8  # drawn pictures


class Indexed:
    """The index at `folder`/photos.index and what it was made of: drawings 0 to 7, a JPEG, a GIF, a tar and a film."""

    def __init__(self, folder: Path):
        self.folder, self.path, self.pictures = folder, folder / "photos.index", folder / "photos"
        self.where = save_clip(folder / "clip", seed=1)
        fill(self.pictures, range(COUNT), CAPTIONS)
        drawn(20, (90, 60)).save(self.pictures / "photo.jpg")
        drawn(21).save(self.pictures / "moving.gif")
        write_tar(self.pictures / "shard.tar", [("a.png", png(22)), ("a.txt", b"two green stars"), ("b.png", png(23))])
        film(self.pictures / "film.mp4", [30, 31], every_key=10)
        self.clip: Clip = load_clip(self.where, device="cpu")
        self.make()

    def make(self) -> None:
        build(list_sources([self.pictures]), self.path, self.clip, every=1.0)

    @property
    def config(self) -> dict[str, Any]:
        """What a server is told of it."""
        return {"indices": {"photos": self.path}, "clips": {"photos": str(self.where)}, "device": "cpu"}

    def bytes(self, name: str) -> bytes:
        return (self.pictures / name).read_bytes()


def of_others(folder: Path, z: np.ndarray, **columns: list[Any]) -> None:
    """An index as clip-retrieval makes them, with these embeddings and columns, and no manifest."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    np.save(folder / "img_emb/img_emb_0.npy", z.astype(np.float16))
    pyarrow.parquet.write_table(pyarrow.table(columns or {"url": []}), folder / "metadata/metadata_0.parquet")


def opened(jpeg: bytes) -> Image.Image:
    """A JPEG, whole."""
    image = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    image.load()
    return image
