"""Ctrl+C and SIGTERM as requests that a loop reads when it suits it."""

import signal
import threading
from types import FrameType, TracebackType


class StopSignals:
    """Inside, Ctrl+C and SIGTERM only set `received`: the loop ends its step and saves. A second one interrupts at once.

    Signals reach the main thread alone; a loop run in another one is left as it is.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
