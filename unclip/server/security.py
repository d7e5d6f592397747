"""What stands before every route: who may call, from where, how often, how much; and the headers of every answer.

Closed unless listed: with keys set, only the paths in OPEN answer without one, and a path that does not exist is refused
like one that does. A page in somebody's browser must not reach a server on that person's machine: so a Host that is a
stranger's name is refused (DNS rebinding), and so is a changing request that another origin's page sends; forms and plain
text need no leave of the browser, which is why the Origin is looked at and not the content type. Bodies are counted before
they are parsed and must arrive in time.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.server import errors
from unclip.server.config import ServerConfig
from unclip.server.errors import ApiError
from unclip.server.metrics import Metrics

log = logging.getLogger("unclip.server")

OPEN = ("/", "/healthz", "/readyz", "/api/config")
OPEN_BELOW = ("/page/", "/pictures/")  # the page's own files, and urls that are signed
LOCAL = "local"  # the owner of everything when no keys are set

CSP = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_EXPOSED = "x-request-id, x-unclip-model, x-unclip-ignored, retry-after, retry-after-ms"
_MAKES_JOB = re.compile(r"/images/(generations|edits|variations)$|^/api/jobs$")
_SEARCHES = re.compile(r"^/(knn-service|api/search)$")
_SENDS_PICTURES = re.compile(r"/images/(edits|variations)$")
_CORS_HEADER = re.compile(r"authorization|content-type|api-key|last-event-id|x-stainless-[a-z-]{1,40}")
_FORM_ROOM = 64 << 10  # of a form, besides its two pictures
_LEFT = 499  # the status of a request whose client got no answer
_DRAINED, _DRAIN_SECONDS = 32 << 20, 5.0  # what is read and dropped of a refused body, so that the refusal arrives


class RateLimit:
    """A bucket for each owner: so many requests a minute, all at once or evenly, by a clock that never jumps."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self.most, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # owner: tokens, and when that was

    def take(self, owner: str) -> tuple[bool, dict[str, str], int]:
        """Whether there was room, the headers that tell, and milliseconds until there is."""
        now = self._clock()
        tokens, since = self._buckets.get(owner, (float(self.most), now))
        tokens = min(self.most, tokens + (now - since) * self.most / 60)
        granted = tokens >= 1
        tokens -= granted
        self._buckets[owner] = tokens, now
        wait = 0 if tokens >= 1 else (1 - tokens) * 60 / self.most
        headers = {
            "x-ratelimit-limit-requests": str(self.most),
            "x-ratelimit-remaining-requests": str(int(tokens)),
            "x-ratelimit-reset-requests": _duration((self.most - tokens) * 60 / self.most),
        }
        return granted, headers, round(1000 * wait)


class Keys:
    """The keys that are let in; only their hashes are kept, and every one is compared, in time that tells nothing."""

    def __init__(self, keys: tuple[str, ...]):
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    def owner(self, given: str | None) -> str | None:
        """Whose key this is; None for no key of ours. Without keys everybody is the one owner."""
        if not self._hashes:
            return LOCAL
        digest = hashlib.sha256((given or "").encode("latin-1", "replace")).digest()
        known = [hmac.compare_digest(digest, other) for other in self._hashes]
        return f"key-{digest.hex()[:16]}" if any(known) else None


