"""The map as one page that needs nothing but itself: no network, no server; it opens from a disk.

Its policy lets in no script, style or picture that is not in the file. Thumbnails are one sheet of 48 px cells, a `data:`
URI, for at most 4,000 pictures; its quality falls until it is below 6 MB, so that a page of so many stays below 10.
"""

import base64
import hashlib
import io
import json
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unclip.files import write_text
from unclip.maps.chart import COLOURS, LABELS
from unclip.maps.clouds import Cloud
from unclip.maps.plane import Plane
from unclip.maps.rows import THUMBNAIL, Rows

THUMBNAILS = 4000
MOST_BYTES = 6_000_000
QUALITIES = (80, 60, 40, 20)  # of WebP; the last is taken as it is
DIGITS = 4


def write_page(path: str | Path, rows: Rows, clouds: Sequence[Cloud], plane: Plane, *, title: str, note: str) -> None:
    """Writes the page, whole or not at all; `note` is one line below its title. OSError as the system gives it."""
    values = {
        "clouds": [_cloud(rows, cloud, places) for cloud, places in zip(clouds, plane.places, strict=True)],
        "captions": rows.captions,
        "names": rows.names,
        "axes": plane.axes,
        "sheet": _sheet(rows.thumbnails),
    }
    write_text(path, _page(values, title, note))


def _page(values: dict[str, Any], title: str, note: str) -> str:
    parts = {name: (files("unclip.maps") / name).read_text(encoding="utf-8") for name in ("map.html", "map.css", "map.js")}
    # Of what stands in the page, "<" alone could end the element that it stands in.
    data = json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(parts['map.css'])}'; "
    policy += f"script-src '{_digest(parts['map.js'])}'"
    given = {"TITLE": escape(title), "NOTE": escape(note), "POLICY": escape(policy)}
    given |= {"STYLE": parts["map.css"], "DATA": data, "SCRIPT": parts["map.js"]}
    pieces = parts["map.html"].split("%%")  # text, name, text, name, ..., text
    return "".join(given[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _cloud(rows: Rows, cloud: Cloud, places: np.ndarray) -> dict[str, Any]:
    """Its places, the row of each point, and each point's cosine to its picture."""
    cosines = (cloud.points * rows.z[cloud.rows]).sum(dim=1) if cloud.points is not rows.z else torch.ones(len(rows))
    return {
        "name": cloud.name,
        "label": LABELS[cloud.name],
        "colour": COLOURS[cloud.name],
        "places": [[_short(x), _short(y)] for x, y in places.tolist()],
        "rows": cloud.rows,
        "cosines": [round(cosine, 3) for cosine in cosines.tolist()],
    }


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _sheet(thumbnails: Sequence[np.ndarray | None]) -> dict[str, Any]:
    """All thumbnails as one picture, and the cell of each row's, -1 where it is not on it."""
    there = [row for row, thumbnail in enumerate(thumbnails) if thumbnail is not None][:THUMBNAILS]
    columns = max(1, math.ceil(math.sqrt(len(there))))
    cells = [-1] * len(thumbnails)
    sheet = np.full((-(-len(there) // columns), THUMBNAIL, columns, THUMBNAIL, 3), 255, dtype=np.uint8)
    for cell, row in enumerate(there):
        cells[row] = cell
        thumbnail = thumbnails[row]
        assert thumbnail is not None, "only those that are there"
        sheet[cell // columns, :, cell % columns] = thumbnail
    url = _as_url(sheet.reshape(-1, columns * THUMBNAIL, 3)) if there else ""
    return {"url": url, "side": THUMBNAIL, "columns": columns, "cells": cells}


def _as_url(pixels: np.ndarray) -> str:
    """A picture as WebP, as well as fits the bytes that it may have."""
    content = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=quality)
        content = buffer.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
