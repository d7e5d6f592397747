"""Who wants more than pictures: files, other machines, a script in somebody's browser, a guess at a key."""

import hmac
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_server import Live, live, png
from raw_http import ask, head

import unclip
from unclip.server.app import PAGE
from unclip.server.store import Store
from unclip.server.uploads import chunk

KEYS = ["sk-first-of-two", "sk-second-of-two"]
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with live(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    with live(tmp_path_factory.mktemp("locked"), keys=KEYS) as running:
        yield running


class Watch:
    """What all threads but the test's own open and connect to while it is on. The interpreter keeps its hook for ever."""

    def __init__(self) -> None:
        self.on, self.seen, self._own = False, [], threading.get_ident()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.on and event in ("open", "socket.connect", "socket.getaddrinfo") and threading.get_ident() != self._own:
            self.seen.append((event, str(arguments[1 if event == "socket.connect" else 0])))

    @contextmanager
    def watching(self) -> Iterator[list[tuple[str, str]]]:
        self.seen, self.on = [], True
        try:
            yield self.seen
        finally:
            self.on = False


@pytest.fixture(scope="module")
def watch():
    return Watch()


def opened(seen: list[tuple[str, str]]) -> set[Path]:
    return {Path(name).resolve() for event, name in seen if event == "open"}


# --- files

DOTS = ("..", "%2e%2e", "%2E.", "..%2f..", "..%5c..", "%2e%2e%5c", "....//", "..;", "%252e%252e", "%c0%ae%c0%ae", "%uff0e.")
NAMES = ("etc/passwd", "secret", "unclip.db", "config.py")
WHOLE = (
    "//etc/passwd", "/%2fetc%2fpasswd", "/etc/passwd%00.png", "/C:%5cWindows%5cwin.ini", "/%5c%5chost%5cshare",
    "/file:%2f%2f%2fetc%2fpasswd",
    "/dev/zero", "/%2fdev%2fzero", "/CON", "/nul.png", "/.", "/%00", "/~root", "/proc/self/environ",
)  # fmt: skip


def test_no_path_reads_outside_the_page_and_the_pictures(server, watch):
    planted = server.store.data / "images" / "aa" / f"{'a' * 22}.png"
    planted.parent.mkdir(exist_ok=True)
    planted.symlink_to("/etc/passwd")
    paths = [f"/{dots}/{name}" for dots in DOTS for name in NAMES] + [f"/../../../..{path}" for path in WHOLE] + list(WHOLE)
    paths += [f"/{'a' * 22}", f"/{'a' * 22}.png", f"/{'a' * 22}/thumb"]
    style = head("GET", "/page/style.css", "Connection: close")
    assert ask(server.url, style).status == 200  # and the system's list of types has been read
    with watch.watching() as seen:
        for base in ("", "/page", "/pictures", "/api/images", "/api/jobs", "/v1/models", "/api/collections"):
            for path in paths:
                reply = ask(server.url, head("GET", base + path, "Connection: close"))
                assert reply.status in (400, 403, 404, 405), (base + path, reply)
                assert b"root:" not in reply.body
                assert not reply.body or set(reply.error) == {"message", "type", "param", "code"}
        assert ask(server.url, style).status == 200
    assert PAGE / "style.css" in opened(seen)  # the watch sees what is read
    roots = (PAGE, server.store.data.resolve(), Path(unclip.__file__).parent, Path(sys.prefix), Path(sys.base_prefix))
    outside = {path for path in opened(seen) if not any(path.is_relative_to(root) for root in roots)}
    assert outside == set()
    assert server.store.data / "secret" not in opened(seen)


# --- other machines


def test_nothing_that_is_asked_for_makes_the_server_call_another(server: Live, watch):
    urls = (
        "http://169.254.169.254/latest/",
        "https://localhost:1/x.png",
        "file:///etc/passwd",
        "gopher://127.0.0.1:22/",
        "//a/b",
    )
    with watch.watching() as seen:
        for url in urls:
            for body in ({"images": [{"image_url": url}]}, {"image": url}, {"image_url": url, "prompt": "a"}):
                assert server.post("/v1/images/edits", {"prompt": "a", **body}).status_code == 400
            named = {"prompt": (None, "a"), "image": (None, url)}
            assert server.http.post("/v1/images/edits", files=named).status_code == 400
            assert server.form("edits", png(hole=True), prompt="a", image_url=url).status_code == 400
            assert server.paint(model=url).status_code == 404
            assert server.post("/api/jobs", {"task": "generate", "prompt": "a", "model": url}).status_code == 404
            assert server.post("/api/jobs", {"task": "variations", "images": [url]}).status_code in (400, 404)
            assert server.http.post("/api/images", content=url.encode()).status_code == 400
            assert server.http.get(f"/v1/models/{url}").status_code == 404
        assert server.paint(prompt=f"see {urls[0]}").status_code == 200
    assert [told for told in seen if told[0] != "open"] == []
    assert Path("/etc/passwd") not in opened(seen)


def test_no_header_changes_where_urls_point(server):
    headers = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "forwarded": "host=evil.example"}
    answer = server.http.post("/v1/images/generations", json={"prompt": "a", "size": "256x256"}, headers=headers)
    assert answer.json()["data"][0]["url"].startswith(server.url)