class Guard:
    """ASGI middleware: checks a request, hands it on with its owner in `scope["state"]`, completes the answer's headers."""

    def __init__(self, app: ASGIApp, *, config: ServerConfig, metrics: Metrics):
        self.app, self._config, self._metrics = app, config, metrics
        self._keys = Keys(tuple(key.get_secret_value() for key in config.keys))
        limits = config.limits
        self._rates = [
            (_MAKES_JOB, RateLimit(limits.requests_per_minute)),
            (_SEARCHES, RateLimit(limits.searches_per_minute)),
        ]
        public = urlsplit(config.public_url).hostname if config.public_url else None
        self._hosts = {"localhost", config.host.lower(), *map(str.lower, config.hosts), *([public] if public else [])}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, *self._most(scope["path"]), self._config.limits.body_seconds)
        answer = _Answer(scope, send, body)
        try:
            await self._admitted(scope, body, answer)
        except ApiError as error:
            await answer.refuse(error)
        except ClientDisconnect:
            self._metrics.count("client_left")
        except Exception as error:
            _log_fault(answer.id, error)
            await answer.refuse(errors.fault())
        self._told(scope, answer)

    async def _admitted(self, scope: Scope, body: "_Body", answer: "_Answer") -> None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        self._check_host(headers)
        origin = headers.get("origin")
        if origin is not None and origin in self._config.origins:
            answer.extra |= {"access-control-allow-origin": origin, "vary": "origin"}
            answer.extra["access-control-expose-headers"] = _EXPOSED
            if method == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight(headers, answer)
                return
        elif method not in ("GET", "HEAD", "OPTIONS"):
            _check_origin(headers)
        owner = self._keys.owner(_key(headers))
        if owner is None and path not in OPEN and not path.startswith(OPEN_BELOW):
            raise errors.bad_key(_key(headers))
        for calls, rate in self._rates:
            if method == "POST" and calls.search(path) and owner is not None:
                self._spend(rate, owner, answer)
        scope.setdefault("state", {}).update(owner=owner, request_id=answer.id)
        body.check_length(headers.get("content-length", ""))
        await self.app(scope, body.receive, answer.send)

    def _check_host(self, headers: Headers) -> None:
        given = headers.getlist("host")
        name = re.sub(r":\d*$", "", given[0]).lower() if len(given) == 1 else ""
        if name in self._hosts or name.endswith(".localhost") or _is_address(name):
            return
        message = f"This server does not answer to the name {errors.shown(name)}: start it with --allow-host and that name."
        raise ApiError(403, message, code="host_not_allowed")

    def _spend(self, rate: RateLimit, owner: str, answer: "_Answer") -> None:
        granted, headers, wait = rate.take(owner)
        answer.extra |= headers
        if not granted:
            self._metrics.count("rate_limited")
            message = f"Rate limit reached for requests: {rate.most} a minute. Please try again later."
            raise errors.rate_limited(message, wait)

    def _most(self, path: str) -> tuple[int, ApiError]:
        """The bytes that a body may have, and what is said when it has more."""
        limits = self._config.limits
        if _SENDS_PICTURES.search(path):
            message = "Uploaded image must be a PNG and less than 4 MB."
            return 2 * limits.image_bytes + _FORM_ROOM, ApiError(400, message, param="image")
        most = limits.upload_bytes if path == "/api/images" else limits.json_bytes
        if path == "/knn-service":  # a picture in base64 may be in it
            most += 4 * limits.upload_bytes // 3
        return most, ApiError(413, f"The request's body is too large: expected at most {most} bytes.")

    def _told(self, scope: Scope, answer: "_Answer") -> None:
        """Counts and logs, without a word of what the caller sent."""
        route = getattr(scope.get("route"), "path", "other")
        seconds = time.monotonic() - answer.since
        self._metrics.request(scope["method"], route, answer.status, seconds)
        log.info("%s %s %s %d %.0f ms", answer.id, scope["method"], route, answer.status, 1000 * seconds)


