"""The whole server as one ASGI app: the routes of both doors, the page's files, and the guard before them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from unclip.server import documents, errors, openai, routes
from unclip.server.config import ServerConfig
from unclip.server.jobs import JobState
from unclip.server.metrics import Metrics
from unclip.server.search import retrieval
from unclip.server.search import routes as searching
from unclip.server.search.finder import Finder
from unclip.server.security import Guard
from unclip.server.serving import Serving, Words
from unclip.server.signing import Signer, load_secret
from unclip.server.store import Store
from unclip.server.streams import Feed, Room
from unclip.server.uploads import Decoder

if TYPE_CHECKING:
    from unclip.server.engine import Engine

PAGE = Path(__file__).with_name("page")


def make_app(config: ServerConfig, store: Store, engine: "Engine") -> FastAPI:
    """The app over a store and an engine, which it starts and drains; ConfigError for a word list that cannot be read."""
    metrics = Metrics()
    signer = Signer(load_secret(store.data), config.limits.url_seconds)
    room, feed = Room(config.limits.streams), Feed(engine)
    words, finder = Words.load(config.blocked_words), Finder(config)
    own = Serving(config, store, engine, metrics, signer, Decoder(), words, room, feed, finder)
    app = FastAPI(title="unclip", lifespan=_lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.serving, app.state.started, app.state.draining = own, int(time.time()), None
    app.add_middleware(Guard, config=config, metrics=metrics)
    errors.install(app)
    for router in (
        openai.router,
        routes.router,
        searching.router,
        retrieval.router,
        *([openai.azure] if config.azure else []),
    ):
        app.include_router(router)
    _add_own(app)
    app.openapi = lambda: _document(app)
    return app


async def drain(app: FastAPI) -> None:
    """Takes no more jobs, lets the running ones finish for as long as the config grants; safe to call again."""
    if app.state.draining is None:
        app.state.draining = asyncio.ensure_future(_drain(app.state.serving))
    await asyncio.shield(app.state.draining)


async def _drain(own: Serving) -> None:
    grace = own.config.grace_seconds
    await asyncio.gather(own.engine.stop(grace), own.finder.close(grace))
    await own.feed.close()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    own: Serving = app.state.serving
    try:
        await _start(own)
    except BaseException as error:
        app.state.failure = error
        raise
    for id in (id for state in (JobState.QUEUED, JobState.RUNNING) for id in own.store.in_state(state)):
        job = own.store.job(id)
        if job is not None:
            own.feed.follow(job)
    yield
    await drain(app)
    own.decoder.close()


async def _start(own: Serving) -> None:
    """Workers and the search process get ready side by side; ConfigError for what cannot be started or opened."""
    own.finder.open()
    try:
        await own.engine.start()
        try:
            await own.finder.ready()
        except BaseException:
            await own.engine.stop()
            raise
    except BaseException:
        await own.finder.close()
        raise


def _add_own(app: FastAPI) -> None:
    """The page's files, and what whoever runs the server asks for."""

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGE / "index.html")

    @app.get("/healthz", tags=["operation"], **documents.answers(documents.Anything))
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"], **documents.answers(documents.Anything))
    async def readyz(request: Request) -> dict[str, str]:
        """Whether jobs get painted: 503 until a model is there, and from the moment that it is told to stop."""
        if request.app.state.draining is not None or not request.app.state.serving.engine.health()["ready"]:
            raise errors.overloaded()
        return {"status": "ready"}

    @app.get("/metrics", tags=["operation"], include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """Prometheus' text format."""
        own: Serving = request.app.state.serving
        search = own.finder.health() if own.config.indices else None
        return Response(own.metrics.text(own.engine.health(), search), media_type="text/plain; version=0.0.4")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version="1", routes=app.routes, openapi_version="3.1.0")
        app.openapi_schema = documents.without_validation_errors(document)
    return app.openapi_schema
