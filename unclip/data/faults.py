"""Broken samples: counted, named, skipped, and past a limit the end.

Skipping must not make the order depend on what was read before: a position whose sample is broken takes the next sample in
the listing, and so on round it once. So a source stays a pure function of (seed, position).
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from unclip.errors import DataError

LIMIT_SHARE = 0.01
LIMIT_LEAST = 10
NAMED = 3  # in the message of the error that ends it
T = TypeVar("T")
log = logging.getLogger(__name__)


class Broken(Exception):  # noqa: N818  (never leaves a source)
    """One sample that cannot be used; the message is the reason."""


class Faults:
    """The broken samples of one source: name -> reason. `limit` is how many are let pass, by default 1 % but at least 10."""

    def __init__(self, where: str, total: int, limit: int | None = None):
        self.where = where
        self.total = total
        self.limit = max(LIMIT_LEAST, int(total * LIMIT_SHARE)) if limit is None else limit
        self.found: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, name: str, reason: str) -> None:
        """Notes a broken sample, once; DataError when there are more than the limit."""
        with self._lock:
            if name in self.found:
                return
            self.found[name] = reason
        log.warning("skipped %s in %s: %s", name, self.where, reason)
        if len(self.found) > self.limit:
            count = f"{len(self.found)} of {self.total} samples are broken"
            raise DataError(f"{self.where}: {count}, more than the {self.limit} let pass: {self}")

    def first_good(self, start: int, count: int, read: Callable[[int], T]) -> T:
        """`read(index)` for the first index from `start` on, round `count` once, that is not broken."""
        for step in range(count):
            index = (start + step) % count
            try:
                return read(index)
            except Broken as broken:
                name, reason = broken.args
                self.add(name, reason)
        raise DataError(f"{self.where}: none of the {count} samples can be read: {self}")

    def __str__(self) -> str:
        named = [f"{name} ({reason})" for name, reason in list(self.found.items())[:NAMED]]
        more = len(self.found) - len(named)
        return ", ".join(named) + (f" and {more} more" if more else "")
