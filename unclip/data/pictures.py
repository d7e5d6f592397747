"""From the bytes of a foreign picture to a training square: decoded, upright, over white, cropped, shrunk in one step."""

import io
from random import Random
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from unclip.data.faults import Broken
from unclip.images import rgb, shrink, square_crop
from unclip.seeds import mix

Crop = Literal["random", "center"]
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
LARGEST = 64_000_000  # pixels; what claims more is taken for a decompression bomb
CROP_STREAM = 0xC709


def square(data: bytes, size: int, *, name: str, crop: Crop, seed: int, position: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The picture as uint8 (size, size, 3), its short side cropped to a square and resized; and its (width, height).

    The square is the middle one, or one drawn from (seed, position). Raises Broken for bytes that are no whole picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            if width * height > LARGEST:
                raise Broken(name, f"{width} x {height} pixels, more than {LARGEST}")
            opened.draft("RGB", (2 * size, 2 * size))  # a JPEG decodes at a fraction of its size, still twice what is needed
            image = rgb(opened)
    except Broken:
        raise
    except UnidentifiedImageError:
        raise Broken(name, "not a readable picture: of no format known") from None
    except Exception as error:  # a decoder fed with foreign bytes raises about anything
        raise Broken(name, f"not a readable picture: {' '.join(str(error).split())[:80]}") from None
    if crop == "center":
        return shrink(square_crop(image), size), (width, height)
    side, rng = min(image.size), Random(mix(seed ^ CROP_STREAM, position))
    left, top = rng.random() * (image.width - side), rng.random() * (image.height - side)
    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.array(resized), (width, height)


def caption_text(data: bytes, name: str) -> str:
    """A caption file's text on one line; raises Broken when it is empty or not utf-8."""
    try:
        text = " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        raise Broken(name, "its caption is not utf-8") from None
    if not text:
        raise Broken(name, "its caption is empty")
    return text
