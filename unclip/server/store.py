"""Jobs, pictures and collections on disk: SQLite in WAL mode, and a folder of PNG files beside it. It owns the truth.

Whoever shows or runs a job asks here, so a page that reloads, a worker that dies and a server that is killed lose nothing:
each change is one transaction, and a picture's file is whole on the disk before a row speaks of it.

Calls block for a millisecond or so: an event loop sends them to a thread. Each thread has a connection of its own.
"""

import json
import secrets
import sqlite3
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.errors import ConfigError, RequestError
from unclip.files import locked, remove_leftovers, write_new
from unclip.server.database import Database
from unclip.server.jobs import ImageKind, Job, JobRequest, JobState
from unclip.server.schema import STEPS

_ID_BYTES = 16  # 128 random bits: nobody guesses an id
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ImageRow:
    """What is known of a stored picture."""

    id: str
    owner: str
    kind: ImageKind
    width: int
    height: int
    job: str | None
    slot: int | None
    settings: dict[str, Any]
    parents: tuple[str, ...]
    created: float


@dataclass(frozen=True)
class Collection:
    id: str
    owner: str
    name: str
    created: float
    images: tuple[str, ...]  # in the order in which they were added


class Store:
    """Everything a server remembers, in the folder `data`; ConfigError where that cannot be, or another server has it.

    Unknown ids are None or False, whose they are is for the caller to check. Writing raises OSError or sqlite3.Error when
    the disk is full; then nothing has changed.
    """

    def __init__(self, data: str | Path):
        self.data = Path(data)
        self._lock = ExitStack()
        try:
            (self.data / "images").mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(locked(self.data / "lock"))
        except BlockingIOError:
            raise ConfigError(f"another server has the data folder {data}") from None
        except OSError as error:
            raise ConfigError(f"cannot use the data folder {data}: {error.strerror or error}") from None
        try:
            self._db = Database(self.data / "unclip.db", STEPS)
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Lets go of the folder. No other thread may be in a call."""
        self._db.close()
        self._lock.close()

    # --- jobs

    def add_job(self, owner: str, request: JobRequest) -> Job:
        """Puts a job at the end of the queue; its seed is drawn now if it has none."""
        if request.seed is None:
            request = request.model_copy(update={"seed": secrets.randbelow(1 << 31)})
        id, asked = _new_id(), request.model_dump_json(exclude_defaults=True)
        with self._db.writing() as db:
            db.execute(
                "INSERT INTO jobs (id, owner, request, state, created) VALUES (?, ?, ?, ?, ?)",
                (id, owner, asked, JobState.QUEUED, time.time()),
            )
            db.execute("UPDATE jobs SET place = seq WHERE id = ?", (id,))
        job = self.job(id)
        assert job is not None
        return job

    def job(self, id: str) -> Job | None:
        row = self._db.reading().execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        return None if row is None else self._to_jobs([row])[0]

    def jobs(self, owner: str, before: str | None = None, limit: int = 50) -> list[Job]:
        """An owner's jobs, newest first; with `before`, those older than that job."""
        found = self._db.reading().execute(
            "SELECT * FROM jobs WHERE owner = ? AND seq < coalesce((SELECT seq FROM jobs WHERE id = ?), ?)"
            " ORDER BY seq DESC LIMIT ?",
            (owner, before, 0 if before else 1 << 62, limit),
        )
        return self._to_jobs(found.fetchall())

    def in_state(self, state: JobState) -> list[str]:
        """The ids of all jobs in a state, in the queue's order."""
        return [id for (id,) in self._db.reading().execute("SELECT id FROM jobs WHERE state = ? ORDER BY place", (state,))]

    def move(self, id: str, before: str | None) -> bool:
        """Puts a queued job before another of its owner's, or, with None, behind them; False where either does not wait.

        An owner's jobs change places among themselves, so that nobody gets before somebody else's.
        """
        with self._db.writing() as db:
            rows = db.execute(
                "SELECT id, place FROM jobs"
                " WHERE state = ? AND owner = (SELECT owner FROM jobs WHERE id = ?) ORDER BY place",
                (JobState.QUEUED, id),
            ).fetchall()
            order = [row["id"] for row in rows]
            if id not in order or before not in (None, *order):
                return False
            if before != id:
                order.remove(id)
                order.insert(len(order) if before is None else order.index(before), id)
                places = zip((row["place"] for row in rows), order, strict=True)
                db.executemany("UPDATE jobs SET place = ? WHERE id = ?", places)
        return True

    def claim(self) -> Job | None:
        """The next queued job, now running; None when there is none."""
        with self._db.writing() as db:
            row = db.execute("SELECT id FROM jobs WHERE state = ? ORDER BY place LIMIT 1", (JobState.QUEUED,)).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = ?, attempts = attempts + 1, started = coalesce(started, ?) WHERE id = ?",
                (JobState.RUNNING, time.time(), row["id"]),
            )
        return self.job(row["id"])

    def update(
        self,
        id: str,
        *,
        state: JobState | None = None,
        error: str | None = None,
        detail: str | None = None,
        progress: float | None = None,
    ) -> Job | None:
        """Changes a job that has not ended, gives it as it is now; one that has ended stays as it ended."""
        ended = time.time() if state is not None and state.terminal else None
        with self._db.writing() as db:
            db.execute(
                "UPDATE jobs SET state = coalesce(?, state), error = coalesce(?, error), detail = coalesce(?, detail),"
                " finished = coalesce(?, finished), progress = max(progress, coalesce(?, progress))"
                " WHERE id = ? AND state IN (?, ?)",
                (state, error, detail, ended, progress, id, JobState.QUEUED, JobState.RUNNING),
            )
        return self.job(id)

    def release(self, id: str) -> Job | None:
        """Puts a running job back where it was in the queue, as if it had not been claimed: a server stops in good order."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE jobs SET state = ?, attempts = attempts - 1 WHERE id = ? AND state = ?",
                (JobState.QUEUED, id, JobState.RUNNING),
            )
        return self.job(id)

    def delete_job(self, id: str) -> bool:
        """Forgets a job and what it made, but for pictures in a collection; whether it was there."""
        with self._db.writing() as db:
            made = db.execute(
                "SELECT id FROM images WHERE job = ? AND id NOT IN (SELECT image FROM collected)", (id,)
            ).fetchall()
            there = db.execute("DELETE FROM jobs WHERE id = ?", (id,)).rowcount > 0
            db.executemany("DELETE FROM images WHERE id = ?", [(row["id"],) for row in made])
        for row in made:
            self._file(row["id"]).unlink(missing_ok=True)
        return there

    def recover(self) -> list[Job]:
        """After a start: what was running is queued again where it stood, its finished slots kept; gives what changed.

        A job that was interrupted before fails, since it may be what brought the server down. Files that no row speaks of,
        and rows whose file somebody took away, are removed.
        """
        changed = []
        for id in self.in_state(JobState.RUNNING):
            job = self.job(id)
            assert job is not None
            if len(self.slots_done(id)) == job.request.slots:
                changed.append(self.update(id, state=job.whole, progress=1.0))
            elif job.attempts >= 2:
                changed.append(self.update(id, state=JobState.FAILED, error="interrupted"))
            else:
                changed.append(self.update(id, state=JobState.QUEUED))
        self._sweep()
        return [job for job in changed if job is not None]

    def slots_done(self, job: str) -> set[int]:
        """The slots of a job that need no more work, also those that were dropped, or whose picture was deleted since."""
        return {slot for (slot,) in self._db.reading().execute("SELECT slot FROM slots WHERE job = ?", (job,))}

    def drop_slot(self, job: str, slot: int) -> bool:
        """Leaves a slot of a job without a picture for good; False if it has one, was dropped before, or the job is gone."""
        try:
            with self._db.writing() as db:
                db.execute("INSERT INTO slots (job, slot, dropped) VALUES (?, ?, 1)", (job, slot))
        except sqlite3.IntegrityError:
            return False
        return True

    def finish_slot(self, job: str, slot: int, png: bytes, settings: dict[str, Any]) -> tuple[str | None, Job | None]:
        """Stores the picture of a slot, whose parents are the job's images; its id, and the job if this was its last slot.

        None if the slot had one, was dropped, or the job is gone: a picture is delivered once, however often it was painted.
        The last one ends its job in the same transaction, which who waits for it would otherwise wait for too.
        """
        known = self.job(job)
        if known is None or slot in self.slots_done(job):
            return None, None
        parents = (*known.request.images, *([known.request.mask] if known.request.mask else []))
        image = ImageRow(_new_id(), known.owner, "made", *png_size(png), job, slot, settings, parents, time.time())
        try:
            with self._storing(image, png) as db:
                db.execute("INSERT INTO slots (job, slot, image) VALUES (?, ?, ?)", (job, slot, image.id))
                ended = db.execute(
                    "UPDATE jobs SET state = ?, progress = 1, finished = ?"
                    " WHERE id = ? AND state = ? AND (SELECT count(*) FROM slots WHERE job = jobs.id) = ?",
                    (JobState.DONE, time.time(), job, JobState.RUNNING, known.request.slots),
                )
        except sqlite3.IntegrityError:  # somebody was faster, or the job has just gone
            return None, None
        return image.id, self.job(job) if ended.rowcount else None

    def _to_jobs(self, rows: Sequence[sqlite3.Row]) -> list[Job]:
        ids = [row["id"] for row in rows]
        slots: dict[str, list[sqlite3.Row]] = {id: [] for id in ids}
        for slot in self._db.reading().execute(f"SELECT * FROM slots WHERE job IN ({', '.join('?' * len(ids))})", ids):
            slots[slot["job"]].append(slot)
        return [_to_job(row, slots[row["id"]]) for row in rows]

    # --- images

    def add_image(
        self,
        owner: str,
        png: bytes,
        kind: ImageKind = "upload",
        settings: dict[str, Any] | None = None,
        parents: Sequence[str] = (),
    ) -> str:
        """Stores a picture that no job made; its id. RequestError for bytes that are no PNG."""
        image = ImageRow(_new_id(), owner, kind, *png_size(png), None, None, settings or {}, tuple(parents), time.time())
        with self._storing(image, png):
            pass
        return image.id

    def image(self, id: str) -> ImageRow | None:
        row = self._db.reading().execute("SELECT * FROM images WHERE id = ?", (id,)).fetchone()
        if row is None:
            return None
        return ImageRow(**{**row, "settings": json.loads(row["settings"]), "parents": tuple(json.loads(row["parents"]))})

    def path(self, id: str) -> Path | None:
        """The PNG file of a picture; None where there is no such picture, so that no path is made of a stranger's words."""
        there = self._db.reading().execute("SELECT 1 FROM images WHERE id = ?", (id,)).fetchone()
        return self._file(id) if there else None

    def delete_image(self, id: str) -> bool:
        """Removes a picture from everywhere; whether it was there. The slot that made it stays done."""
        with self._db.writing() as db:
            there = db.execute("DELETE FROM images WHERE id = ?", (id,)).rowcount > 0
        if there:
            self._file(id).unlink(missing_ok=True)
        return there

    # --- collections

    def create_collection(self, owner: str, name: str) -> Collection:
        made = Collection(_new_id(), owner, name, time.time(), ())
        with self._db.writing() as db:
            db.execute("INSERT INTO collections VALUES (?, ?, ?, ?)", (made.id, owner, name, made.created))
        return made

    def collections(self, owner: str) -> list[Collection]:
        """An owner's collections, oldest first."""
        rows = self._db.reading().execute("SELECT * FROM collections WHERE owner = ? ORDER BY created, id", (owner,))
        return [self._to_collection(row) for row in rows.fetchall()]

    def collection(self, id: str) -> Collection | None:
        row = self._db.reading().execute("SELECT * FROM collections WHERE id = ?", (id,)).fetchone()
        return None if row is None else self._to_collection(row)

    def rename_collection(self, id: str, name: str) -> bool:
        with self._db.writing() as db:
            return db.execute("UPDATE collections SET name = ? WHERE id = ?", (name, id)).rowcount > 0

    def delete_collection(self, id: str) -> bool:
        """Removes the collection; its pictures stay."""
        with self._db.writing() as db:
            return db.execute("DELETE FROM collections WHERE id = ?", (id,)).rowcount > 0

    def add_to_collection(self, id: str, image: str) -> bool:
        """Whether both are there; adding twice is adding once."""
        with self._db.writing() as db:
            there = db.execute(
                "SELECT 1 FROM collections, images WHERE collections.id = ? AND images.id = ?", (id, image)
            ).fetchone()
            if there:
                db.execute("INSERT OR IGNORE INTO collected VALUES (?, ?, ?)", (id, image, time.time()))
        return bool(there)

    def remove_from_collection(self, id: str, image: str) -> bool:
        """Whether it was in it."""
        with self._db.writing() as db:
            return db.execute("DELETE FROM collected WHERE collection = ? AND image = ?", (id, image)).rowcount > 0

    def _to_collection(self, row: sqlite3.Row) -> Collection:
        images = self._db.reading().execute(
            "SELECT image FROM collected WHERE collection = ? ORDER BY added, rowid", (row["id"],)
        )
        return Collection(row["id"], row["owner"], row["name"], row["created"], tuple(image for (image,) in images))

    # --- below

    @contextmanager
    def _storing(self, image: ImageRow, png: bytes) -> Iterator[sqlite3.Connection]:
        """The file first, then its row and what else the block writes; the file goes when they cannot be written."""
        path = self._file(image.id)
        path.parent.mkdir(exist_ok=True)
        values = vars(image) | {"settings": json.dumps(image.settings), "parents": json.dumps(image.parents)}
        write_new(path, png)
        try:
            with self._db.writing() as db:
                db.execute(
                    f"INSERT INTO images ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", [*values.values()]
                )
                yield db
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _file(self, id: str) -> Path:
        return self.data / "images" / id[:2] / f"{id}.png"

    def _sweep(self) -> None:
        for folder in (self.data / "images").iterdir():
            remove_leftovers(folder)
        files = {path.stem for path in (self.data / "images").glob("*/*.png")}
        rows = {id for (id,) in self._db.reading().execute("SELECT id FROM images")}
        for id in files - rows:
            self._file(id).unlink(missing_ok=True)
        for id in rows - files:
            self.delete_image(id)


def _to_job(row: sqlite3.Row, slots: Sequence[sqlite3.Row]) -> Job:
    request = JobRequest.model_validate_json(row["request"])
    images: list[str | None] = [None] * request.slots
    for slot in slots:
        images[slot["slot"]] = slot["image"]
    dropped = tuple(slot["slot"] for slot in slots if slot["dropped"])
    inside = ("seq", "place", "request", "state")
    fields = {key: row[key] for key in row.keys() if key not in inside}  # noqa: SIM118  # a Row
    return Job(**fields, request=request, state=JobState(row["state"]), images=tuple(images), dropped=dropped)


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height in px, read off a PNG's first chunk; RequestError for other bytes."""
    if len(png) < 33 or not png.startswith(_PNG) or png[12:16] != b"IHDR":
        raise RequestError("the picture is no PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _new_id() -> str:
    return secrets.token_urlsafe(_ID_BYTES)
