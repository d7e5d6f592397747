"""Making an index, going on with one that was interrupted, and bringing one up to date.

What the index that is there has already, by path and stamp, is kept; the rest is embedded in parts, always the same ones for
the same entries. A part is finished when its folder has its name, a digest of all that it depends on: so a run that was
killed finds it again, and one over other files does not. Batches begin where a part does, since the last bits of a row may
depend on its company. In the end all rows, sorted by path, take the place of the old index in one step.

    .INDEX.lock              beside the index: one run at a time
    INDEX/.building/DIGEST/  a finished part: an index of one shard, with faults.json
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from glob import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from unclip import files
from unclip.clip import BATCH, Clip, look, unit
from unclip.data.faults import Broken
from unclip.data.pictures import square
from unclip.errors import DataError
from unclip.images import from_pixels
from unclip.search import video
from unclip.search.layout import (
    MANIFEST,
    SHARD_ROWS,
    ClipOf,
    Index,
    Manifest,
    Row,
    arrow,
    read_manifest,
    write_manifest,
    write_shard,
)
from unclip.search.sources import Entry, Listing, first_of

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1
BUILDING, FAULTS = ".building", "faults.json"
PART = 1024  # pictures
VIDEO_BYTES = 1 << 18  # of a video weigh as much as a picture
AHEAD = 2 * BATCH  # pictures that are decoded while the network looks at those before

Progress = Callable[[int, int], object]


@dataclass
class Report:
    """What became of the entries: `kept`, `added`, `changed` and `deleted` ones, `faults` by name; `rows` in the end."""

    rows: int = 0
    kept: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    passed_over: int = 0
    faults: dict[str, str] = field(default_factory=dict)


class Look(NamedTuple):
    """One row in the making, and what CLIP is shown for it, uint8 (S, S, 3)."""

    row: Row
    pixels: np.ndarray


def build(
    listing: Listing,
    out: str | Path,
    clip: Clip,
    *,
    every: float | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Makes `out` the index of what was listed; whatever happens, what stood there stays until the new one is whole.

    `every`: seconds between a video's frames, 0 for its key frames; as it was before when None. `again`: forget what is
    there. `progress` is told how many entries of those to embed are done. DataError when `out` is no index, is another
    CLIP's, is being made by another process, when nothing can be read, and when the disk is full.
    """
    arrow()
    out = Path(out).absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(out.with_name(f".{out.name}.lock")):
            _clear_leftovers(out)
            old = _standing(out, clip, again)
            if every is None:
                every = float(old.manifest.options["every"]) if old is not None and old.manifest is not None else 0.0
            return _Run(listing, out, clip, every, old).finish(progress or (lambda done, total: None))
    except BlockingIOError:
        raise DataError(f"{out} is being made by another process: wait for it") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot write {out}: {reason}; what is finished is kept, the same command goes on") from None


def _clear_leftovers(out: Path) -> None:
    """Puts right what a kill left beside `out`, also between the two renames by which an index takes another's place."""
    for old in out.parent.glob(f".{escape(out.name)}.*.old"):
        if out.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, out)
    for half in out.parent.glob(f".{escape(out.name)}.*.tmp"):
        shutil.rmtree(half)
    if (out / BUILDING).exists():
        files.remove_leftovers(out / BUILDING)


def _standing(out: Path, clip: Clip, again: bool) -> Index | None:
    """The index that is there; DataError when what is there is not ours to change."""
    if not out.exists():
        return None
    manifest = read_manifest(out) if out.is_dir() and not again else None
    ours = out.is_dir() and ({entry.name for entry in out.iterdir()} <= {BUILDING} or (out / MANIFEST).exists())
    if not ours:
        raise DataError(f"{out} is there and is no index of ours: name another folder")
    if manifest is None:
        return None
    made_by = manifest.clip
    if made_by.fingerprint != clip.fingerprint:
        raise DataError(
            f"{out} was made with another CLIP, {made_by.name} ({made_by.fingerprint[:12]}), not {clip.name} "
            f"({clip.fingerprint[:12]}): give that one, or --again to embed everything anew"
        )
    return Index(out)


