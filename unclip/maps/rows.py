"""What is mapped: pictures and their captions as unit embeddings, from pools, indices, folders, tars and single files.

Pools and indices bring what the CLIP has already made of them; the rest it looks at now. Where there are more pictures than
are to be mapped, so many are drawn from all of them. Letters: N rows, E embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unclip.clip import BATCH, Clip, unit
from unclip.data.faults import Broken
from unclip.data.pictures import square
from unclip.data.pool import Embedded, Pool
from unclip.errors import DataError
from unclip.images import from_pixels, resize, to_pixels
from unclip.search.layout import IMAGES, Index
from unclip.search.query import check_clip
from unclip.search.sources import Entry, list_sources

THUMBNAIL = 48  # px
FEWEST = 3  # rows that have a plane

Progress = Callable[[int, int], object]


@dataclass
class Rows:
    """N pictures, and what was made of them."""

    z: Tensor
    """(N, E), of unit length."""
    text: Tensor
    """(N, E), of unit length; zeros where there is no caption."""
    captions: list[str]
    """Empty where there is none."""
    names: list[str]
    thumbnails: list[np.ndarray | None]
    """uint8 (48, 48, 3), where the picture is at hand."""
    faults: dict[str, str] = field(default_factory=dict)
    """What could not be looked at, by its name."""

    def __len__(self) -> int:
        return len(self.captions)


class Source(Protocol):
    """So many pictures, some of which can be taken."""

    def __len__(self) -> int: ...

    def take(self, ids: Sequence[int], clip: Clip) -> Iterator[Rows]:
        """Those rows, in their order, less what is broken; a batch at a time."""
        ...


def gather(
    sources: Sequence[str | Path],
    clip: Clip,
    *,
    most: int = 4000,
    seed: int = 0,
    thumbnails: bool = True,
    progress: Progress | None = None,
) -> Rows:
    """The rows of some sources, at most so many of all of them; without `thumbnails` an index's pictures are not read.

    DataError for a source that is none or that another CLIP embedded, and where fewer than three pictures can be read.
    """
    opened = _open(sources, clip, thumbnails)
    ends = np.cumsum([len(source) for source in opened])
    count = min(most, int(ends[-1]))
    chosen = np.sort(np.random.default_rng(seed).choice(int(ends[-1]), count, replace=False))
    parts: list[Rows] = []
    for source, end in zip(opened, ends, strict=True):
        first = int(end) - len(source)
        ids = [int(id) - first for id in chosen[(chosen >= first) & (chosen < end)]]
        for part in source.take(ids, clip):
            parts.append(part)
            if progress is not None:
                progress(sum(map(len, parts)), count)
    rows = _joined(parts, clip.width)
    if len(rows) < FEWEST:
        broken = "".join(f", {name} is broken: {reason}" for name, reason in list(rows.faults.items())[:1])
        raise DataError(f"{len(rows)} pictures in {', '.join(map(str, sources))}: a map needs at least {FEWEST}{broken}")
    return rows


def _open(sources: Sequence[str | Path], clip: Clip, thumbnails: bool) -> list[Source]:
    """Pools and indices one by one, and all that is neither as one listing."""
    opened: list[Source] = []
    files = []
    for source in map(Path, sources):
        if (source / IMAGES).is_dir():
            opened.append(_OfIndex(Index(source), clip, thumbnails))
        elif (source / "pool.json").exists():
            opened.append(_OfPool(Pool(source), clip))
        else:
            files.append(source)
    return [*opened, *([_OfFiles(files)] if files else [])]


def _joined(parts: Sequence[Rows], width: int) -> Rows:
    empty = torch.zeros(0, width)
    return Rows(
        z=torch.cat([empty, *(part.z for part in parts)]),
        text=torch.cat([empty, *(part.text for part in parts)]),
        captions=[caption for part in parts for caption in part.captions],
        names=[name for part in parts for name in part.names],
        thumbnails=[thumbnail for part in parts for thumbnail in part.thumbnails],
        faults={name: reason for part in parts for name, reason in part.faults.items()},
    )


def read_captions(captions: Sequence[str], clip: Clip) -> Tensor:
    """Their unit embeddings (N, E); zeros for those that are empty."""
    texts = torch.zeros(len(captions), clip.width)
    written = [row for row, caption in enumerate(captions) if caption]
    if written:
        texts[written] = unit(clip.texts([captions[row] for row in written]))
    return texts


class _OfPool:
    """A pool, with what was made of it if that was by this CLIP."""

    def __init__(self, pool: Pool, clip: Clip):
        self._pool = pool
        try:
            self._embedded = Embedded(pool, clip=clip.fingerprint)
        except DataError:  # not yet embedded, or by another
            self._embedded = None

    def __len__(self) -> int:
        return len(self._pool)

    def take(self, ids: Sequence[int], clip: Clip) -> Iterator[Rows]:
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            x = self._pool.tensor(some)
            captions = [self._pool.samples[id]["caption"] or "" for id in some]
            if self._embedded is None:
                z, texts = clip.pixels(resize(x, clip.size)), read_captions(captions, clip)
            else:
                z, texts = self._embedded.z[some], self._embedded.pooled[self._embedded.caption[some]]
                texts = texts * _written(captions)
            small = list(to_pixels(resize(x, THUMBNAIL)))
            yield Rows(unit(z), unit(texts), captions, [self._pool.samples[id]["key"] for id in some], small)


class _OfIndex:
    """An index, ours or another's. Of its pictures only those are shown that are still at their path."""

    def __init__(self, index: Index, clip: Clip, thumbnails: bool):
        self._index = index
        check_clip(index, clip)
        self._entries = _entries(index.manifest.sources) if thumbnails and index.manifest is not None else {}

    def __len__(self) -> int:
        return len(self._index)

    def take(self, ids: Sequence[int], clip: Clip) -> Iterator[Rows]:
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            told = self._index.rows(some)
            captions = [" ".join((row["caption"] or "").split()) for row in told]
            z = _at(self._index.images, some)
            texts = read_captions(captions, clip) if self._index.texts is None else _at(self._index.texts, some)
            names = [row["image_path"] or f"row {id}" for row, id in zip(told, some, strict=True)]
            texts = unit(texts) * _written(captions)
            yield Rows(unit(z), texts, captions, names, [self._thumbnail(row["image_path"]) for row in told])

    def _thumbnail(self, path: str | None) -> np.ndarray | None:
        """Of a picture that is there; none of a video's frame."""
        entry = self._entries.get(path or "")
        if entry is None or entry.kind != "picture":
            return None
        try:
            return square(entry.content.read(), THUMBNAIL, name=entry.path, crop="center", seed=0, position=0)[0]
        except (Broken, OSError):
            return None


