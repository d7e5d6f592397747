"""SQLite in WAL mode, with a connection for each thread and transactions that nothing can come between.

WAL without a flush at every commit survives the death of the process at any instant; what a power cut can take is the last
moments, never the rest.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unclip.errors import ConfigError

BUSY_SECONDS = 30.0  # how long a writer waits for another


class Database:
    """The file at `path`, brought up to date by those of `steps` that it has not taken; ConfigError for one that has taken
    more of them, or is no database."""

    def __init__(self, path: Path, steps: Sequence[str]):
        self.path = path
        self._connections: list[sqlite3.Connection] = []
        self._own = threading.local()
        self._guard, self._turn = threading.Lock(), threading.Lock()
        try:
            with self.writing() as db:
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found > len(steps):
                    raise ConfigError(f"{path} was written by a newer unclip: its schema is {found}, ours {len(steps)}")
                for statement in filter(str.strip, ";".join(steps[found:]).split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {len(steps)}")
        except sqlite3.Error as error:
            self.close()
            raise ConfigError(f"cannot use {path}: {error}") from None
        except ConfigError:
            self.close()
            raise

    def reading(self) -> sqlite3.Connection:
        """This thread's connection."""
        if getattr(self._own, "connection", None) is None:
            # A connection stays with its thread; only `close` reaches over, when all is over.
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            with self._guard:
                self._connections.append(connection)
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._own.connection = connection
        return self._own.connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that has the database from its beginning, so that nothing it read can have changed."""
        connection = self.reading()
        with self._turn:  # SQLite would have a second writer sleep, for longer each time
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """No other thread may be in a call."""
        with self._guard:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._own = threading.local()
