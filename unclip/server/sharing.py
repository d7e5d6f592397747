"""What the slots of a job all need, and one makes: pairs of pictures, whose inversion takes as long as painting.

Who asks first makes it. Who asks meanwhile waits, and hears of the maker's steps as if they were his own: so he shows
progress, can be cancelled between any two of them, and does not seem to hang. If the maker does not come to its end, one of
those who wait is the next.
"""

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from unclip.diffusion.samplers import Step
    from unclip.request import Progress

Made = TypeVar("Made")


class Shared(Generic[Made]):
    """The last `most` of what was made, by what determines it."""

    def __init__(self, most: int):
        self._most = most
        self._made: dict[Hashable, Made] = {}  # what was asked for last is last
        self._making: dict[Hashable, tuple[str, Step] | None] = {}  # the maker's last step
        self._changed = threading.Condition()

    def get(self, key: Hashable, make: "Callable[[Progress], Made]", progress: "Progress") -> Made:
        """What there is under the key, or else what `make` gives, which is handed the progress to tell.

        Raises what `make` does if it is this caller's, and what `progress` raises.
        """
        heard = None
        while True:
            with self._changed:
                if key in self._made:
                    self._made[key] = self._made.pop(key)
                    return self._made[key]
                if key not in self._making:
                    self._making[key] = None
                    break
                heard = self._next_step(key, heard)
            if heard is not None:
                progress(*heard)
        return self._make(key, make, progress)

    def _next_step(self, key: Hashable, heard: "tuple[str, Step] | None") -> "tuple[str, Step] | None":
        """What the maker tells after that, None once he has ended."""
        self._changed.wait_for(lambda: key not in self._making or self._making[key] is not heard)
        return self._making.get(key)

    def _make(self, key: Hashable, make: "Callable[[Progress], Made]", progress: "Progress") -> Made:
        def tell(stage: str, step: "Step") -> None:
            with self._changed:
                self._making[key] = (stage, step)
                self._changed.notify_all()
            progress(stage, step)

        made = None
        try:
            made = make(tell)
            return made
        finally:
            with self._changed:
                del self._making[key]
                if made is not None:
                    self._made[key] = made
                    for oldest in [*self._made][: -self._most]:
                        del self._made[oldest]
                self._changed.notify_all()
