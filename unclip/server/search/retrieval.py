"""clip-retrieval's HTTP contract, /knn-service, /metadata and /indices-list: what was written for it goes on working.

Bodies are JSON whatever their content type says, as its client sends them. Of its fields those for models that are not here
(safety, violence, aesthetics, a multilingual CLIP) are accepted, change nothing and are named in `x-unclip-ignored`. No url
is ever fetched. A hit has what its index tells in clip-retrieval's columns, a signed `url` of its picture where the index
has none, and in `image` a small JPEG, as base64, while these come quickly.
"""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, RootModel

from unclip.server import contract, documents, errors
from unclip.server.errors import ApiError
from unclip.server.search.queries import THUMB, Among, Found, Neighbour, Place, Query
from unclip.server.serving import Large, Serving, serving

MOST_TOLD, MOST_FOUND, MOST_TEXT = 1000, 10_000, 10_000
IMAGES = 100  # hits that have `image`, at most
IMAGES_SECONDS = 5.0
COLUMNS = ("image_path", "caption", "url", "NSFW", "time", "until")

Body = TypeVar("Body", bound=BaseModel)
Switch = Annotated[bool | None, Field(description="Ignored.")]
Number = Annotated[float | Annotated[str, Field(max_length=32)] | None, Field(description="Ignored.")]

router = APIRouter(tags=["clip-retrieval"])


class Knn(BaseModel):
    """POST /knn-service: exactly one of `text`, `image` and `embedding_input`, none of them empty."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    text: Annotated[str | None, Field(max_length=MOST_TEXT)] = None
    image: Annotated[str | None, Field(description="A PNG, JPEG or WebP in base64.")] = None
    image_url: Annotated[str | None, Field(description="Refused: nothing is fetched.")] = None
    embedding_input: Annotated[list[float] | None, Field(description="As many numbers as the index has.")] = None
    modality: Annotated[Among, Field(description="Search among pictures, or among captions.")] = "image"
    num_images: Annotated[int, Field(ge=0, le=MOST_TOLD, description="Hits that come with what is told of them.")] = 40
    num_result_ids: Annotated[int | None, Field(ge=1, le=MOST_FOUND, description="Hits altogether.")] = None
    indice_name: Annotated[str | None, Field(max_length=64)] = None
    deduplicate: Annotated[bool, Field(description="Leave out near-duplicates of better hits.")] = False
    use_mclip: Switch = None
    use_safety_model: Switch = None
    use_violence_detector: Switch = None
    aesthetic_score: Number = None
    aesthetic_weight: Number = None

    @property
    def ignored(self) -> list[str]:
        """The fields that would have changed something elsewhere."""
        names = [name for name in ("use_mclip", "use_safety_model", "use_violence_detector") if getattr(self, name)]
        return names + [name for name in ("aesthetic_score", "aesthetic_weight") if getattr(self, name) not in (None, "")]

    def query(self, index: str) -> Query:
        """What it seeks in an index; ApiError for nothing, for more than one thing, and for a url."""
        if self.image_url:
            message = "Nothing is fetched here: send the picture itself as 'image', in base64, in place of 'image_url'."
            raise ApiError(400, message, code="url_not_fetched", param="image_url")
        given = [name for name in ("text", "image", "embedding_input") if getattr(self, name)]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            message = f"Give exactly one of text, image and embedding_input, got {got}."
            raise ApiError(400, message, code="invalid_value", param=given[-1] if given else "text")
        return Query(
            index=index,
            k=self.num_images if self.num_result_ids is None else self.num_result_ids,
            among=self.modality,
            text=self.text or None,
            picture=_decoded(self.image) if self.image else None,
            embedding=tuple(self.embedding_input) if self.embedding_input else None,
            unique=self.deduplicate,
            told=self.num_images,
        )


class Metadata(BaseModel):
    """POST /metadata: what is told of some rows."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    ids: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 53)]], Field(max_length=MOST_TOLD)]
    indice_name: Annotated[str, Field(max_length=64)]


class Hit(BaseModel):
    """Beside these, of the first `num_images`: caption, url, image_path, NSFW, time, until, image."""

    model_config = ConfigDict(extra="allow")

    id: int
    similarity: float


class Told(BaseModel):
    id: int
    metadata: dict[str, Any]


class Hits(RootModel[list[Hit]]):
    """The best first; none where nothing is found."""


