"""What training reads: an endless source of captioned pictures that is a pure function of (seed, position).

A run that was killed at position p goes on at p without having read what came before, whatever the number of workers.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One captioned picture: `image` is uint8 (S, S, 3), `meta` says where it came from and what is known of its content."""

    key: str
    image: np.ndarray
    caption: str
    meta: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """An endless, randomly accessible stream of samples."""

    def sample(self, position: int, size: int) -> Sample:
        """The sample at `position` >= 0, `size` pixels square; the same arguments give the same sample, in any process."""
        ...

    def __len__(self) -> int:
        """How many pictures one epoch holds."""
        ...
