"""Every error as the four keys `{"error": {message, type, param, code}}` that the official clients read.

FastAPI's own 422 with `detail` is replaced too: a client shows nothing of it. Messages come from this package, never from a
library and never from the caller's prompt.
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from unclip.server.jobs import Draining, QueueFull

INVALID = "invalid_request_error"
DRAINING = "The server is overloaded or about to stop. Please try again later."

_SHOWN = 64  # characters of a wrong value that a message repeats


class ApiError(Exception):
    """What a caller is told instead of an answer.

    `type` and `code` are OpenAI's words, `param` is the field at fault; `headers` go with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.type, self.code, self.param = status, message, type, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def invalid_value(param: str, value: object, allowed: tuple[str, ...]) -> ApiError:
    return ApiError(
        400, f"Invalid value: {shown(value)}. Supported values are: {_listed(allowed)}.", code="invalid_value", param=param
    )


def invalid_type(param: str, expected: str, got: str) -> ApiError:
    message = f"Invalid type for '{param}': expected {expected}, but got {got} instead."
    return ApiError(400, message, code="invalid_type", param=param)


def missing(param: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def unknown_parameter(name: str) -> ApiError:
    name = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
    name = name.encode("utf-8", "replace").decode()  # a lone surrogate cannot be sent
    return ApiError(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)


def unknown_model(name: str) -> ApiError:
    message = f"The model {shown(name, quote='`')} does not exist or you do not have access to it."
    return ApiError(404, message, code="model_not_found", param="model")


def unknown_index(name: str, param: str) -> ApiError:
    return ApiError(404, f"There is no index {shown(name)} here.", code="index_not_found", param=param)


def index_changed() -> ApiError:
    message = "The index was made anew since this was found, and its rows have other numbers: search again."
    return ApiError(409, message, code="index_changed")


def not_found(what: str) -> ApiError:
    """Also for what belongs to somebody else: nobody learns that it is there."""
    return ApiError(404, f"There is no such {what}.", code="not_found")


def unknown_url(method: str, path: str) -> ApiError:
    said = path.encode("ascii", "replace").decode()[:200]
    hint = f" Did you mean /v1{said}?" if said.startswith("/images/") else ""
    return ApiError(404, f"Unknown request URL: {method} {said}.{hint}", code="unknown_url")


def bad_key(given: str | None) -> ApiError:
    if not given:
        message = (
            "You didn't provide an API key. You need to provide your API key in an Authorization header "
            "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    else:
        message = f"Incorrect API key provided: {'sk-' if given.startswith('sk-') else ''}***."
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def rate_limited(message: str, retry_after_ms: int) -> ApiError:
    return ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", headers=retry_headers(retry_after_ms))


def queue_full(error: QueueFull) -> ApiError:
    return rate_limited("Too many requests are waiting. Please try again later.", error.retry_after_ms)


def overloaded(retry_after_ms: int = 2000) -> ApiError:
    return ApiError(
        503,
        DRAINING,
        type="service_unavailable_error",
        code="server_is_overloaded",
        headers=retry_headers(retry_after_ms),
    )


def fault(message: str = "The server had an error while processing your request.") -> ApiError:
    """Our own; the same request would fail again, so the clients are told not to send it."""
    return ApiError(500, message, type="server_error", headers={"x-should-retry": "false"})


def rejected() -> ApiError:
    """By the word list; it does not say which word."""
    message = (
        "Your request was rejected as a result of our safety system. "
        "Your prompt may contain text that is not allowed by our safety system."
    )
    return ApiError(400, message, code="content_policy_violation")


def retry_headers(milliseconds: int) -> dict[str, str]:
    """Both forms: the clients obey the first, others know the second."""
    return {"retry-after-ms": str(max(1, milliseconds)), "retry-after": str(max(1, -(-milliseconds // 1000)))}


def shown(value: object, quote: str = "'") -> str:
    """A wrong value as a message repeats it: short, in quotes, printable."""
    text = value if isinstance(value, str) else type(value).__name__
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return quote + "".join(letter if letter.isprintable() else "?" for letter in text) + quote


def install(app: FastAPI) -> None:
    """Makes `app` answer with ApiError's form whatever goes wrong below its middleware."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error, request.method, request.url.path).response()

    for kind in (ApiError, HTTPException, RequestValidationError, QueueFull, Draining):
        app.add_exception_handler(kind, told)


def as_api_error(error: Exception, method: str, path: str) -> ApiError:
    """Any exception as what the caller is told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return queue_full(error)
    if isinstance(error, Draining):
        return overloaded()
    if isinstance(error, RequestValidationError):
        name = str(error.errors()[0]["loc"][-1])
        return ApiError(400, f"Invalid value for '{name}' in the URL.", code="invalid_value", param=name)
    if isinstance(error, HTTPException):
        return _from_http(error, method, path)
    return fault()


def _from_http(error: HTTPException, method: str, path: str) -> ApiError:
    if error.status_code == 404:
        return unknown_url(method, path)
    if error.status_code == 405:
        allow = dict(error.headers or {})
        return ApiError(405, f"Not allowed to {method} on this URL.", headers=allow)
    if error.status_code >= 500:
        return fault()
    return ApiError(error.status_code, "The request could not be read.")


def _listed(values: tuple[str, ...]) -> str:
    quoted = [f"'{value}'" for value in values]
    return " and ".join(quoted) if len(quoted) < 3 else ", ".join(quoted[:-1]) + f", and {quoted[-1]}"