# --- scripts


def test_a_script_is_only_ever_text(server):
    """In a prompt, a name, a path, a picture's metadata: what comes back is of a type that no browser runs."""
    job = server.post("/api/jobs", {"task": "generate", "prompt": SCRIPT, "n": 1, "size": 256, "steps": 1}).json()["id"]
    with server.http.stream("GET", f"/api/jobs/{job}/events") as told:
        told.read()
    image = server.http.get(f"/api/jobs/{job}").json()["images"][0]
    made = server.post("/api/collections", {"name": SCRIPT}).json()
    plain = png()
    marked = plain[:33] + chunk(b"tEXt", b"Comment\0" + SCRIPT.encode()) + plain[33:] + SCRIPT.encode()
    upload = server.http.post("/api/images", content=marked).json()["id"]
    assert SCRIPT.encode() not in server.http.get(f"/api/images/{upload}").content
    paths = ["/api/jobs", f"/api/jobs/{job}", f"/api/jobs/{job}/events", "/api/collections", f"/api/images/{image}"]
    paths += [
        f"/api/images/{image}/info",
        f"/api/images/{upload}",
        f"/api/collections/{SCRIPT}",
        f"/{SCRIPT}",
        f"/?{SCRIPT}",
    ]
    held = 0
    for path in paths:
        answer = server.http.get(path)
        held += SCRIPT.encode() in answer.content or json.dumps(SCRIPT).encode() in answer.content
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in ("application/json", "text/event-stream", "image/png") or (
            path.startswith("/?") and kind == "text/html"
        )
        assert kind != "text/html" or SCRIPT.encode() not in answer.content
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert held >= 3
    assert made["name"] == SCRIPT
    files = {"image": (f"{SCRIPT}.png", marked, "text/html")}
    answer = server.http.post("/v1/images/variations", files=files, data={"size": "256x256"})
    assert SCRIPT not in answer.text + json.dumps(dict(answer.headers))


def test_the_page_never_turns_text_into_elements():
    sources = {path: path.read_text(encoding="utf-8") for path in PAGE.rglob("*.js")}
    assert len(sources) > 5
    dangerous = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|javascript:"
    )
    assert {path.name: found for path, text in sources.items() if (found := dangerous.findall(text))} == {}


# --- guesses


def test_every_key_is_compared_whatever_was_given(locked, monkeypatch):
    """So the time of a refusal tells nothing: of how much of a key was right, or of which routes there are."""
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(len(a)) or compare(a, b))
    work = {}
    for key in (KEYS[0], KEYS[1], KEYS[0][:-1], "x", "x" * 4000):
        for path in ("/v1/models", "/api/images/x", "/nowhere", "/metrics"):
            compared.clear()
            status = locked.http.get(path, headers={"authorization": f"Bearer {key}"}).status_code
            work[key, path] = tuple(compared)
            assert (status == 401) == (key not in KEYS)
    assert set(work.values()) == {(32, 32)}


def test_what_is_anothers_takes_the_same_looks_as_what_is_not_there(locked, monkeypatch):
    mine, other = ({"authorization": f"Bearer {key}"} for key in KEYS)
    image = locked.http.post("/api/images", content=png(), headers=mine).json()["id"]
    job = locked.post("/api/jobs", {"task": "variations", "images": [image], "n": 1, "size": 256}, headers=mine).json()["id"]
    with locked.http.stream("GET", f"/api/jobs/{job}/events", headers=mine) as stream:
        stream.read()  # to its end: after that nobody but us looks into the store
    looks = []

    def noted(name: str):
        real = getattr(Store, name)
        return lambda *given: looks.append(name) or real(*given)

    for name in ("image", "job", "path", "delete_image", "delete_job"):
        monkeypatch.setattr(Store, name, noted(name))
    for method, path in (("GET", "images/{}"), ("GET", "images/{}/thumb"), ("DELETE", "images/{}"), ("GET", "jobs/{}")):
        told = []
        for id in (image if "images" in path else job, "A" * 22):
            looks.clear()
            answer = locked.http.request(method, f"/api/{path.format(id)}", headers=other)
            told.append((answer.status_code, answer.content, tuple(looks)))
        assert told[0] == told[1]
        assert told[0][0] == 404
        assert told[0][2] == (path.partition("s/")[0],)


def test_a_signature_is_compared_as_a_whole_and_before_the_picture_is_looked_for(server, monkeypatch):
    url = server.paint().json()["data"][0]["url"].removeprefix(server.url)
    asked = []
    monkeypatch.setattr(Store, "image", lambda *a, real=Store.image: asked.append(a) or real(*a))
    signature = url.rpartition("=")[2]
    for forged in (signature[:-1], "0" * 64, "", signature.upper() + "0", "é"):
        assert server.http.get(url.replace(signature, forged)).status_code == 403
    assert asked == []
    assert server.http.get(url).status_code == 200
    assert asked != []