class AllTold(RootModel[list[Told]]):
    """In the order of the ids."""


class Names(RootModel[list[str]]):
    """The names of the indices, as the server was given them."""


@router.post("/knn-service", **documents.answers(Hits), **documents.takes(documents.inlined(Knn.model_json_schema())))
async def knn_service(request: Request) -> Response:
    """The nearest neighbours of a text, a picture or an embedding."""
    own = serving(request)
    asked = await _body(request, Knn)
    index = _index(own, asked.indice_name)
    if own.words.in_any((asked.text,)):
        own.metrics.count("rejected_prompt")
        raise errors.rejected()
    query = await asyncio.to_thread(asked.query, index)
    found = await own.finder.find(query) if query.k else Found("", 0, [])
    told = await _metadata(request, index, found.edition, found.hits[: asked.num_images])
    hits = [
        (told[place] if place < len(told) else {}) | {"id": hit.id, "similarity": hit.score}
        for place, hit in enumerate(found.hits)
    ]
    return await _json(hits, {"x-unclip-ignored": ", ".join(asked.ignored)} if asked.ignored else {})


@router.post("/metadata", **documents.answers(AllTold), **documents.takes(documents.inlined(Metadata.model_json_schema())))
async def metadata(request: Request) -> Response:
    """What is told of some rows."""
    own = serving(request)
    asked = await _body(request, Metadata)
    index = _index(own, asked.indice_name)
    if not asked.ids:
        return await _json([], {})
    found = await own.finder.tell(index, asked.ids)
    told = await _metadata(request, index, found.edition, found.hits)
    return await _json([{"id": id, "metadata": one} for id, one in zip(asked.ids, told, strict=True)], {})


@router.get("/indices-list", **documents.answers(Names))
async def indices_list(request: Request) -> list[str]:
    """The names of the indices."""
    return [*serving(request).config.indices]


def shown_path(own: Serving, path: str) -> str:
    """A file of an index as callers are told it: all of it, or, with keys, when they may be far away, its name alone."""
    return path.rpartition("/")[2] if own.config.keys else path


async def _body(request: Request, kind: type[Body]) -> Body:
    return await asyncio.to_thread(contract.from_body, kind, await request.body())


def _index(own: Serving, name: str | None) -> str:
    """The index of that name; the first one unless one is named."""
    names = [*own.config.indices]
    if name not in names and (name is not None or not names):
        raise errors.unknown_index(name or "", "indice_name")
    return names[0] if name is None else name


def _decoded(image: str) -> bytes:
    try:
        return base64.b64decode(image)
    except (binascii.Error, ValueError):
        raise ApiError(400, "Invalid 'image': it is not base64.", code="invalid_value", param="image") from None


async def _metadata(request: Request, index: str, edition: str, hits: Sequence[Neighbour]) -> list[dict[str, Any]]:
    """What is told of some hits, in their order."""
    own, told = serving(request), []
    images = await _images(own, [Place(index, edition, hit.id) for hit in hits if (hit.row or {}).get("image_path")])
    for hit in hits:
        row = hit.row or {}
        one = {name: row[name] for name in COLUMNS if name == "caption" or row.get(name) is not None}
        if isinstance(path := one.get("image_path"), str):
            one["image_path"] = shown_path(own, path)
            named = f"found/{index}/{edition}/{hit.id}"
            one.setdefault("url", own.signer.url(own.base_url(request), named, "jpg"))
        told.append(one | ({"image": images[hit.id]} if hit.id in images else {}))
    return told


async def _images(own: Serving, places: Sequence[Place]) -> dict[int, str]:
    """The pictures of the first of some rows, by their ids, of those that are there and come in time."""
    drawing = {asyncio.ensure_future(own.finder.look(place, THUMB)): place.id for place in {*places[:IMAGES]}}
    if not drawing:
        return {}
    try:
        done, _ = await asyncio.wait(drawing, timeout=IMAGES_SECONDS)
    finally:
        for one in drawing:
            one.cancel()
        await asyncio.gather(*drawing, return_exceptions=True)
    return {drawing[one]: base64.b64encode(one.result()).decode() for one in done if one.exception() is None}


async def _json(body: list[Any], headers: dict[str, str]) -> Response:
    """An answer that may have megabytes, which a thread puts together."""
    rendered = await asyncio.to_thread(JSONResponse(None).render, body)
    return Large(rendered, media_type="application/json", headers=headers)
