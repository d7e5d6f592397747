"""Coroutines that run beside an event loop's other work, none of which is forgotten, nor fails unheard."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Chores:
    """All of them belong to the loop in which `do` is called."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._needed: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[Any, Any, None], *, needed: bool = False) -> None:
        """Begins `work`; what is `needed` is waited for at the end, the rest is cancelled."""
        task = asyncio.create_task(work)
        (self._needed if needed else self._tasks).add(task)
        task.add_done_callback(self._done)

    async def finish(self) -> None:
        """Waits for what is needed, also for what that begins."""
        while self._needed:
            await asyncio.wait(self._needed)

    async def close(self) -> None:
        """Cancels what is not done."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._needed.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("the engine stumbled", exc_info=task.exception())