class _Run:
    """One bringing up to date of an index, under its lock."""

    def __init__(self, listing: Listing, out: Path, clip: Clip, every: float, old: Index | None):
        self.listing, self.out, self.clip, self.every, self.old = listing, out, clip, every, old
        self.stamps = {entry.path: self._stamp(entry) for entry in listing.entries}
        self.rows = {} if old is None else _rows_by_path(old)
        self.kept = {path for path, stamp in self.stamps.items() if path in self.rows and self.rows[path].stamp == stamp}
        self.pending = [entry for entry in listing.entries if entry.path not in self.kept]

    def finish(self, progress: Progress) -> Report:
        """Embeds what is pending, puts the index together, and says what has become of the entries."""
        report = Report(passed_over=self.listing.passed_over, faults=dict(self.listing.faults), kept=len(self.kept))
        whole = [] if self.old is None else [(self.old, {path: self.rows[path] for path in self.kept})]
        done, total = 0, len(self.pending)
        progress(done, total)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
            for entries in _parts(self.pending):
                folder = self.out / BUILDING / self._digest(entries)
                if not folder.exists():
                    self._embed(entries, folder, workers, lambda more, before=done: progress(before + more, total))
                done += len(entries)
                progress(done, total)
                report.faults |= json.loads((folder / FAULTS).read_text(encoding="utf-8"))
                part = Index(folder)
                whole.append((part, _rows_by_path(part)))
        made = {path for part, rows in whole for path in rows if part is not self.old}
        report.added, report.changed = len(made - self.rows.keys()), len(made & self.rows.keys())
        report.deleted = len(self.rows.keys() - self.stamps.keys())
        manifest = self._manifest(sum(span.count for _, rows in whole for span in rows.values()))
        report.rows = manifest.rows
        if not manifest.rows:
            self._forget()
            raise DataError(f"nothing in {', '.join(self.listing.sources)} can be read: {first_of(report.faults)}")
        if self.old is None or made or self.kept != self.rows.keys() or manifest != self.old.manifest:
            self._assemble(whole, manifest)
        else:
            self._forget()
        return report

    def _forget(self) -> None:
        """Removes the parts, and the folder when that is all there was."""
        shutil.rmtree(self.out / BUILDING, ignore_errors=True)
        with suppress(OSError):
            self.out.rmdir()

    def _stamp(self, entry: Entry) -> str:
        return f"{entry.stamp}:{self.every:g}" if entry.kind == "video" else entry.stamp

    def _digest(self, entries: Sequence[Entry]) -> str:
        how = ["int8"] if self.clip.int8 else []
        named = [FORMAT, self.clip.fingerprint, *how, [(entry.path, self.stamps[entry.path]) for entry in entries]]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]

    def _manifest(self, rows: int) -> Manifest:
        clip = ClipOf(name=self.clip.name, fingerprint=self.clip.fingerprint, width=self.clip.width)
        options = {"every": self.every, **({"int8": True} if self.clip.int8 else {})}
        return Manifest(clip=clip, sources=self.listing.sources, options=options, rows=rows)

    def _embed(
        self, entries: Sequence[Entry], folder: Path, workers: ThreadPoolExecutor, progress: Callable[[int], object]
    ) -> None:
        """Embeds a part and puts it in its place."""
        rows: list[Row] = []
        faults: dict[str, str] = {}
        z = [torch.zeros(0, self.clip.width)]
        looks = self._looks(entries, faults, workers, progress)
        while batch := list(islice(looks, BATCH)):
            rows += [row for row, _ in batch]
            z.append(self.clip.pixels(from_pixels(np.stack([pixels for _, pixels in batch]))))
        captioned = [number for number, row in enumerate(rows) if row.caption]
        texts = torch.zeros(len(rows), self.clip.width)
        texts[captioned] = unit(self.clip.texts([rows[number].caption or "" for number in captioned]))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing_folder(folder) as made:
            write_shard(made, 0, unit(torch.cat(z)).numpy(), texts.numpy() if captioned else None, rows)
            (made / FAULTS).write_text(json.dumps(faults), encoding="utf-8")

    def _looks(
        self,
        entries: Sequence[Entry],
        faults: dict[str, str],
        workers: ThreadPoolExecutor,
        progress: Callable[[int], object],
    ) -> Iterator[Look]:
        """What CLIP is shown of some entries, in their order; pictures are decoded ahead, videos as they come."""
        waiting: deque[tuple[Entry, Future[Look] | None]] = deque()
        coming = iter(entries)
        for number in range(len(entries)):
            while len(waiting) < AHEAD and (entry := next(coming, None)) is not None:
                waiting.append((entry, workers.submit(self._picture, entry) if entry.kind == "picture" else None))
            entry, picture = waiting.popleft()
            try:
                caption = entry.words()
            except Broken as broken:
                caption, faults[entry.path] = None, broken.args[1]
            try:
                for row, pixels in self._frames(entry) if picture is None else [picture.result()]:
                    yield Look(replace(row, caption=caption), pixels)
            except Broken as broken:
                faults[entry.path] = broken.args[1]
            progress(number + 1)

    def _picture(self, entry: Entry) -> Look:
        try:
            data = entry.content.read()
        except OSError as error:
            raise Broken(entry.path, error.strerror or str(error)) from None
        pixels, (width, height) = square(data, self.clip.size, name=entry.path, crop="center", seed=0, position=0)
        return Look(Row(entry.path, None, "picture", None, None, width, height, self.stamps[entry.path]), pixels)

    def _frames(self, entry: Entry) -> Iterator[Look]:
        for run in video.runs(entry.content.file, self.every):
            width, height = run.image.size
            row = Row(entry.path, None, "frame", run.time, run.until, width, height, self.stamps[entry.path])
            yield Look(row, np.asarray(look(run.image, self.clip.size)))

    def _assemble(self, whole: "Sequence[tuple[Index, dict[str, _Rows]]]", manifest: Manifest) -> None:
        """Puts these rows of these indices together, sorted by path, in the place of what stands there."""
        found: dict[str, tuple[int, _Rows]] = {}
        start = 0
        for index, rows in whole:
            found |= {path: (start + span.first, span) for path, span in rows.items()}
            start += len(index)
        spans = [found[entry.path] for entry in self.listing.entries if entry.path in found]
        ids = np.concatenate([np.arange(first, first + span.count) for first, span in spans])
        shards = _Shards([index for index, _ in whole], texts=any(span.captioned for _, span in spans))
        with files.replacing_folder(self.out) as folder:
            for number, begin in enumerate(range(0, len(ids), SHARD_ROWS)):
                write_shard(folder, number, *shards.take(ids[begin : begin + SHARD_ROWS]))
            write_manifest(folder, manifest)


