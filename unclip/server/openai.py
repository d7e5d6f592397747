"""/v1: the OpenAI Images API of dall-e-2, thin over jobs.

A call reads its body, stores its pictures, queues one job and waits for it; so history, cancelling and limits are the same
as for the page. All or nothing: one error for the call. When the client leaves, or says that it waits no longer, the job is
cancelled. With `stream` the pictures come one by one over server-sent events, with previews before them: an extension, in
the form that gpt-image's clients read.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from unclip.server import contract, documents, errors, uploads
from unclip.server.contract import Call, Edit, Generation, Part, Streamed, Variation
from unclip.server.errors import ApiError
from unclip.server.jobs import ERRORS, Event, Job, JobRequest, JobState, why
from unclip.server.serving import Large, Serving, owner, serving
from unclip.server.streams import EventStream, event

if TYPE_CHECKING:
    from PIL.Image import Image
    from starlette.datastructures import FormData

AnyCall = TypeVar("AnyCall", bound=Call)

_MOST_FIELDS, _MOST_FILES, _MOST_FIELD_BYTES = 64, 8, 32 << 10
_LEAVING_SECONDS = 1.0
_NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}

router = APIRouter(tags=["OpenAI"])
azure = APIRouter(tags=["Azure"])


@router.post("/v1/images/generations", **documents.call(Generation))
@azure.post("/openai/deployments/{deployment}/images/generations", **documents.call(Generation))
async def generations(request: Request) -> Response:
    """Paints pictures from a prompt."""
    if _content_type(request) != "application/json":
        raise _wrong_type("application/json")
    call = _as_deployed(contract.from_body(Generation, await request.body()), request)
    return await _answered(request, call, call.job("generate"))


@router.post("/v1/images/edits", **documents.call(Edit))
@azure.post("/openai/deployments/{deployment}/images/edits", **documents.call(Edit))
async def edits(request: Request) -> Response:
    """Repaints the transparent part of a square PNG, or what is transparent in `mask`."""
    if _content_type(request) == "application/json":
        message = "Images are uploaded here, as multipart/form-data: this server fetches no image_url and keeps no file_id."
        raise ApiError(400, message, param="images")
    call, files = await _form(request, Edit)
    image = await _square(request, files["image"], "image")
    if "mask" in files:
        mask = await serving(request).decoder.png(files["mask"], "mask", _image_bytes(request))
        if mask.image.size != image.image.size:
            got = " and ".join(f"{one.image.width} x {one.image.height}" for one in (image, mask))
            raise ApiError(400, f"Uploaded image and mask must have the same dimensions, got {got}.", param="mask")
        hole = uploads.hole(mask, "mask")
    else:
        hole = uploads.hole(image, "image")
    stored, painted = await _keep(request, image.image.convert("RGB"), "upload"), await _keep(request, hole, "mask")
    return await _answered(request, call, call.job("inpaint", images=(stored,), mask=painted))


@router.post("/v1/images/variations", **documents.call(Variation))
@azure.post("/openai/deployments/{deployment}/images/variations", **documents.call(Variation))
async def variations(request: Request) -> Response:
    """Paints other pictures of what a square PNG shows."""
    call, files = await _form(request, Variation)
    image = await _square(request, files["image"], "image")
    stored = await _keep(request, image.image, "upload")
    return await _answered(request, call, call.job("variations", images=(stored,)))


@router.get("/v1/models", **documents.answers(documents.ModelList))
async def models(request: Request) -> dict[str, Any]:
    """The models there are."""
    return {"object": "list", "data": [_model(request, name) for name in serving(request).config.served]}


@router.get("/v1/models/{model:path}", **documents.answers(documents.Model))
async def model(request: Request, model: str) -> dict[str, Any]:
    """One model."""
    if model not in serving(request).config.served:
        raise errors.unknown_model(model)
    return _model(request, model)


@router.get("/pictures/{name}", **documents.PICTURE)
async def picture(request: Request, name: str, expires: str = "", signature: str = "") -> Response:
    """A painted picture, for whoever has its signed url."""
    own, id = serving(request), name.removesuffix(".png")
    own.signer.check(id, expires, signature)
    row = await asyncio.to_thread(own.store.image, id)
    if row is None:
        raise errors.not_found("picture")
    headers = {"cache-control": "private, max-age=3600, immutable", "cross-origin-resource-policy": "cross-origin"}
    return Large(await asyncio.to_thread(own.png, row), media_type="image/png", headers=headers)


def _model(request: Request, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": request.app.state.started, "owned_by": "unclip"}


# --- what comes in


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_type(expected: str) -> ApiError:
    return ApiError(415, f"Unsupported content type: expected {expected}.")


def _as_deployed(call: AnyCall, request: Request) -> AnyCall:
    """With Azure's paths the deployment is the model."""
    deployment = request.path_params.get("deployment")
    return call if deployment is None else call.model_copy(update={"model": deployment})


