"""A file or folder is whole or it is the one before: written beside its place, flushed to the disk, renamed.

Every function raises OSError as the system gives it: the caller knows what was being saved, and says so.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on leaving, that file takes the place of `path` in one step.

    When the block raises (a full disk, Ctrl+C) the temporary file is removed and what was at `path` stays as it was.
    """
    path = Path(path)
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_to_disk(path.parent)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yields a new empty folder beside `path`; on leaving, it takes the place of `path` with all that was put into it.

    No rename replaces a folder that is not empty, so one that stood at `path` steps aside first and is then removed. When
    the block raises, the new folder is removed and the old one stays.
    """
    path = Path(path)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for entry in [*temporary.rglob("*"), temporary]:
            flush_to_disk(entry)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    flush_to_disk(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Puts `content` at `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_new(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, where nothing stands and nobody looks before this returns: so one flush is enough for both
    the bytes and the name, where `write_bytes` waits for two."""
    temporary = _beside(path, "tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
        flush_to_disk(path)
    except BaseException:
        for half in (temporary, path):
            half.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Puts `text` as utf-8 at `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def remove_folder(path: str | Path) -> None:
    """Removes a folder so that nobody ever finds half of it at `path`."""
    doomed = _beside(Path(path), "old")
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: str | Path) -> None:
    """Removes what a killed process left in `folder` half written or half removed; nobody else may be writing there."""
    for entry in Path(folder).glob(".*"):
        if entry.suffix in (".tmp", ".old"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds the lock file `path` against other processes; BlockingIOError if one has it. A kill lets go of it too."""
    with Path(path).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def flush_to_disk(path: Path) -> None:
    """Waits until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")
