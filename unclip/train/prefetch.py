"""Batches made ahead of the step that needs them, by threads, in order."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

Job = TypeVar("Job")
Batch = TypeVar("Batch")


class Prefetch(Generic[Job, Batch]):
    """Iterates over `make(job)` of each job in their order, however many threads work and however fast each is.

    At most `ahead` results wait or are in the making. What `make` raises is raised at its place in the order. Leaving the
    `with` block drops what was begun. `waited` adds up the seconds in which the consumer had to wait.
    """

    def __init__(self, make: Callable[[Job], Batch], jobs: Iterable[Job], *, workers: int = 1, ahead: int = 2):
        self.waited = 0.0
        self._make = make
        self._jobs: Iterator[Job] = iter(jobs)
        self._ahead = max(ahead, 1)
        # One thread of its own each: a batch is then the same however many there are, and the network keeps its cores.
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        self._pending: deque[Future[Batch]] = deque()

    def __enter__(self) -> "Prefetch[Job, Batch]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self._fill()
        if not self._pending:
            raise StopIteration
        begun = time.perf_counter()
        batch = self._pending.popleft().result()
        self.waited += time.perf_counter() - begun
        self._fill()
        return batch

    def _fill(self) -> None:
        while len(self._pending) < self._ahead:
            try:
                job = next(self._jobs)
            except StopIteration:
                return
            self._pending.append(self._pool.submit(self._make, job))
