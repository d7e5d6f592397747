"""What both doors share, OpenAI's and the page's: jobs go in and pictures come out by the same few functions.

Whatever belongs to another owner is not there: the same 404, after the same look-ups.
"""

import asyncio
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from unclip.errors import ConfigError
from unclip.server import counting, errors, provenance
from unclip.server.config import ServerConfig
from unclip.server.jobs import Job, JobRequest
from unclip.server.metrics import Metrics
from unclip.server.search.finder import Finder
from unclip.server.signing import Signer
from unclip.server.store import ImageRow, Store
from unclip.server.streams import Feed, Room
from unclip.server.uploads import Decoder

if TYPE_CHECKING:
    from unclip.server.engine import Engine


PIECE = 256 << 10  # bytes


class Words:
    """The words and phrases that no prompt may hold, whatever their case, width or accents' encoding."""

    def __init__(self, words: list[str]):
        pattern = "|".join(re.escape(_folded(word)) for word in words)
        self._found = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)") if words else None

    @classmethod
    def load(cls, path: Path | None) -> "Words":
        """Those of a file, one a line, `#` before a comment; none without a file. ConfigError when it cannot be read."""
        if path is None:
            return cls([])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not utf-8 text"
            raise ConfigError(f"cannot read the blocked words in {path}: {reason}") from None
        return cls([line.strip() for line in lines if line.strip() and not line.startswith("#")])

    def __bool__(self) -> bool:
        return self._found is not None

    def in_any(self, texts: tuple[str | None, ...]) -> bool:
        return self._found is not None and any(text and self._found.search(_folded(text)) for text in texts)


class Large(Response):
    """An answer that is handed over piece by piece, as its client takes it.

    Whole, 25 MB of pictures would be copied in the event loop, and wait in the buffer of each client that does not read.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body) or 1, PIECE):
            piece, more = bytes(self.body[start : start + PIECE]), start + PIECE < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


@dataclass(frozen=True)
class Serving:
    """The parts of a running server, as the routes find them in `app.state.serving`."""

    config: ServerConfig
    store: Store
    engine: "Engine"
    metrics: Metrics
    signer: Signer
    decoder: Decoder
    words: Words
    streams: Room
    feed: Feed
    finder: Finder

    async def submit(self, owner: str, request: JobRequest) -> Job:
        """Queues a job; ApiError for a model, a prompt or a picture that may not be, QueueFull, Draining."""
        if request.model not in self.config.served:
            raise errors.unknown_model(request.model)
        if self.words and await asyncio.to_thread(self._is_blocked, request):
            self.metrics.count("rejected_prompt")
            raise errors.rejected()
        for id in (*request.images, *([request.mask] if request.mask else [])):
            await self.image(owner, id)
        job = await self.engine.submit(owner, request)
        self.feed.follow(job)
        return job

    def _is_blocked(self, request: JobRequest) -> bool:
        """Whether a forbidden word stands in its prompts, or in what its model reads them as: a kitty is a cat.

        As typed it stays one, so that nobody gets round the list.
        """
        typed = [text for text in (request.prompt, request.old, request.new) if text]
        reader = counting.reader(self.config.served[request.model])
        return self.words.in_any((*typed, *(reader.read(text).text for text in typed if reader is not None)))

    async def job(self, owner: str, id: str) -> Job:
        """A job of this owner; ApiError 404."""
        found = await asyncio.to_thread(self.store.job, id)
        if found is None or found.owner != owner:
            raise errors.not_found("job")
        return found

    async def image(self, owner: str, id: str) -> ImageRow:
        """A picture of this owner; ApiError 404."""
        found = await asyncio.to_thread(self.store.image, id)
        if found is None or found.owner != owner:
            raise errors.not_found("picture")
        return found

    async def stored(self, owner: str, id: str) -> bytes:
        """The file of a picture of this owner's, as it is stored; ApiError 404."""
        row = await self.image(owner, id)
        return await asyncio.to_thread(self._read, row)

    def png(self, row: ImageRow, *, settings: bool = True, signature: bool | None = None) -> bytes:
        """A stored picture as it leaves, read from the disk by the calling thread; ApiError 404 when it is gone."""
        png = self._read(row)
        if row.kind != "made":
            return png
        told = row.settings if settings and self.config.settings_in_pictures else None
        return provenance.marked(png, told, signature=self.config.signature if signature is None else signature)

    def _read(self, row: ImageRow) -> bytes:
        path = self.store.path(row.id)
        try:
            png = b"" if path is None else path.read_bytes()
        except FileNotFoundError:
            png = b""
        if not png:
            raise errors.not_found("picture")
        return png

    def base_url(self, request: Request) -> str:
        """What the urls that this request is answered with begin with."""
        return (self.config.public_url or f"{request.url.scheme}://{request.headers['host']}").rstrip("/")


def serving(request: Request) -> Serving:
    return request.app.state.serving


def owner(request: Request) -> str:
    """Whose request this is, as the guard found out."""
    return request.state.owner


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