async def _form(request: Request, kind: type[AnyCall]) -> tuple[AnyCall, dict[str, bytes]]:
    if _content_type(request) != "multipart/form-data":
        raise _wrong_type("multipart/form-data")
    try:
        form: FormData = await request.form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD_BYTES)
    except (HTTPException, ValueError, LookupError):
        raise ApiError(400, "We could not parse the multipart form of your request.") from None
    try:
        parts = [Part(name, value if isinstance(value, str) else await value.read()) for name, value in form.multi_items()]
    finally:
        await form.close()
    call, files = contract.from_form(kind, parts)
    return _as_deployed(call, request), files


def _image_bytes(request: Request) -> int:
    return serving(request).config.limits.image_bytes


async def _square(request: Request, data: bytes, param: str) -> uploads.Upload:
    upload = await serving(request).decoder.png(data, param, _image_bytes(request))
    width, height = upload.image.size
    if width != height:
        raise ApiError(400, f"Uploaded image must be square, got {width} x {height}.", param=param)
    return upload


async def _keep(request: Request, image: "Image", kind: Any) -> str:
    own = serving(request)
    return await asyncio.to_thread(own.store.add_image, owner(request), await own.decoder.pack(image), kind)


# --- what goes out


async def _answered(request: Request, call: Call, asked: JobRequest) -> Response:
    own = serving(request)
    streamed = isinstance(call, Streamed) and bool(call.stream)
    if streamed:
        own.streams.check()
    job = await own.submit(owner(request), asked)
    headers = {"x-unclip-model": own.config.served[asked.model]}
    if call.ignored:
        headers["x-unclip-ignored"] = ", ".join(call.ignored)
    if streamed:
        return EventStream(_pictures_as_they_come(own, job, call), own.streams, headers)  # type: ignore[arg-type]
    job = await _ended(own, request, job)
    base = None if call.response_format == "b64_json" else own.base_url(request)
    body = await asyncio.to_thread(_body, own, job, base)
    return Large(body, media_type="application/json", headers=headers)


async def _ended(own: Serving, request: Request, job: Job) -> Job:
    """The job once it is done; ApiError when it did not get there. Whoever stops waiting cancels it."""
    painted = asyncio.ensure_future(own.engine.wait(job.id))
    left = asyncio.ensure_future(_leaving(request))
    try:
        await asyncio.wait({painted, left}, timeout=_patience(own, request), return_when=asyncio.FIRST_COMPLETED)
        if painted.done():
            ended = painted.result()
        elif left.done():
            raise ClientDisconnect
        else:
            raise errors.overloaded()
    except BaseException:  # also Draining: who is sent away does not come back for the pictures
        painted.cancel()
        await _give_up(own, job)
        raise
    finally:
        left.cancel()
    if ended is None:  # forgotten by its owner meanwhile
        raise _cancelled()
    refusal = _refusal(ended.state, ended.error, ended.detail)
    if refusal:
        raise refusal
    return ended


async def _give_up(own: Serving, job: Job) -> None:
    """Cancels a job for which nobody waits any more, also one that a stopping server has put back in its queue."""
    own.metrics.count("cancelled")
    await asyncio.shield(own.engine.cancel(job.id))


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _patience(own: Serving, request: Request) -> float:
    """How long the client waits, as its header says, or as long as we let it.

    A little longer than it says: it leaves by itself then, and sees its own timeout; this is for those who wait no more
    behind a proxy that does not tell.
    """
    most = own.config.limits.request_seconds
    try:
        said = float(request.headers.get("x-stainless-read-timeout", most))
    except ValueError:
        return most
    return min(most, said + _LEAVING_SECONDS) if said > 0 else most


