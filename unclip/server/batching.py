"""Many callers' network calls in one: continuous batching under code that knows nothing of it.

Each picture is painted by the ordinary tasks in a thread of its own. The networks of its model are wrapped: a call blocks,
and the batcher's thread, the only one that computes, puts the waiting calls of the same network and shape together, rows of
different timesteps, guidance and requests, computes them once and hands everybody his rows. A picture joins at its first
step and leaves at its last; none waits for another to end. Who is on its way back with the next step is waited for, a few
milliseconds, so that pictures of the same stage stay together.

A call with more rows is not always worth more. Where a layer's weights outweigh its features, as in the prior, the text
encoder and a decoder of 32 or 64 px, reading them costs as much for one row as for many; where features do, as in the
upsamplers, rows cost what they cost. So a call has as many rows as fill `pixels`; see benchmarks/batching.py.

In exact mode everybody's rows go alone, since the order in which a product adds up depends on the batch.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from unclip.server.jobs import Cancelled

ROWS = 32  # most of a call; beyond, a row costs the same and everybody waits longer
PIXELS = 16 * 64 * 64  # most of a call's first tensor, on a CPU
GPU_PIXELS = 64 * PIXELS
PATIENCE = 0.01  # seconds that a call waits for others that are on their way

_METHODS = ("encode_text", "encode_image", "remember")  # what networks compute besides `forward`


class Batcher:
    """The thread that computes. `inside` makes its context: inference mode and autocast belong to a thread.

    exact: everybody's rows alone. rows, pixels: the most of one call, if it is more than one caller's.
    """

    def __init__(
        self,
        inside: Callable[[], AbstractContextManager[object]],
        *,
        exact: bool = False,
        rows: int = ROWS,
        pixels: int = PIXELS,
    ):
        self.calls, self.asked = 0, 0  # network calls made, and those that were asked for
        self._inside, self._exact, self._rows, self._pixels = inside, exact, rows, pixels
        self._waiting: list[_Call] = []
        self._painting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._own = threading.local()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def share(self, network: nn.Module) -> nn.Module:
        """The network as callers have it, for `shelf.Network.share`."""
        return cast(nn.Module, _Shared(self, network))

    @contextmanager
    def painting(self, cancelled: threading.Event) -> Iterator[None]:
        """Within, this thread's calls take part, until `cancelled` is set: then its next one, or the waiting one, raises."""
        self._own.cancelled = cancelled
        with self._changed:
            self._painting += 1
        try:
            yield
        finally:
            self._own.cancelled = None
            with self._changed:
                self._painting -= 1
                self._changed.notify_all()

    def wake(self) -> None:
        """Has those who were cancelled while they waited raise at once."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the thread; who waits or comes after is Cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def ask(self, key: Hashable, function: Callable[..., Any], args: Sequence[Any]) -> Any:
        """What `function(*args)` gives, whose tensors have the caller's rows first, computed by the batcher's thread."""
        call = _Call((key, _shape(args)), function, args, getattr(self._own, "cancelled", None))
        with self._changed:
            if self._closed or call.cancelled:
                raise Cancelled
            self._waiting.append(call)
            self._changed.notify_all()
        call.answered.wait()
        if call.error is not None:
            raise call.error
        return call.answer

    def _work(self) -> None:
        with self._inside():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                    self._changed.wait_for(self._all_here, timeout=PATIENCE)
                    group = self._next()
                    if self._closed:
                        return
                if group:
                    self._answer(group)

    def _all_here(self) -> bool:
        """Whether there is nobody to wait for."""
        return self._exact or self._closed or len(self._waiting) >= self._painting or any(c.cancelled for c in self._waiting)

    def _next(self) -> list["_Call"]:
        """Takes out the call that waits longest and those that can go with it; lets go of whoever was cancelled."""
        for call in [call for call in self._waiting if self._closed or call.cancelled]:
            self._waiting.remove(call)
            call.fail(Cancelled())
        if not self._waiting:
            return []
        group, room = [self._waiting[0]], self._room(self._waiting[0])
        for call in self._waiting[1:]:
            rows = sum(other.rows for other in group) + call.rows
            if not self._exact and call.key == group[0].key and rows <= room:
                group.append(call)
        self._waiting = [call for call in self._waiting if call not in group]
        return group

    def _room(self, call: "_Call") -> int:
        """How many rows of this kind fit into one call."""
        x = next(_leaves(call.args))
        return min(self._rows, self._pixels // (x.shape[-2] * x.shape[-1])) if x.ndim == 4 else self._rows

    def _answer(self, group: list["_Call"]) -> None:
        self.calls += 1
        self.asked += len(group)
        try:
            if len(group) == 1:
                group[0].succeed(group[0].function(*group[0].args))
                return
            answer = group[0].function(*_joined([call.args for call in group]))
            start = 0
            for call in group:
                call.succeed(_rows(answer, slice(start, start + call.rows)))
                start += call.rows
        except BaseException as error:
            if len(group) == 1:
                group[0].fail(error)
            else:  # whose fault it was shows when they go alone; and what is too large together may fit then
                for call in group:
                    self._answer([call])


class _Call:
    """One caller's wait."""

    def __init__(
        self, key: Hashable, function: Callable[..., Any], args: Sequence[Any], cancelled: threading.Event | None
    ) -> None:
        self.key, self.function, self.args = key, function, args
        self.rows = next(_leaves(args)).shape[0]
        self.answered = threading.Event()
        self.answer: Any = None
        self.error: BaseException | None = None
        self._cancelled = cancelled

    @property
    def cancelled(self) -> bool:
        return self._cancelled is not None and self._cancelled.is_set()

    def succeed(self, answer: Any) -> None:
        self.answer = answer
        self.answered.set()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.answered.set()


class _Shared:
    """A network whose computations the batcher makes; all else is the network's own."""

    def __init__(self, batcher: Batcher, network: nn.Module):
        self._batcher, self._network = batcher, network

    def __call__(self, *args: Any) -> Any:
        return self._batcher.ask(id(self._network), self._network, args)

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._network, name)
        if name in _METHODS:
            return lambda *args: self._batcher.ask((id(self._network), name), own, args)
        return own


def _leaves(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _leaves(part)


def _shape(value: Any) -> Hashable:
    """What has to be alike in calls that go together: all but the rows."""
    if isinstance(value, Tensor):
        return (*value.shape[1:], value.dtype)
    return tuple(map(_shape, value)) if isinstance(value, (tuple, list)) else value


def _joined(values: Sequence[Any]) -> Any:
    """Everybody's rows, one after another."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, (tuple, list)):
        return _like(first, [_joined(parts) for parts in zip(*values, strict=True)])
    return first  # what is no tensor is the same in all of them: it is in their keys


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, (tuple, list)):
        return _like(value, [_rows(part, rows) for part in value])
    return value


def _like(given: tuple[Any, ...] | list[Any], parts: list[Any]) -> Any:
    """The parts as what `given` is: a list, a tuple, or one of the named ones."""
    if isinstance(given, list):
        return parts
    return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