class _Body:
    """The way in: the request's body, counted and timed, and after it whether the client leaves."""

    def __init__(self, receive: Receive, most: int, refusal: ApiError, seconds: float):
        self._receive, self._most, self._refusal = receive, most, refusal
        self._ends = time.monotonic() + seconds
        self._got, self._whole = 0, False

    def check_length(self, declared: str) -> None:
        """ApiError when the header `content-length` already says too much."""
        if declared.isdecimal() and (len(declared) > 15 or int(declared) > self._most):
            raise self._refusal

    async def receive(self) -> Message:
        """The next message; ApiError when the body is too large or too slow."""
        if self._whole:  # what is left to come is that the client leaves, whenever that is
            return await self._receive()
        try:
            async with asyncio.timeout(self._left):
                message = await self._next()
        except TimeoutError:
            raise ApiError(408, "The request's body did not arrive in time.") from None
        if self._got > self._most:
            raise self._refusal
        return message

    async def drain(self) -> None:
        """Reads and drops what is still coming: an answer that overtakes the body may be lost with the connection."""
        most = self._got + _DRAINED
        try:
            async with asyncio.timeout(min(_DRAIN_SECONDS, self._left)):
                while not self._whole and self._got < most:
                    await self._next()
        except TimeoutError:
            return

    @property
    def _left(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    async def _next(self) -> Message:
        message = await self._receive()
        self._got += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)  # also when the client has left
        return message


class _Answer:
    """The way out: adds the headers, remembers the status and whether anything was sent."""

    def __init__(self, scope: Scope, send: Send, body: _Body):
        self.id = f"req_{secrets.token_hex(16)}"
        self.since = time.monotonic()
        self.status = _LEFT
        self.extra: dict[str, str] = {}
        self._scope, self._send, self._body = scope, send, body

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._body.drain()
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            own_file = self._scope["path"] == "/" or self._scope["path"].startswith("/page/")
            fixed = {**_HEADERS, "cache-control": "no-cache" if own_file else "no-store", "x-request-id": self.id}
            if self._scope["path"].startswith(("/v1/", "/openai/")):
                passed = time.monotonic() - self.since
                fixed |= {"openai-version": "2020-10-01", "openai-processing-ms": str(round(1000 * passed))}
            for name, value in {**fixed, **self.extra}.items():
                headers.setdefault(name, value)
            message = {**message, "headers": headers.raw}
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        """Sends the error if nothing was sent yet."""
        if self.status == _LEFT:
            await error.response()(self._scope, self._body.receive, self.send)


async def _preflight(headers: Headers, answer: _Answer) -> None:
    """Tells a browser that an allowed origin's page may send what the clients send."""
    asked = [name.strip() for name in headers.get("access-control-request-headers", "").lower().split(",")]
    allowed = ", ".join(name for name in asked if _CORS_HEADER.fullmatch(name))
    told = {
        "access-control-allow-methods": "GET, POST, PATCH, DELETE",
        "access-control-allow-headers": allowed,
        "access-control-max-age": "600",
    }
    raw = [(name.encode(), value.encode()) for name, value in told.items()]
    await answer.send({"type": "http.response.start", "status": 204, "headers": raw})
    await answer.send({"type": "http.response.body", "body": b""})


def _check_origin(headers: Headers) -> None:
    """Refuses what a page of another origin sends; programs that are no browsers say nothing of an origin."""
    origin = headers.get("origin")
    own = origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()
    if not own or (origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site")):
        raise ApiError(403, "Pages of other origins may not call this server.", code="origin_not_allowed")


def _key(headers: Headers) -> str | None:
    """The key that a request carries: as a bearer, in Azure's header, or as the password in a url: `http://any:KEY@host`.

    The last is all that a client without a parameter for keys can do, as clip-retrieval's.
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(key, validate=True).decode("latin-1").partition(":")[2] or None
    return key.strip() if scheme.lower() == "bearer" and key.strip() else headers.get("api-key")


def _is_address(name: str) -> bool:
    """Whether a Host is an IP address, which no name server can point elsewhere."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _duration(seconds: float) -> str:
    """Seconds as OpenAI's headers write them: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(1000 * seconds)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.3g}s"


def _log_fault(id: str, error: Exception) -> None:
    """Where it happened and of what kind, without its message, in which a prompt or a key could stand."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames[-12:]))
    log.error("%s %s at %s", id, type(error).__name__, places)
