"""/api: what the page asks for. Jobs, their events, pictures, collections; all of them the caller's own."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_args

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unclip.server import contract, counting, documents, errors, provenance, uploads
from unclip.server.config import ALIAS
from unclip.server.documents import NOTHING, PICTURE, STREAM, answers, takes
from unclip.server.errors import ApiError
from unclip.server.jobs import MOST, PROMPT_LIMIT, SIZES, Job, JobRequest, Task
from unclip.server.serving import Large, Serving, owner, serving
from unclip.server.store import Collection, ImageRow
from unclip.server.streams import EventStream, job_event

Body = TypeVar("Body", bound=BaseModel)

router = APIRouter(prefix="/api", tags=["page"])

_FOR_EVER = "private, max-age=31536000, immutable"  # a picture never changes; its id is its ETag
_STYLES = ("a 3d render of", "a flat icon of", "a noto emoji of", "a twemoji of")
_THINGS = (
    "a red apple", "a cactus", "a rocket", "a tangerine", "an octopus", "a blue whale", "a green teapot", "a snowman",
    "a yellow umbrella", "a fox", "a hot air balloon", "a slice of watermelon", "an owl", "a sailing boat", "a violin",
    "a purple crystal ball", "a mushroom", "a lighthouse", "a penguin", "a cup of coffee", "two red hearts", "a dragon",
    "a small pink cat on the left of a large yellow star", "three green clovers", "a robot above a blue ball",
)  # fmt: skip


class Name(BaseModel):
    """The body that names a collection."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]


class Place(BaseModel):
    """The body that moves a job: before which other, null for the end of the queue."""

    model_config = ConfigDict(strict=True, extra="forbid")

    before: Annotated[str, Field(max_length=64)] | None


class Words(BaseModel):
    """A prompt, and the model that would read it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: Annotated[str, Field(max_length=10 * PROMPT_LIMIT)]
    model: str = ALIAS
    as_typed: bool = False


# --- the server


@router.get("/config", **answers(documents.Anything))
async def config(request: Request) -> dict[str, Any]:
    """What the page has to know of this server. Open: it says whether a key is needed."""
    own = serving(request).config
    told = {"models": list(own.served), "sizes": list(SIZES), "default_size": 256, "max_n": MOST}
    told |= {"prompt_limit": PROMPT_LIMIT, "tasks": list(get_args(Task))}
    return told | {"key_required": bool(own.keys), "signature": own.signature, "indices": serving(request).finder.sizes}


@router.get("/surprise", **answers(documents.Anything))
async def surprise(request: Request) -> dict[str, str]:
    """A prompt for whoever has none."""
    return {"prompt": f"{random.choice(_STYLES)} {random.choice(_THINGS)}"}


@router.post("/tokens", **answers(documents.Tokens), **takes(Words.model_json_schema()))
async def tokens(request: Request) -> dict[str, Any]:
    """What the model would make of a prompt: how it reads its words, and how much of that its text encoder takes.

    `read` is the prompt in words that the model knows, `words` are those that it reads as others, `unknown` those that
    nothing is known of; null with `as_typed`, for a model without words, and for a prompt that is too long for a job.
    `count` is how many tokens `read` has, or else the prompt, `limit` how many of them are taken, `kept` how many characters
    those are; null for a model that cannot be counted. By POST, so that no proxy's log holds a prompt.
    """
    asked = await body_of(request, Words)
    where = serving(request).config.served.get(asked.model)
    if where is None:
        raise errors.unknown_model(asked.model)
    return await asyncio.to_thread(counting.told, where, asked.prompt, as_typed=asked.as_typed)


# --- jobs


@router.post("/jobs", **answers(documents.Job, 201), **takes(documents.inlined(JobRequest.model_json_schema())))
async def add_job(request: Request) -> dict[str, Any]:
    """Queues a job."""
    asked = await body_of(request, JobRequest)
    return _job(request, await serving(request).submit(owner(request), asked))


@router.get("/jobs", **answers(documents.Jobs))
async def jobs(
    request: Request, before: Annotated[str, Query(max_length=64)] = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Response:
    """The newest jobs, or, with `before`, those older than that one."""
    found = await asyncio.to_thread(serving(request).store.jobs, owner(request), before or None, limit)
    # FastAPI's own way to JSON would hold up everybody else for a tenth of a second.
    return Response(json.dumps({"jobs": [_job(request, job) for job in found]}), media_type="application/json")


@router.get("/jobs/{id}", **answers(documents.Job))
async def job(request: Request, id: str) -> dict[str, Any]:
    """One job."""
    return _job(request, await serving(request).job(owner(request), id))


@router.post("/jobs/cancel", **answers(documents.Ids))
async def cancel_all(request: Request, waiting: bool = False) -> dict[str, Any]:
    """Stops all of the caller's jobs, with `waiting` only those in the queue; the pictures that are done stay."""
    own = serving(request)
    stopped = await own.engine.cancel_all(owner(request), waiting=waiting)
    for _ in stopped:
        own.metrics.count("cancelled")
    return {"ids": stopped}


