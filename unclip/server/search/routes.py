"""/api/search: what the page's search asks for, and the pictures of what is found, for the page and for signed urls.

A picture is named by its index, the edition of that and its row, never by a path; what is sent is drawn anew.
"""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from unclip.server import documents, errors, routes
from unclip.server.documents import answers, takes
from unclip.server.errors import ApiError
from unclip.server.jobs import PROMPT_LIMIT
from unclip.server.search.queries import LARGE, THUMB, Among, Neighbour, Place, Query
from unclip.server.search.retrieval import shown_path
from unclip.server.serving import Large, Serving, owner, serving

MOST = 200
_FOR_EVER = "private, max-age=31536000, immutable"  # another edition has another url

router = APIRouter(tags=["search"])
Row = Annotated[int, Path(ge=0, lt=1 << 53)]


class Like(BaseModel):
    """A row that was found."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    edition: Annotated[str, Field(max_length=64)]
    id: Annotated[int, Field(ge=0, lt=1 << 53)]


class Search(BaseModel):
    """Words, a picture of the caller's or a row that was found; or words and one of the others."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    index: Annotated[str, Field(max_length=64)]
    text: Annotated[str | None, Field(max_length=PROMPT_LIMIT)] = None
    image: Annotated[str | None, Field(max_length=64)] = None
    like: Like | None = None
    weight: Annotated[float, Field(ge=0, le=1, description="Of the picture, where there are words too.")] = 0.5
    n: Annotated[int, Field(ge=1, le=MOST)] = 40
    among: Among = "image"


class FoundOne(BaseModel):
    id: int
    score: float
    caption: str | None
    name: str | None
    url: str | None
    time: float | None
    width: int | None
    height: int | None


class FoundAll(BaseModel):
    edition: str
    total: int
    seconds: float
    hits: list[FoundOne]


@router.post("/api/search", **answers(FoundAll), **takes(documents.inlined(Search.model_json_schema())))
async def search(request: Request) -> dict[str, Any]:
    """What an index has that is nearest, the best first."""
    own, began = serving(request), time.monotonic()
    asked = await routes.body_of(request, Search)
    if asked.index not in own.config.indices:
        raise errors.unknown_index(asked.index, "index")
    if own.words.in_any((asked.text,)):
        own.metrics.count("rejected_prompt")
        raise errors.rejected()
    found = await own.finder.find(await _query(own, owner(request), asked))
    hits = [_shown(own, hit) for hit in found.hits]
    return {"edition": found.edition, "total": found.total, "seconds": round(time.monotonic() - began, 4), "hits": hits}


@router.get("/api/search/{index}/{edition}/{id}", **documents.JPEG)
async def picture(request: Request, index: str, edition: str, id: Row) -> Response:
    """A picture of an index, or a frame of a video, no side longer than 1024 px."""
    return await _drawn(request, Place(index, edition, id), LARGE, {"cache-control": _FOR_EVER})


@router.get("/api/search/{index}/{edition}/{id}/thumb", **documents.JPEG)
async def thumb(request: Request, index: str, edition: str, id: Row) -> Response:
    """The same, no side longer than 256 px."""
    return await _drawn(request, Place(index, edition, id), THUMB, {"cache-control": _FOR_EVER})


@router.get("/pictures/found/{index}/{edition}/{name}", **documents.JPEG)
async def signed(request: Request, index: str, edition: str, name: str, expires: str = "", signature: str = "") -> Response:
    """A picture of an index, for whoever has its signed url."""
    id = name.removesuffix(".jpg")
    serving(request).signer.check(f"found/{index}/{edition}/{id}", expires, signature)
    headers = {"cache-control": "private, max-age=3600, immutable", "cross-origin-resource-policy": "cross-origin"}
    return await _drawn(request, Place(index, edition, int(id)), LARGE, headers)


async def _drawn(request: Request, place: Place, side: int, headers: dict[str, str]) -> Response:
    own = serving(request)
    if place.index not in own.config.indices:
        raise errors.not_found("picture")
    return Large(await own.finder.look(place, side), media_type="image/jpeg", headers=headers)


async def _query(own: Serving, owner: str, asked: Search) -> Query:
    text = (asked.text or "").strip() or None
    if text is None and asked.image is None and asked.like is None:
        raise errors.missing("text")
    if asked.image is not None and asked.like is not None:
        raise ApiError(400, "Give one picture, not both 'image' and 'like'.", code="invalid_value", param="like")
    return Query(
        index=asked.index,
        k=asked.n,
        among=asked.among,
        text=text,
        picture=None if asked.image is None else await own.stored(owner, asked.image),
        like=None if asked.like is None else Place(asked.index, asked.like.edition, asked.like.id),
        weight=asked.weight,
        shots=True,
    )


def _shown(own: Serving, hit: Neighbour) -> dict[str, Any]:
    row = hit.row or {}
    path = row.get("image_path")
    told = {name: row.get(name) for name in ("caption", "url", "time", "width", "height")}
    return {"id": hit.id, "score": hit.score, "name": shown_path(own, path) if path else None} | told