class _OfFiles:
    """Pictures that are looked at now, a batch at a time."""

    def __init__(self, sources: Sequence[Path]):
        self._listing = list_sources(sources)
        self._entries = [entry for entry in self._listing.entries if entry.kind == "picture"]

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, ids: Sequence[int], clip: Clip) -> Iterator[Rows]:
        for start in range(0, len(ids), BATCH):
            faults = dict(self._listing.faults) if start == 0 else {}
            pixels, captions, names = [], [], []
            for id in ids[start : start + BATCH]:
                entry = self._entries[id]
                try:
                    words = entry.words()
                    seen = square(entry.content.read(), clip.size, name=entry.path, crop="center", seed=0, position=0)[0]
                except (Broken, OSError) as fault:
                    faults[entry.path] = fault.args[1] if isinstance(fault, Broken) else fault.strerror or str(fault)
                    continue
                pixels.append(seen)
                captions.append(words or "")
                names.append(entry.path)
            x = from_pixels(np.stack(pixels)) if pixels else torch.zeros(0, 3, clip.size, clip.size)
            small = list(to_pixels(resize(x, THUMBNAIL))) if pixels else []
            z = unit(clip.pixels(x)) if pixels else torch.zeros(0, clip.width)
            yield Rows(z, read_captions(captions, clip), captions, names, small, faults)


def _written(captions: Sequence[str]) -> Tensor:
    """1 where there is a caption, else 0, (N, 1)."""
    return torch.tensor([[float(bool(caption))] for caption in captions])


def _entries(sources: Sequence[str]) -> dict[str, Entry]:
    """What an index is of, by its path; nothing where that is gone."""
    try:
        return {entry.path: entry for entry in list_sources(sources).entries}
    except DataError:
        return {}


def _at(shards: Sequence[np.ndarray], ids: Sequence[int]) -> Tensor:
    """Rows (N, E) of shards that lie one after the other, in fp32."""
    ends = np.cumsum([len(shard) for shard in shards])
    found = []
    for id in ids:
        shard = int(np.searchsorted(ends, id, side="right"))
        found.append(shards[shard][id - int(ends[shard]) + len(shards[shard])].astype(np.float32))
    return torch.from_numpy(np.stack(found))