@router.post("/jobs/{id}/cancel", **answers(documents.Job))
async def cancel(request: Request, id: str) -> dict[str, Any]:
    """Stops a job; the pictures that are done stay."""
    own = serving(request)
    found = await own.job(owner(request), id)
    if not found.state.terminal:
        own.metrics.count("cancelled")
        await own.engine.cancel(id)
    return _job(request, await own.job(owner(request), id))


@router.post("/jobs/{id}/slots/{slot}/cancel", **answers(documents.Job))
async def cancel_slot(request: Request, id: str, slot: Annotated[int, Path(ge=0)]) -> dict[str, Any]:
    """Leaves one picture of a job out, if it is not done; the others go on."""
    own = serving(request)
    found = await own.job(owner(request), id)
    if slot >= found.request.slots:
        raise errors.not_found("picture")
    await own.engine.drop(id, slot)
    return _job(request, await own.job(owner(request), id))


@router.post("/jobs/{id}/move", **answers(documents.Job), **takes(Place.model_json_schema()))
async def move(request: Request, id: str) -> dict[str, Any]:
    """Puts a job that waits before another, or, with null, at the end; 409 where one of them does not wait."""
    own, asked = serving(request), await body_of(request, Place)
    for one in (id, *([asked.before] if asked.before is not None else [])):
        await own.job(owner(request), one)
    if not await own.engine.move(id, asked.before):
        raise _begun()
    return _job(request, await own.job(owner(request), id))


@router.post("/jobs/{id}/withdraw", **answers(documents.Job))
async def withdraw(request: Request, id: str) -> dict[str, Any]:
    """Takes a job that waits out of the queue, and forgets it unless it has pictures; 409 where it does not wait."""
    own = serving(request)
    await own.job(owner(request), id)
    ended = await own.engine.withdraw(id)
    if ended is None:
        raise _begun()
    if not any(ended.images):
        await asyncio.to_thread(own.store.delete_job, id)
    return _job(request, ended)


@router.delete("/jobs/{id}", **NOTHING)
async def forget(request: Request, id: str) -> None:
    """Stops a job and forgets it with its pictures, but for those in a collection."""
    own = serving(request)
    found = await own.job(owner(request), id)
    if not found.state.terminal:
        await own.engine.cancel(id)
    await asyncio.to_thread(own.store.delete_job, id)


@router.get("/jobs/{id}/events", **STREAM)
async def events(request: Request, id: str) -> Response:
    """What happens to a job, as server-sent events; `Last-Event-ID` says from where on."""
    own = serving(request)
    own.streams.check()
    await own.job(owner(request), id)
    seen = request.headers.get("last-event-id", "")
    return EventStream(_events(own, id, int(seen) if seen.isdecimal() and len(seen) < 16 else 0), own.streams)


@router.get("/events", **STREAM)
async def all_events(request: Request) -> Response:
    """States and pictures of all of the caller's jobs from now on, as server-sent events."""
    own = serving(request)
    own.streams.check()
    return EventStream(own.feed.listen(owner(request)), own.streams)


def _job(request: Request, job: Job) -> dict[str, Any]:
    return job.to_json() | serving(request).engine.place(job.id)


def _begun() -> ApiError:
    return ApiError(409, "This job does not wait in the queue any more.", code="not_queued")


async def _events(own: Serving, id: str, after: int) -> AsyncGenerator[bytes]:
    async for told in own.engine.subscribe(id, after=after):
        yield job_event(told)


# --- pictures


@router.post(
    "/images",
    **answers(documents.Stored, 201),
    **takes({"type": "string", "format": "binary"}, "application/octet-stream"),
)
async def add_image(request: Request, kind: Literal["upload", "mask"] = "upload") -> dict[str, Any]:
    """Stores a PNG, JPEG or WebP, which is the whole body; a mask becomes black and white."""
    own = serving(request)
    upload = await own.decoder.any(await request.body())
    image = uploads.painted(upload) if kind == "mask" else upload.image
    png = await own.decoder.pack(image)
    id = await asyncio.to_thread(own.store.add_image, owner(request), png, kind)
    return {"id": id, "width": image.width, "height": image.height}