class _Rows(NamedTuple):
    """Where an entry's rows are in an index: they follow one another."""

    first: int
    count: int
    stamp: str
    captioned: bool


def _rows_by_path(index: Index) -> dict[str, _Rows]:
    found: dict[str, _Rows] = {}
    row = 0
    for shard in range(len(index.images)):
        columns = ("image_path", "stamp", "caption")
        table = index.table(shard, columns)
        for path, stamp, caption in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
            before = found.get(path)
            first, count = (row, 0) if before is None else before[:2]
            found[path] = _Rows(first, count + 1, stamp, caption is not None)
            row += 1
    return found


def _parts(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The entries in stretches of PART pictures; a video counts by its bytes."""
    part: list[Entry] = []
    weight = 0
    for entry in entries:
        part.append(entry)
        weight += 1 if entry.kind == "picture" else 1 + entry.size // VIDEO_BYTES
        if weight >= PART:
            yield part
            part, weight = [], 0
    if part:
        yield part


class _Shards:
    """The shards of several indices, one after the other; with captions' embeddings or without."""

    def __init__(self, indices: Sequence[Index], *, texts: bool):
        self._places = [(index, shard) for index in indices for shard in range(len(index.images))]
        self._ends = np.cumsum([len(index.images[shard]) for index, shard in self._places])
        self._texts = texts

    def take(self, ids: np.ndarray) -> "tuple[np.ndarray, np.ndarray | None, pyarrow.Table]":
        """Embeddings of pictures and of captions, and the table, of some rows in that order."""
        where = np.searchsorted(self._ends, ids, side="right")
        images = np.zeros((len(ids), self._places[0][0].width), np.float16)
        texts = np.zeros_like(images) if self._texts else None
        tables, taken = [], []
        for place in np.unique(where):
            index, shard = self._places[place]
            chosen = np.flatnonzero(where == place)
            rows = ids[chosen] - self._ends[place] + len(index.images[shard])
            images[chosen] = index.images[shard][rows]
            if texts is not None and index.texts is not None:
                texts[chosen] = index.texts[shard][rows]
            tables.append(index.table(shard).take(rows))
            taken.append(chosen)
        return images, texts, arrow().concat_tables(tables).take(np.argsort(np.concatenate(taken)))
