"""A folder of captioned pictures, in either of the two ways people keep them.

(a) a `.txt` beside each picture with its caption; (b) `metadata.csv` or `metadata.jsonl` at the top with the columns
`file_name` and `text` (Hugging Face's imagefolder; `caption` is taken for `text`).
"""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.data.faults import Broken, Faults
from unclip.data.order import Order
from unclip.data.pictures import EXTENSIONS, Crop, caption_text, square
from unclip.data.source import Sample
from unclip.errors import DataError

TEXT_COLUMNS = ("text", "caption")


@dataclass(frozen=True)
class Item:
    """A picture's path below the root, and its caption; None where it is in the .txt beside it."""

    file: str
    caption: str | None


class FolderSource:
    """A `Source` over a folder. `limit_bad`: how many broken samples are skipped (1 %, at least 10) before DataError."""

    def __init__(self, root: str | Path, seed: int, *, limit_bad: int | None = None, crop: Crop = "random"):
        self.root = Path(root)
        self.seed = seed
        self.crop: Crop = crop
        self.items, faults = _listing(self.root)
        self.faults = Faults(str(self.root), len(self.items) + len(faults), limit_bad)
        for name, reason in faults:
            self.faults.add(name, reason)
        if not self.items:
            raise DataError(_nothing(self.root, self.faults))
        self._order = Order(len(self.items), seed)

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, position: int, size: int) -> Sample:
        """The sample at `position`; a broken one's place is taken by the next in the listing."""
        return self.faults.first_good(
            self._order(position), len(self.items), lambda index: self._read(index, position, size)
        )

    def _read(self, index: int, position: int, size: int) -> Sample:
        item = self.items[index]
        path = self.root / item.file
        try:
            caption = item.caption or caption_text(path.with_suffix(".txt").read_bytes(), item.file)
            data = path.read_bytes()
        except OSError as error:
            raise Broken(item.file, error.strerror or str(error)) from None
        image, (width, height) = square(data, size, name=item.file, crop=self.crop, seed=self.seed, position=position)
        return Sample(item.file, image, caption, {"width": width, "height": height})


Fault = tuple[str, str]


def _listing(root: Path) -> tuple[list[Item], list[Fault]]:
    """The pictures, sorted by path, and what cannot be used, named, with the reason."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    for name, rows in (("metadata.jsonl", _jsonl_rows), ("metadata.csv", _csv_rows)):
        if (root / name).exists():
            return _described(root, root / name, rows(root / name))
    return _beside(root)


def _beside(root: Path) -> tuple[list[Item], list[Fault]]:
    items, faults = [], []
    for folder, _, names in os.walk(root):
        present = set(names)
        below = Path(folder).relative_to(root)
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension.lower() not in EXTENSIONS:
                continue
            file = (below / name).as_posix()
            if f"{stem}.txt" in present:
                items.append(Item(file, None))
            else:
                faults.append((file, f"no caption: {stem}.txt is missing"))
    return sorted(items, key=lambda item: item.file), sorted(faults)


def _described(root: Path, table: Path, rows: Iterator[tuple[int, dict[str, Any] | None]]) -> tuple[list[Item], list[Fault]]:
    items: dict[str, Item] = {}
    faults: list[Fault] = []
    base = root.resolve()
    for number, row in rows:
        here = f"{table.name} line {number}"
        if row is None:
            faults.append((here, "not a row of the table"))
            continue
        file = row.get("file_name")
        texts = (row.get(column) for column in TEXT_COLUMNS)
        caption = next((" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip()), None)
        if not isinstance(file, str) or not file:
            faults.append((here, "no file_name"))
        elif caption is None:
            faults.append((file, f"no caption in {here}"))
        elif file in items:
            faults.append((f"{file} ({here})", "listed twice"))
        elif not (base / file).resolve().is_relative_to(base):
            faults.append((file, f"{here} points outside the folder"))
        elif not (base / file).is_file():
            faults.append((file, "no such file"))
        else:
            items[file] = Item(file, caption)
    return sorted(items.values(), key=lambda item: item.file), faults


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError:  # also a UnicodeDecodeError
            row = None
        yield number, row if isinstance(row, dict) else None


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
        columns = reader.fieldnames or []
        if "file_name" not in columns or not set(TEXT_COLUMNS) & set(columns):
            raise DataError(f"{path} has the columns {', '.join(columns) or '(none)'}: expected file_name and text")
        for row in reader:
            yield reader.line_num, row
    except UnicodeDecodeError:
        raise DataError(f"{path} is not utf-8 text: save it as utf-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is not a csv table: {error}") from None


def _nothing(root: Path, faults: Faults) -> str:
    expected = "expected pictures (jpg, png, webp), each with a .txt caption beside it, or a metadata.csv or metadata.jsonl"
    found = f"; broken: {faults}" if faults.found else ""
    return f"{root} holds no captioned picture{found}; {expected}"
