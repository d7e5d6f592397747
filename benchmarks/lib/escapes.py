"""Paths that lead out of the server's folders, and requests that would have it call somebody (test 14)."""

import asyncio
import os
import re
import site
import sys
from pathlib import Path
from urllib.parse import quote

from lib.bench import GENERATIONS, Bench, Row, asked, call
from lib.served import Served
from lib.wire import Connection, form

import unclip

_SECRET = "what-nobody-may-read"
_DOORS = ("/page/", "/pictures/", "/api/images/", "/api/jobs/", "/v1/models/", "/")
_OUT = (
    "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "..\\", "....//", "..;/", "%252e%252e%252f", "..%c0%af", "%00/../",
    "./../", "/..//",
)  # fmt: skip
_WHOLE = (
    "/etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "C:%5cWindows%5cwin.ini", "NUL", "con.js", "main.js%00.png",
    "a%00b",
)  # fmt: skip


async def escapes(bench: Bench) -> list[Row]:
    """Everything that is opened, and every connection made, by a server and its workers, is recorded by the interpreter."""
    record, secret = bench.folder / "record", bench.folder / "secret.txt"
    secret.write_text(_SECRET)
    through = [sys.executable, str(Path(__file__).with_name("audited.py")), str(record), "serve"]
    called = 0

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal called
        called += 1
        writer.close()

    stranger = await asyncio.start_server(count, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{stranger.sockets[0].getsockname()[1]}/x.png"
    async with bench.served(through=through) as server:
        link = server.data / "images" / "AA" / f"{'A' * 22}.png"
        link.parent.mkdir()
        link.symlink_to(secret)
        await server.ask("POST", GENERATIONS, call())  # what is loaded with the first request is loaded
        begun = record.stat().st_size
        tried, told = await _climb(server, secret, link)
        tried += await _lure(server, url)
        await server.ask("POST", GENERATIONS, call())
    stranger.close()
    lines = record.read_bytes()[begun:].decode("utf-8", "replace").splitlines()
    opened = [line for line in lines if line.startswith("open ") and not _own(line[5:], bench.folder)]
    connected = [line for line in lines if line.startswith("connect ")]
    return [
        Row("14", f"of {tried} requests, answered with a file from outside", 0, told),
        Row("14", f"files opened outside the server's own {' '.join(sorted(set(opened))[:3])}".rstrip(), 0, len(opened)),
        Row("14", f"connections made {' '.join(sorted(set(connected))[:3])}".rstrip(), 0, len(connected) + called),
    ]


async def _climb(server: Served, secret: Path, link: Path) -> tuple[int, int]:
    """How many paths were tried, and how many answers had what they must not have."""
    out = os.path.relpath(secret, Path(unclip.__file__).parent / "server" / "page")
    depth = out.count("../")
    targets = [step * deep + name for step in _OUT for deep in (1, depth, 12) for name in ("etc/passwd", "secret.txt")]
    targets += [quote(path, safe=safe) for path in (str(secret), out) for safe in ("/", "")]
    targets += [*_WHOLE, link.stem, link.name]
    told = 0
    paths = [door + target for door in _DOORS for target in targets]
    paths += [f"/api/images/{target}/thumb" for target in targets]
    async with await Connection.to(server.port) as connection:
        for path in paths:
            answer = await connection.ask("GET", path)
            told += _SECRET.encode() in answer.body or b"root:" in answer.body
    return len(paths), told


async def _lure(server: Served, url: str) -> int:
    """Asks in every way for something that lies elsewhere."""
    bodies = [call(model=where) for where in (url, "../../etc", "/etc", "somebody/something", "hf://somebody/something")]
    answers = [await server.ask("POST", GENERATIONS, body) for body in bodies]
    answers.append(await server.ask("POST", "/v1/images/edits", {"prompt": "x", "images": [{"image_url": url}]}))
    for name in ("image", "mask", "image_url"):
        body, kind = form({}, {"prompt": "x", name: url})
        answers.append(await server.ask("POST", "/v1/images/edits", body, kind))
    svg = f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{url}'/></svg>".encode()
    answers.append(await server.ask("POST", "/api/images", svg))
    for given in (url, "../../../etc/passwd", "/etc/passwd"):
        answers.append(await server.ask("POST", "/api/jobs", {"task": "variations", "images": [given]}))
        answers.append(await server.ask("POST", "/api/jobs", {**asked(), "model": given}))
    assert all(400 <= answer.status < 500 for answer in answers), [answer.status for answer in answers]
    return len(answers)


def _own(what: str, folder: Path) -> bool:
    """Whether an opened thing is the server's: its data, its page, Python's own files. A number is a descriptor."""
    found = re.match(r"b?['\"](.*)['\"]$", what)
    if found is None:
        return True
    path = os.path.realpath(found[1])
    data = [str(one) for one in folder.glob("data-*")]
    python = [sys.prefix, sys.base_prefix, *site.getsitepackages()]
    roots = [*data, *python, str(Path(unclip.__file__).parent)]
    return any(path.startswith(os.path.realpath(root) + os.sep) for root in roots)
