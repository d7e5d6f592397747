"""Webdataset tars, read at random: an index of offsets beside each tar, so that any sample is one seek away.

A sample is the consecutive members that share a name up to its first dot: a picture (jpg, png, webp) and its caption (txt,
or json with `caption` or `text`), as img2dataset writes them. The index is made once, by reading the tar's headers only,
and kept beside the tar, or in the user's cache folder where the tar's folder is read-only; it is made anew when the tar's
size or time changes. A sample is then a pure function of (seed, position), which a streaming reader's is not.
"""

import hashlib
import json
import os
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unclip import files
from unclip.data.faults import Broken, Faults
from unclip.data.order import Order
from unclip.data.pictures import EXTENSIONS, Crop, caption_text, square
from unclip.data.source import Sample
from unclip.errors import DataError

FORMAT = 1
BLOCK = tarfile.BLOCKSIZE
CAPTIONS = (".txt", ".json")


Group = tuple[str, dict[str, tuple[int, int]]]  # a key, and by extension the offset and size of its members


@dataclass(frozen=True)
class Index:
    """One tar's samples. `spans`: for each key, picture offset and size, caption offset and size, 1 where that is json."""

    format: int
    stamp: list[int]  # the tar's size and modification time
    keys: list[str]
    spans: list[list[int]]
    faults: list[list[str]]  # name, reason


class ShardSource:
    """A `Source` over one tar or a folder of tars. `limit_bad`: as in `FolderSource`; a torn tar counts as one."""

    def __init__(self, root: str | Path, seed: int, *, limit_bad: int | None = None, crop: Crop = "random"):
        self.root = Path(root)
        self.seed = seed
        self.crop: Crop = crop
        self.tars = [self.root] if self.root.is_file() else sorted(self.root.glob("*.tar"))
        if not self.tars:
            raise DataError(f"{self.root} holds no .tar: expected webdataset shards, not compressed")
        indices = [read_index(tar) for tar in self.tars]
        self._keys = [index.keys for index in indices]
        self._spans = [np.array(index.spans, dtype=np.int64).reshape(-1, 5) for index in indices]
        self._ends = np.cumsum([len(keys) for keys in self._keys])
        broken = [
            (f"{tar.name}/{name}", reason)
            for tar, index in zip(self.tars, indices, strict=True)
            for name, reason in index.faults
        ]
        self.faults = Faults(str(self.root), len(self) + len(broken), limit_bad)
        for name, reason in broken:
            self.faults.add(name, reason)
        if not len(self):
            found = f" ({self.faults})" if self.faults.found else ""
            raise DataError(f"{self.root} holds no sample{found}: expected members like 0001.jpg with 0001.txt or 0001.json")
        self._order = Order(len(self), seed)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sample(self, position: int, size: int) -> Sample:
        """The sample at `position`; a broken one's place is taken by the next in the listing."""
        return self.faults.first_good(self._order(position), len(self), lambda index: self._read(index, position, size))

    def _read(self, index: int, position: int, size: int) -> Sample:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        row = index - int(self._ends[shard]) + len(self._keys[shard])
        tar = self.tars[shard]
        name = f"{tar.name}/{self._keys[shard][row]}"
        start, length, text_start, text_length, is_json = (int(value) for value in self._spans[shard][row])
        try:
            with tar.open("rb") as file:
                picture = os.pread(file.fileno(), length, start)
                text = os.pread(file.fileno(), text_length, text_start)
        except OSError as error:
            raise Broken(name, error.strerror or str(error)) from None
        caption = _json_caption(text, name) if is_json else caption_text(text, name)
        image, (width, height) = square(picture, size, name=name, crop=self.crop, seed=self.seed, position=position)
        return Sample(name, image, caption, {"width": width, "height": height})


def read_index(tar: Path) -> Index:
    """The index of a tar, from where it is kept, else made and kept. Raises DataError when the tar cannot be read at all."""
    try:
        status = tar.stat()
    except OSError as error:
        raise DataError(f"cannot read {tar}: {error.strerror}") from None
    stamp = [status.st_size, status.st_mtime_ns]
    places = (tar.with_name(f"{tar.name}.index.json"), _cache_place(tar))
    for place in places:
        kept = _kept_index(place)
        if kept is not None and kept.stamp == stamp:
            return kept
    index = _make_index(tar, stamp)
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(place, json.dumps(asdict(index), ensure_ascii=False))
            break
        except OSError:  # a read-only folder: the next place, or made again next time
            continue
    return index


def _kept_index(place: Path) -> Index | None:
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
        index = Index(**values)
    except (OSError, ValueError, TypeError):
        return None
    return index if index.format == FORMAT else None


def _cache_place(tar: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "unclip" / "shards" / f"{hashlib.sha256(str(tar.resolve()).encode()).hexdigest()[:32]}.json"


def _make_index(tar: Path, stamp: list[int]) -> Index:
    groups: list[Group] = []
    faults: list[list[str]] = []
    torn = False
    try:
        with tarfile.open(tar, "r:") as archive:
            try:
                for member in archive:
                    if member.isfile() and member.offset_data + member.size <= stamp[0]:
                        _add_member(groups, faults, member)
            except tarfile.TarError:
                torn = True
            torn = torn or not _has_end(tar, archive.offset)
    except (tarfile.TarError, OSError) as error:
        faults.append(["", f"not a tar that can be read: {error}"])
    if torn:
        faults.append(["", "torn: it ends before its end mark"])
    keys, spans, seen = [], [], set()
    for key, parts in groups:
        picture = next((parts[extension] for extension in EXTENSIONS if extension in parts), None)
        text = next((extension for extension in CAPTIONS if extension in parts), None)
        if key in seen:
            faults.append([f"{key} (again)", "a key that the tar has already"])
        elif picture is None and text is not None:
            faults.append([key, "no picture"])
        elif picture is not None and text is None:
            faults.append([key, "no caption"])
        elif picture is not None and text is not None:
            seen.add(key)
            keys.append(key)
            spans.append([*picture, *parts[text], int(text == ".json")])
    return Index(FORMAT, stamp, keys, spans, faults)


def _add_member(groups: list[Group], faults: list[list[str]], member: tarfile.TarInfo) -> None:
    """Adds a member to the sample it belongs to: the last one if that has its key, else a new one."""
    folder, _, name = member.name.rpartition("/")
    stem, dot, extension = name.partition(".")
    extension = f"{dot}{extension.lower()}"
    key = f"{folder}/{stem}" if folder else stem
    if not groups or groups[-1][0] != key:
        groups.append((key, {}))
    parts = groups[-1][1]
    if extension in parts:
        faults.append([member.name, "a member that the sample has already"])
    else:
        parts[extension] = (member.offset_data, member.size)


def _has_end(tar: Path, offset: int) -> bool:
    """Whether a block of zeros, a tar's end mark, stands at `offset`."""
    with tar.open("rb") as file:
        file.seek(offset - offset % BLOCK)
        return file.read(BLOCK) == bytes(BLOCK)


def _json_caption(data: bytes, name: str) -> str:
    try:
        values: Any = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Broken(name, "its caption is not utf-8") from None
    except ValueError:
        raise Broken(name, "its json cannot be read") from None
    caption = next((values[k] for k in ("caption", "text") if values.get(k)), None) if isinstance(values, dict) else None
    if not isinstance(caption, str):
        raise Broken(name, "its json has no caption")
    return caption_text(caption.encode(), name)
