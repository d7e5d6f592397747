"""Who is let in, and what a browser can be made to do: keys and others' pictures (test 13), pages of others (test 15)."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute
from lib.bench import GENERATIONS, Bench, Row, asked, call, quantile
from lib.served import Served
from lib.wire import Answer, Connection, form

import unclip.server
from unclip.server.app import make_app
from unclip.server.config import ServerConfig
from unclip.server.engine import Engine
from unclip.server.store import Store

KEYS = ("a-key-of-somebody", "a-key-of-another")
# Without a key, besides the page's files; pictures' urls are signed.
OPEN = {"/", "/healthz", "/readyz", "/api/config", "/pictures/{name}", "/pictures/found/{index}/{edition}/{name}"}
ALIKE = 10  # per cent by which the medians of two times may differ
_TIMES = 400


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _routes(folder: Path) -> list[tuple[str, str]]:
    """Every method and path of the app, also of those that no document lists."""

    def leaves(routes: Any) -> Iterator[APIRoute]:
        for route in routes:
            if isinstance(route, APIRoute):
                yield route
            else:
                yield from leaves(getattr(getattr(route, "original_router", None), "routes", ()))

    config = ServerConfig(model="stub", data=folder, azure=True)
    store = Store(folder)
    app = make_app(config, store, Engine(config, store))
    store.close()
    return sorted({(method, route.path) for route in leaves(app.routes) for method in route.methods or ()})


async def keys(bench: Bench) -> list[Row]:
    """Every route with no key, a bad one and the right one; another's picture; how long a refusal takes."""
    routes = _routes(bench.folder / "routes")
    opened, refused = [], []
    async with bench.served("azure=true", *(f"--api-key={key}" for key in KEYS)) as server:
        for method, path in routes:
            real = re.sub(r"\{[^}]*\}", "x", path)
            without = [await server.ask(method, real, headers=headers) for headers in ({}, _bearer("a-key-of-nobody"))]
            opened += [path] * (path not in OPEN and any(answer.status != 401 for answer in without))
            refused += [path] * ((await server.ask(method, real, headers=_bearer(KEYS[0]))).status == 401)
        foreign, strange = await _others(server)
        times = await _refusals(server, bench.times(_TIMES, 40), foreign)
    open_ones, closed = (" ".join(paths) for paths in (opened, refused))
    rows = [
        Row("13", f"of {len(routes)} routes, open without a key {open_ones}".rstrip(), 0, len(opened)),
        Row("13", f"closed to the right key {closed}".rstrip(), 0, len(refused)),
        Row("13", "answers for another's picture or job that differ from those for none", 0, strange),
    ]
    for name, (one, other) in times.items():
        apart = 100 * abs(quantile(one, 0.5) / quantile(other, 0.5) - 1)
        rows.append(Row("13", f"{name}, {1000 * quantile(one, 0.5):.2f} ms: medians of {len(one)} apart", ALIKE, apart, "%"))
    return rows


async def _others(server: Served) -> tuple[str, int]:
    """A picture of the first key's, and how many answers tell the second that it or its job is there."""
    id = (await server.ask("POST", "/api/jobs", asked(), _bearer(KEYS[0]))).json()["id"]
    while not (job := (await server.ask("GET", f"/api/jobs/{id}", None, _bearer(KEYS[0]))).json())["images"][0]:
        await asyncio.sleep(0.01)
    image, differ = job["images"][0], 0
    ways = [("GET", "/api/images/{}"), ("GET", "/api/images/{}/thumb"), ("GET", "/api/images/{}/info")]
    ways += [("GET", "/api/jobs/{}"), ("GET", "/api/jobs/{}/events"), ("POST", "/api/jobs/{}/cancel")]
    ways += [("DELETE", "/api/images/{}"), ("DELETE", "/api/jobs/{}")]
    for method, path in ways:
        theirs, none = [
            await server.ask(method, path.format(given), None, _bearer(KEYS[1]))
            for given in (id if "jobs" in path else image, "A" * 22)
        ]
        differ += (theirs.status, theirs.body) != (none.status, none.body) or theirs.status != 404
    return image, differ


