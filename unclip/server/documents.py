"""What the OpenAPI document says of the routes: bodies from the contract's models, the four-key error for everything else.

The routes read and check their bodies themselves, since FastAPI's own checking answers with errors that no client knows.
"""

from typing import Any, Literal

from pydantic import BaseModel, RootModel

from unclip.server import contract


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: Error


class Picture(BaseModel):
    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None
    seed: int


class Pictures(BaseModel):
    created: int
    data: list[Picture]


class Model(BaseModel):
    id: str
    object: str
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: str
    data: list[Model]


class Stored(BaseModel):
    id: str
    width: int
    height: int


class ReadWord(BaseModel):
    word: str
    known: str
    source: str


class Tokens(BaseModel):
    count: int | None
    limit: int | None
    kept: int | None
    read: str | None
    words: list[ReadWord] | None
    unknown: list[str] | None


class Job(BaseModel):
    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created: float
    started: float | None
    finished: float | None
    error: str | None
    images: list[str | None]
    progress: float
    attempts: int
    detail: str | None
    dropped: list[int]
    position: int | None
    eta_seconds: float | None
    request: dict[str, Any]


class Jobs(BaseModel):
    jobs: list[Job]


class Ids(BaseModel):
    ids: list[str]


class Anything(RootModel[dict[str, Any]]):
    """An object whose keys the route's description tells."""


_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What is wrong with the request."},
    "5XX": {"model": ErrorBody, "description": "What is wrong here."},
}
_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
PICTURE: dict[str, Any] = {"responses": {200: {"content": _PNG, "description": "A PNG."}, **_ERRORS}}
JPEG: dict[str, Any] = {
    "responses": {
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "A JPEG."},
        **_ERRORS,
    }
}
_TEXT = {"type": "string"}
_EVENT = {  # of a stream, a schema describes each event: OpenAPI's 3.2 says so, its 3.1 is read so
    "type": "object",
    "required": ["data"],
    "properties": {"id": _TEXT, "event": _TEXT, "data": _TEXT | {"contentMediaType": "application/json"}},
}
_EVENTS = {"text/event-stream": {"schema": _EVENT}}
STREAM: dict[str, Any] = {"responses": {200: {"content": _EVENTS, "description": "Events."}, **_ERRORS}}
NOTHING: dict[str, Any] = {"status_code": 204, "responses": _ERRORS}


def answers(model: type[BaseModel], status: int = 200) -> dict[str, Any]:
    """How a route is declared that answers with `model`."""
    return {"response_model": None, "status_code": status, "responses": {status: {"model": model}, **_ERRORS}}


def takes(schema: dict[str, Any], content: str = "application/json") -> dict[str, Any]:
    """The body of a route."""
    return {"openapi_extra": {"requestBody": {"required": True, "content": {content: {"schema": schema}}}}}


def call(kind: type[contract.Call]) -> dict[str, Any]:
    """How a route is declared that is one of the contract's calls."""
    content = "multipart/form-data" if kind in contract.FILES else "application/json"
    declared = answers(Pictures)
    if issubclass(kind, contract.Streamed):
        declared["responses"][200] |= {"content": _EVENTS}
    return declared | takes(contract.schema(kind), content)


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without `$defs`, as a body that stands outside the document's components needs it."""
    definitions = schema.pop("$defs", {})

    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix("#/$defs/")
            return replaced(definitions[name]) if name else {key: replaced(value) for key, value in node.items()}
        return [replaced(value) for value in node] if isinstance(node, list) else node

    return replaced(schema)


def without_validation_errors(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document less the 422 that never happens here."""
    for path in document.get("paths", {}).values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas = document.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document
