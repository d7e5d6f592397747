"""What there is to look at in folders, tars and videos, listed by reading no more than names, sizes and times.

An entry is one picture or one video; sorted by path, and each path once, however the sources overlap. Folders are read all
the way down without what is hidden. Captions are in a `.txt` beside the picture, in a `metadata.jsonl` or `.csv` at the top
of a folder as `data.folder` knows them, or in a tar in the sample's `.txt` or `.json`; an entry may well have none.
"""

import hashlib
import json
import os
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unclip.data.faults import Broken
from unclip.data.folder import FolderSource
from unclip.data.pictures import EXTENSIONS
from unclip.errors import DataError

PICTURES = (*EXTENSIONS, ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm")
TAR = ".tar"
TABLES = ("metadata.jsonl", "metadata.csv")
KNOWN = "pictures (jpg, png, webp, ...), videos (mp4, mkv, webm, ...) or webdataset .tar files"


@dataclass(frozen=True)
class Span:
    """Some bytes of a file, from `start` on; all of them without a `length`."""

    file: Path
    start: int = 0
    length: int | None = None
    is_json: bool = False

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(-1 if self.length is None else self.length)


@dataclass(frozen=True)
class Entry:
    """One picture or video. `stamp` is another one when its content or its caption is; `size` is in bytes."""

    path: str
    stamp: str
    kind: Literal["picture", "video"]
    content: Span
    caption: str | Span | None
    size: int

    def words(self) -> str | None:
        """The caption on one line, None without one; Broken when it cannot be read."""
        if not isinstance(self.caption, Span):
            return self.caption
        try:
            text = self.caption.read().decode("utf-8-sig")
            if self.caption.is_json:
                values = json.loads(text)
                given = [values.get(key) for key in ("caption", "text")] if isinstance(values, dict) else []
                text = next((value for value in given if isinstance(value, str)), "")
        except (OSError, ValueError) as error:  # not utf-8, not json
            raise Broken(self.path, f"its caption cannot be read: {error}") from None
        return " ".join(text.split()) or None


@dataclass
class Listing:
    """Everything in `sources`. `faults`: what is broken, by name; `passed_over`: files that are of no kind known."""

    sources: tuple[str, ...]
    entries: list[Entry] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    passed_over: int = 0


def list_sources(sources: Sequence[str | Path]) -> Listing:
    """What folders and files hold. DataError for a source that is not there, is of no kind known, or when all are empty."""
    listing = Listing(tuple(str(source) for source in sources))
    for source in map(Path, sources):
        if source.is_dir():
            _add_folder(listing, source)
        elif not source.exists():
            raise DataError(f"{source} is not there: expected folders, {KNOWN}")
        elif _kind(source.name) is None:
            raise DataError(f"{source} is of no kind known: expected {KNOWN}")
        else:
            beside = source.with_suffix(".txt")
            _add_file(listing, source, Span(beside) if beside.is_file() else None)
    by_path = {entry.path: entry for entry in listing.entries}
    listing.entries = [by_path[path] for path in sorted(by_path)]
    if not listing.entries:
        broken = f", broken: {first_of(listing.faults)}" if listing.faults else ""
        named = ", ".join(listing.sources)
        raise DataError(f"nothing to look at in {named} ({listing.passed_over} files passed over{broken}): expected {KNOWN}")
    return listing


def first_of(faults: dict[str, str], count: int = 3) -> str:
    """The first few of them in one line."""
    named = ", ".join(f"{name} ({reason})" for name, reason in list(faults.items())[:count])
    return named + (f" and {len(faults) - count} more" if len(faults) > count else "")


def _kind(name: str) -> Literal["picture", "video", "tar"] | None:
    suffix = os.path.splitext(name)[1].lower()
    return "picture" if suffix in PICTURES else "video" if suffix in VIDEOS else "tar" if suffix == TAR else None


def _add_folder(listing: Listing, root: Path) -> None:
    table = next((name for name in TABLES if (root / name).is_file()), None)
    captions = _table_captions(listing, root, table) if table else {}

    def unreadable(error: OSError) -> None:
        listing.faults[str(error.filename)] = error.strerror or str(error)

    for folder, below, names in os.walk(root, onerror=unreadable):
        below[:] = [name for name in below if not name.startswith(".")]
        present = set(names)
        texts = {f"{os.path.splitext(name)[0]}.txt" for name in names if _kind(name)}
        for name in names:
            path = Path(folder, name)
            if _kind(name) and not name.startswith("."):
                beside = f"{path.stem}.txt"
                words = captions.get(path.relative_to(root).as_posix())
                _add_file(listing, path, words or (Span(path.with_name(beside)) if beside in present else None))
            elif not name.startswith(".") and name not in texts and name not in TABLES:
                listing.passed_over += 1


def _table_captions(listing: Listing, root: Path, table: str) -> dict[str, str | None]:
    try:
        return {item.file: item.caption for item in FolderSource(root, 0, limit_bad=sys.maxsize).items}
    except DataError as error:
        listing.faults[str(root / table)] = str(error)
        return {}


def _add_file(listing: Listing, path: Path, caption: str | Span | None) -> None:
    """Adds a picture or a video, or all of a tar."""
    kind = _kind(path.name)
    try:
        path.as_posix().encode()
        stamp, size = _stamp(path), path.stat().st_size
        if kind == "tar":
            _add_tar(listing, path, stamp, size)
            return
        if isinstance(caption, Span):
            stamp = f"{stamp}:{_stamp(caption.file)}"
        elif caption is not None:
            stamp = f"{stamp}:{hashlib.sha256(caption.encode()).hexdigest()[:16]}"
    except OSError as error:
        listing.faults[path.as_posix()] = error.strerror or str(error)
    except UnicodeEncodeError:
        listing.faults[ascii(path.as_posix())[1:-1]] = "its name is not utf-8"
    else:
        assert kind is not None, "what is of no kind is not added"
        listing.entries.append(Entry(path.as_posix(), stamp, kind, Span(path), caption, size))


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def _add_tar(listing: Listing, tar: Path, stamp: str, size: int) -> None:
    """Adds the samples of a webdataset tar: members that share a name up to its first dot; of a torn one those before."""
    name = tar.as_posix()
    samples: dict[str, dict[str, Span]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            whole = _each_member(archive, lambda member: _add_member(listing, samples, tar, member, size))
        if not whole or Span(tar, size - tarfile.BLOCKSIZE).read().strip(b"\0"):
            listing.faults[name] = "torn: it ends before its end mark"
    except (tarfile.TarError, OSError) as error:
        listing.faults[name] = f"not a tar that can be read: {error}"
    for key, parts in samples.items():
        picture = next((parts[suffix] for suffix in parts if suffix in PICTURES), None)
        words = parts.get(".txt") or parts.get(".json")
        if picture is not None:
            listing.entries.append(Entry(f"{name}#{key}", stamp, "picture", picture, words, picture.length or 0))


def _each_member(archive: tarfile.TarFile, add: Callable[[tarfile.TarInfo], None]) -> bool:
    """Whether all headers could be read."""
    try:
        for member in archive:
            add(member)
    except tarfile.TarError:
        return False
    return True


def _add_member(
    listing: Listing, samples: dict[str, dict[str, Span]], tar: Path, member: tarfile.TarInfo, size: int
) -> None:
    folder, _, name = member.name.rpartition("/")
    if not member.isfile() or name.startswith(".") or member.offset_data + member.size > size:
        return
    stem, dot, suffix = name.partition(".")
    suffix = f"{dot}{suffix.lower()}"
    if suffix not in (*PICTURES, ".txt", ".json"):
        listing.passed_over += 1
        return
    span = Span(tar, member.offset_data, member.size, is_json=suffix == ".json")
    key = f"{folder}/{stem}" if folder else stem
    if samples.setdefault(key, {}).setdefault(suffix, span) is not span:
        listing.faults[f"{tar.as_posix()}#{member.name} (again)"] = "a member that the tar has already"