async def _refusals(server: Served, count: int, foreign: str) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of refusals that must not be told apart, by turns."""
    wrong = KEYS[0][:-1] + "!"
    pairs = {
        "a key that is nearly right against none like it": [("/api/jobs", wrong), ("/api/jobs", "x" * len(wrong))],
        "401 where there is something against nothing": [("/api/jobs", wrong), ("/api/nothing", wrong)],
        "404 of another's picture against none": [(f"/api/images/{foreign}", KEYS[1]), (f"/api/images/{'A' * 22}", KEYS[1])],
    }
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pairs}
    async with await Connection.to(server.port) as connection:
        for turn in range(count):
            for name, ways in pairs.items():
                each = list(zip(times[name], ways, strict=True))
                for taken, (path, key) in each[:: 1 - 2 * (turn % 2)]:  # whoever comes second finds things warm
                    taken.append((await connection.ask("GET", path, None, _bearer(key))).seconds)
    return times


# --- browsers

_EVIL = "https://evil.example"
_SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"
_SCRIPTED = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>|\son[a-z]+\s*=|javascript:|<style|\sstyle=", re.I)
_UNSAFE = re.compile(r"\.(innerHTML|outerHTML)\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function\(")
_FRAMED = ("content-security-policy", "x-frame-options", "x-content-type-options")


async def browsers(bench: Bench) -> list[Row]:
    """Another site's page changes nothing, frames nothing and is not answered by another name; words stay words."""
    async with bench.served() as server:
        forged = [answer.status != 403 for answer in await _forged(server)]
        spoofed = [(await server.ask("GET", "/api/jobs", None, {"host": host})).status != 403 for host in _HOSTS]
        jobs = (await server.ask("GET", "/api/jobs")).json()["jobs"]
        painted = await _painted_by_a_script(server)
        paths = ("/", "/nothing", "/api/config", "/page/main.js", "/pictures/x")
        answers = [await server.ask("GET", path) for path in paths]
        bare = [answer for answer in answers + painted if not _guarded(answer)]
        index = answers[0].body
    run = [answer for answer in painted if re.search("html|svg|script", answer.headers["content-type"])]
    page = Path(unclip.server.__file__).parent / "page"
    unsafe = [path.name for path in page.rglob("*.js") if _UNSAFE.search(path.read_text("utf-8"))]
    return [
        Row("15", f"of {len(forged)} requests forged by another site's page, let in", 0, sum(forged) + len(jobs)),
        Row("15", f"of {len(spoofed)} strange names of the host, answered", 0, sum(spoofed)),
        Row("15", f"of {len(answers + painted)} answers, without a strict policy or to be framed or sniffed", 0, len(bare)),
        Row("15", "answers that give a prompt or a file's name back as something that runs", 0, len(run)),
        Row("15", f"inline scripts and styles in the page; unsafe calls in its code {' '.join(unsafe)}".rstrip(), 0,
            len(_SCRIPTED.findall(index)) + len(unsafe)),
    ]  # fmt: skip


_HOSTS = (
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:80", "", "x@localhost",
    "localhost:80:80",
)  # fmt: skip


async def _forged(server: Served) -> list[Answer]:
    """What forms and scripts of other sites can send without asking the browser's leave."""
    body, kind = form({"image": ("x.png", b"x")}, {"size": "256x256"})
    text = {"content-type": "text/plain"}
    sent: list[tuple[str, Any, dict[str, str]]] = [
        ("/v1/images/variations", body, kind), (GENERATIONS, call(), {}), (GENERATIONS, b'{"prompt": "x"}', text),
        ("/api/jobs", asked(), {}), ("/api/jobs", b'{"task": "generate"}', text), ("/api/images", b"x", text),
        ("/api/collections", {"name": "x"}, {}),
    ]  # fmt: skip
    ways = [{"origin": _EVIL}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"origin": "http://127.0.0.1:1"}]
    return [await server.ask("POST", path, content, {**headers, **way}) for path, content, headers in sent for way in ways]


async def _painted_by_a_script(server: Served) -> list[Answer]:
    """Every answer that repeats something of a stranger's: prompts, names of files, of collections, of models."""
    told = (call(prompt=_SCRIPT), call(model=_SCRIPT), call(size=_SCRIPT))
    answers = [await server.ask("POST", GENERATIONS, body) for body in told]
    body, kind = form({"image": (_SCRIPT.replace('"', ""), b"x")}, {"size": "256x256"})
    answers.append(await server.ask("POST", "/v1/images/variations", body, kind))
    answers.append(await server.ask("POST", "/api/collections", {"name": _SCRIPT}))
    listed = await server.ask("GET", "/api/jobs")
    image = listed.json()["jobs"][0]["images"][0]
    paths = [f"/api/images/{image}", f"/api/images/{image}/info", "/api/collections", "/v1/models/%3Cscript%3E"]
    return [*answers, listed, *[await server.ask("GET", path) for path in paths]]


def _guarded(answer: Answer) -> bool:
    policy = answer.headers.get("content-security-policy", "")
    strict = "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    return strict and all(name in answer.headers for name in _FRAMED)