@router.get("/images/{id}", **PICTURE)
async def image(request: Request, id: str, settings: bool = True, signature: bool | None = None) -> Response:
    """A picture; `settings=false` strips what made it, `signature` overrides the server's own habit."""
    own = serving(request)
    row = await own.image(owner(request), id)
    etag = f'"{id}-{int(settings)}{signature}"'
    return await _png(request, etag, lambda: own.png(row, settings=settings, signature=signature))


@router.get("/images/{id}/thumb", **PICTURE)
async def thumb(request: Request, id: str) -> Response:
    """A picture, no side longer than 256 px."""
    own = serving(request)
    row = await own.image(owner(request), id)
    small = max(row.width, row.height) <= provenance.THUMB  # as it is: a long history asks for thousands
    make = partial(own.png, row, settings=False) if small else lambda: provenance.thumbnail(own.png(row))
    return await _png(request, f'"{id}-thumb"', make)


@router.get("/images/{id}/info", **answers(documents.Anything))
async def info(request: Request, id: str) -> dict[str, Any]:
    """What made a picture, and of which."""
    return _told(await serving(request).image(owner(request), id))


@router.delete("/images/{id}", **NOTHING)
async def delete_image(request: Request, id: str) -> None:
    """Removes a picture from everywhere."""
    own = serving(request)
    await own.image(owner(request), id)
    await asyncio.to_thread(own.store.delete_image, id)


async def _png(request: Request, etag: str, make: Any) -> Response:
    headers = {"etag": etag, "cache-control": _FOR_EVER}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Large(await asyncio.to_thread(make), media_type="image/png", headers=headers)


def _told(row: ImageRow) -> dict[str, Any]:
    return {key: value for key, value in vars(row).items() if key != "owner"} | {"parents": list(row.parents)}


# --- collections


@router.get("/collections", **answers(documents.Anything))
async def collections(request: Request) -> dict[str, Any]:
    """The caller's collections, oldest first."""
    found = await asyncio.to_thread(serving(request).store.collections, owner(request))
    return {"collections": [_shown(one) for one in found]}


@router.post("/collections", **answers(documents.Anything, 201), **takes(Name.model_json_schema()))
async def create_collection(request: Request) -> dict[str, Any]:
    """A new, empty collection."""
    asked = await body_of(request, Name)
    return _shown(await asyncio.to_thread(serving(request).store.create_collection, owner(request), asked.name))


@router.patch("/collections/{id}", **answers(documents.Anything), **takes(Name.model_json_schema()))
async def rename_collection(request: Request, id: str) -> dict[str, Any]:
    """Gives a collection another name."""
    asked = await body_of(request, Name)
    await _collection(request, id)
    await asyncio.to_thread(serving(request).store.rename_collection, id, asked.name)
    return _shown(await _collection(request, id))


@router.delete("/collections/{id}", **NOTHING)
async def delete_collection(request: Request, id: str) -> None:
    """Removes a collection; its pictures stay."""
    await _collection(request, id)
    await asyncio.to_thread(serving(request).store.delete_collection, id)


@router.post("/collections/{id}/images/{image}", **answers(documents.Anything))
async def collect(request: Request, id: str, image: str) -> dict[str, Any]:
    """Puts a picture into a collection."""
    await _collection(request, id)
    await serving(request).image(owner(request), image)
    await asyncio.to_thread(serving(request).store.add_to_collection, id, image)
    return _shown(await _collection(request, id))


@router.delete("/collections/{id}/images/{image}", **answers(documents.Anything))
async def uncollect(request: Request, id: str, image: str) -> dict[str, Any]:
    """Takes a picture out of a collection."""
    await _collection(request, id)
    await asyncio.to_thread(serving(request).store.remove_from_collection, id, image)
    return _shown(await _collection(request, id))


async def _collection(request: Request, id: str) -> Collection:
    found = await asyncio.to_thread(serving(request).store.collection, id)
    if found is None or found.owner != owner(request):
        raise errors.not_found("collection")
    return found


def _shown(one: Collection) -> dict[str, Any]:
    return {"id": one.id, "name": one.name, "created": one.created, "images": list(one.images)}


async def body_of(request: Request, kind: type[Body]) -> Body:
    """A JSON body as a model; ApiError for another content type, and for the first thing that is wrong with it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Unsupported content type: expected application/json.")
    try:
        return kind.model_validate_json(await request.body(), strict=True)
    except ValidationError as error:
        raise contract.as_api_error(kind, error) from None
