"""The drawings as stored: straight-alpha RGBA, rendered once at 256 px, averaged down to 128 and 64, and as SVG for more.

A prepared folder:
    icons.json          what it was made from, counts, failures; written last, so its presence means that all is complete
    drawings.jsonl      one record a drawing (see `Drawing`), in the order of the arrays' rows
    svg.jsonl           one SVG text a drawing, same order
    drawings-{256,128,64}.npy    uint8 (N, S, S, 4)
"""

import io
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from unclip.data.icons.selection import Drawing
from unclip.errors import DataError

SIZES = (256, 128, 64)
FORMAT = 1


def render_svg(svg: str, size: int) -> np.ndarray:
    """An SVG text as straight-alpha RGBA, uint8 (size, size, 4). Raises ValueError when it cannot be drawn."""
    try:
        import resvg_py
    except ImportError:
        raise DataError("drawing SVG needs resvg-py, which is not installed: pip install 'unclip[icons]'") from None
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return np.array(Image.open(io.BytesIO(png)).convert("RGBA"))


def average_blocks(rgba: np.ndarray, factor: int) -> np.ndarray:
    """Area average of straight-alpha uint8 (S, S, 4) by a whole factor: colours weigh by their alpha."""
    side = rgba.shape[0] // factor
    blocks = rgba.reshape(side, factor, side, factor, 4).astype(np.float32)
    alpha = blocks[..., 3:].mean(axis=(1, 3))
    color = (blocks[..., :3] * blocks[..., 3:]).mean(axis=(1, 3)) / np.maximum(alpha, 1e-6)
    return np.concatenate([color, alpha], axis=-1).round().clip(0, 255).astype(np.uint8)


class Drawings:
    """A prepared folder, opened: `listing` (drawings by row) and pixels at any size.

    Raises DataError when `root` holds no complete icons set.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        try:
            self.header = json.loads((self.root / "icons.json").read_text(encoding="utf-8"))
            lines = (self.root / "drawings.jsonl").read_text(encoding="utf-8").splitlines()
            self._arrays = {size: np.load(self.root / f"drawings-{size}.npy", mmap_mode="r") for size in SIZES}
        except (OSError, ValueError):
            raise DataError(
                f"{self.root} holds no complete icons set: make it with `unclip data icons --out {self.root}`"
            ) from None
        self.listing = [_drawing(json.loads(line)) for line in lines]
        self.by_key = {drawing.key: drawing for drawing in self.listing}
        self._arrays[64] = np.array(self._arrays[64])  # small enough to live in memory; the others stay in the page cache
        self._svgs: list[str] | None = None
        self._render = lru_cache(maxsize=64)(self._render_large)

    def __len__(self) -> int:
        return len(self.listing)

    def svg(self, index: int) -> str:
        """The SVG text of a drawing."""
        if self._svgs is None:
            with (self.root / "svg.jsonl").open(encoding="utf-8") as lines:
                self._svgs = [json.loads(line) for line in lines]
        return self._svgs[index]

    def pixels(self, index: int, size: int) -> np.ndarray:
        """A drawing at `size` px, premultiplied alpha, uint8 (size, size, 4).

        From the stored size itself, else shrunk from the smallest stored size of at least 1.5 times `size` (256 for all
        that come near it, so that nothing is ever enlarged), else drawn from its SVG.
        """
        if size > max(SIZES):
            return np.array(Image.fromarray(self._render(index, size), "RGBA").convert("RGBa"))
        exact = size in SIZES
        stored = size if exact else min((side for side in SIZES if side >= 1.5 * size), default=max(SIZES))
        image = Image.fromarray(np.asarray(self._arrays[stored][index]), "RGBA").convert("RGBa")
        return np.asarray(image if exact else image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None))

    def _render_large(self, index: int, size: int) -> np.ndarray:
        return render_svg(self.svg(index), size)

    def boxes(self) -> np.ndarray:
        """Each drawing's box of visible pixels, fractions (left, top, right, bottom), float (N, 4), read off at 64 px."""
        visible = self._arrays[64][..., 3] > 32
        columns, rows = visible.any(axis=1), visible.any(axis=2)
        left, top = columns.argmax(axis=1), rows.argmax(axis=1)
        right, bottom = 64 - columns[:, ::-1].argmax(axis=1), 64 - rows[:, ::-1].argmax(axis=1)
        return np.stack([left, top, right, bottom], axis=1) / 64


def _drawing(record: dict) -> Drawing:
    values = {key: value for key, value in record.items() if key != "key"}
    return Drawing(**{**values, "names": tuple(values["names"]), "keywords": tuple(values["keywords"])})