def _refusal(state: JobState, error: str | None, detail: str | None) -> ApiError | None:
    """What a job that ended otherwise than well is to its caller."""
    if state == JobState.DONE:
        return None
    if state == JobState.CANCELLED:
        return _cancelled()
    if error == "refused":
        return ApiError(400, why(error, detail))
    return errors.fault(why(error))


def _cancelled() -> ApiError:
    return ApiError(400, "The request was cancelled.", code="cancelled")


def _body(own: Serving, job: Job, base: str | None) -> bytes:
    """The answer as JSON: urls below `base`, or, without one, the pictures themselves, which may be 25 MB."""
    data = []
    for slot, image in enumerate(job.images):
        if image is None:
            raise _cancelled() if slot in job.dropped else errors.fault(ERRORS["image_gone"])
        data.append(_shown(own, image, base) | {"seed": job.request.seed_of(slot)})
    return json.dumps({"created": int(job.created), "data": data}, separators=(",", ":")).encode()


def _shown(own: Serving, image: str, base: str | None) -> dict[str, str]:
    """A picture's url below `base`, or itself; and its prompt as the model read it, where it read other words."""
    row = own.store.image(image)
    if row is None:
        raise errors.fault(ERRORS["image_gone"])
    how = {"url": own.signer.url(base, image)} if base else {"b64_json": base64.b64encode(own.png(row)).decode()}
    return how | ({"revised_prompt": row.settings["read"]} if "read" in row.settings else {})


# --- streams


async def _pictures_as_they_come(own: Serving, job: Job, call: Streamed) -> AsyncGenerator[bytes]:
    """A `partial_image` for each preview that was asked for, `completed` for each picture, or an `error`."""
    family = "image_generation" if job.request.task == "generate" else "image_edit"
    state, error, detail = JobState.QUEUED, None, None
    previews, over = _Previews(call.partial_images or 0), False
    try:
        async for told in own.engine.subscribe(job.id):
            if told.kind == "state":
                state, error, detail = JobState(told.data["state"]), told.data.get("error"), told.data.get("detail")
            index = previews.wanted(told)
            if index is not None:
                yield _picture(f"{family}.partial_image", told.data["png"], call, told, partial_image_index=index)
            elif told.kind == "image":
                shown = await asyncio.to_thread(_shown, own, told.data["image"], None)
                png = shown.pop("b64_json")
                yield _picture(f"{family}.completed", png, call, told, **shown, usage=_NO_USAGE, seed=told.data["seed"])
        over = state.terminal
        refusal = _refusal(state, error, detail) if over else errors.overloaded()
        if refusal:
            yield event(refusal.body(), kind="error")
    except ApiError as refusal:
        yield event(refusal.body(), kind="error")
    finally:
        if not over:
            await _give_up(own, job)


def _picture(kind: str, png: str, call: Call, told: Event, **more: Any) -> bytes:
    fixed = {"type": kind, "b64_json": png, "created_at": int(time.time()), "size": f"{call.side}x{call.side}"}
    fixed |= {"quality": "auto", "background": "opaque", "output_format": "png", "slot": told.data["slot"]}
    return event(fixed | more, kind=kind)


class _Previews:
    """Which previews go out: so many of each picture, evenly over its way."""

    def __init__(self, most: int):
        self._most = most
        self._fraction: dict[int, float] = {}
        self._sent: dict[int, int] = {}

    def wanted(self, told: Event) -> int | None:
        """The preview's number, from 0, if this event is one and its time has come."""
        slot = told.data.get("slot", 0)
        if told.kind == "progress":
            self._fraction[slot] = told.data["fraction"]
        if told.kind != "preview":
            return None
        sent = self._sent.get(slot, 0)
        if sent >= self._most or self._fraction.get(slot, 0.0) < (sent + 1) / (self._most + 1):
            return None
        self._sent[slot] = sent + 1
        return sent
