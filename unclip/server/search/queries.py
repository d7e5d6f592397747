"""The words that the server and the process that searches for it share: what is sought, what was found, what is looked at.

A row's id is its place in the index as that is now. `edition` names this now: when the index is made anew, another one
begins, and an id of the one before means nothing any more. Nothing here needs torch.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Among = Literal["image", "text"]

TOLD = ("image_path", "caption", "url", "NSFW", "kind", "time", "until", "width", "height")
"""What is told of a row, as far as its index knows it: clip-retrieval's four columns and some of ours."""

THUMB, LARGE = 256, 1024  # px of the longer side


class Place(NamedTuple):
    """One row of an index."""

    index: str
    edition: str
    id: int


@dataclass(frozen=True)
class Query:
    """Words, or one of a picture, a row and an embedding, or words together with one of those."""

    index: str
    k: int
    among: Among = "image"
    """Embeddings of pictures or of captions."""
    text: str | None = None
    picture: bytes | None = None
    """A file's bytes, as they came."""
    like: Place | None = None
    embedding: tuple[float, ...] | None = None
    weight: float = 0.5
    """Of what is not words, where there are both."""
    unique: bool = False
    """Near-duplicates of a better hit are left out, so that fewer than k are found."""
    shots: bool = False
    """Of each shot of a video only the best frame, and of a caption's picture only one row, so that k others are found."""
    told: int = 1 << 20
    """Of how many, the best ones, the rows are told."""


class Neighbour(NamedTuple):
    """One hit: its id, its cosine if it was sought, and what is told of it."""

    id: int
    score: float | None
    row: dict[str, Any] | None


class Found(NamedTuple):
    """What a query found, the best first, among `total` rows."""

    edition: str
    total: int
    hits: list[Neighbour]
