"""Requests that no client would send, over raw sockets, to the command as people run it: forms above all.

Whatever comes, the answer is one of ours or the connection ends, and what the server's process spends on it is bounded: of
processor time, not of the clock, and of memory at its peak. UNCLIP_FUZZ_CASES is how many forms are made up.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live_server import png
from raw_http import Reply, ask, head
from served import Served, served

CASES = int(os.environ.get("UNCLIP_FUZZ_CASES", "400"))
SECONDS, BYTES = 0.1, 50 << 20  # that a bad request may cost
FOUR = {"message", "type", "param", "code"}
MEGABYTE = 1 << 20


class Process(Served):
    """What it has spent, and what a request may cost it."""

    @property
    def spent(self) -> float:
        """Seconds of processor time."""
        return time.clock_gettime((~self.pid << 3) | 2)  # another process's clock, as clock_getcpuclockid(3) makes it

    def bears(self, raw: bytes, *, end: bool = False) -> Reply:
        """Sends `raw`, judges the answer and what a bad request costs: if that is much, the least of three tries."""
        costs = []
        for _ in range(3):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak begins anew
            spent, size = self.spent, self.status("VmRSS")
            reply = ask(self.url, raw, end=end)
            costs.append(self.spent - spent)
            assert self.status("VmHWM") - size < BYTES
            if reply.status < 400:
                assert reply.status in (0, 200)
            else:
                assert 400 <= reply.status < 500, reply
                assert set(reply.error) == FOUR
            if reply.status == 200 or min(costs) < SECONDS:
                return reply
        raise AssertionError(f"it costs {min(costs):.3f} s")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Process]:
    limits = ["limits.requests_per_minute=1000000", "limits.head_seconds=0.5", "limits.body_seconds=2"]
    with served(tmp_path_factory.mktemp("server"), "queue=100000", *limits) as running:
        process = Process(running.url, running.pid)
        legal = framed(LEGAL + END)
        assert process.bears(legal).status == 200  # and warm
        yield process
        assert process.bears(legal).status == 200


# --- made up

SMALL, END = png(hole=True), b"--x--\r\n"
CUT = SMALL[: len(SMALL) // 2]


def part(name: str, value: bytes, file: str | None = None, *more: bytes) -> bytes:
    """A part between boundaries `x`; as a file if it has a name."""
    named = f'form-data; name="{name}"' + ("" if file is None else f'; filename="{file}"')
    return b"\r\n".join([b"--x", b"Content-Disposition: " + named.encode(), *more, b"", value, b""])


def framed(body: bytes, *lines: str, path: str = "/v1/images/edits", kind: str = "multipart/form-data; boundary=x") -> bytes:
    lines = lines or (f"Content-Length: {len(body)}",)
    return head("POST", path, "Connection: close", f"Content-Type: {kind}", *lines) + body


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


LEGAL = part("image", SMALL, "a") + part("prompt", b"a") + part("size", b"256x256")
names = st.sampled_from(
    [
        "image",
        "image[]",
        "mask",
        "prompt",
        "n",
        "size",
        "user",
        "model",
        "a",
        "",
        "\0",
        "é\u202e",
        "i" * 5000,
        'a"b',
        "../../a",
    ]
)
values = st.one_of(
    st.sampled_from(
        [SMALL, CUT, SMALL[:8], png(), b"", b"a cat", b"256x256", b"-1", b"\xff\0\r\n", b"0" * 40_000, bytes(MEGABYTE)]
    ),
    st.binary(max_size=64),
    st.just(framed(part("image", SMALL, "a") + END)),  # a whole request, with the same boundary in it
)
oddities = st.sampled_from(
    [
        b"Content-Type: image/png",
        b"Content-Type: multipart/mixed; boundary=y",
        b"Content-Transfer-Encoding: base64",
        b"Content-Disposition: attachment",
        b"X: " + b"x" * 10_000,
        b"no colon",
        b": no name",
        b"\0: \xff",
        b"a: b\r\n" * 20,
    ]
)
parts = st.builds(
    lambda name, value, file, more: part(name, value, file, *more),
    names,
    values,
    st.none() | st.sampled_from(["a.png", "", "\0", "../../etc/passwd", "f" * 3000]),
    st.lists(oddities, max_size=2),
)
kinds = st.sampled_from(
    [
        *["multipart/form-data; boundary=x"] * 8,
        'multipart/form-data; boundary="x"',
        "multipart/form-data; boundary=x; boundary=y",
        "multipart/form-data; boundary=" + "x" * 300,
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\xff",
        "multipart/form-data",
        "multipart/form-data; charset=utf-16; boundary=x",
        "multipart/form-data; charset=base64; boundary=x",
        "multipart/form-data; charset=\xe9; boundary=x",
        "multipart/mixed; boundary=x",
        "application/x-www-form-urlencoded",
    ]
)


paths = st.sampled_from(["/v1/images/edits", "/v1/images/variations", "/api/images"])
framings = st.sampled_from(["right", "right", "right", "chunks", "short", "long", "twice", "none", "wrong"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    body = draw(st.sampled_from([b"", b"\r\n", b"preamble", b"-" * 100_000])) if draw(st.integers(0, 9)) == 0 else b""
    body += LEGAL if draw(st.booleans()) else b""
    body += b"".join(draw(st.lists(parts, max_size=5))) * draw(st.sampled_from([*[1] * 20, 2, 20]))
    body += draw(st.sampled_from([END, END, END, b"", b"--x", b"--x--", b"--y--\r\n", END + bytes(1000), END + END]))
    where = draw(st.integers(0, len(body)))
    match draw(st.sampled_from(["whole", "whole", "whole", "cut", "gap", "insert", "flip"])):
        case "cut":
            return body[:where]
        case "gap":
            return body[:where] + body[where + draw(st.integers(1, 100)) :]
        case "insert":
            return body[:where] + draw(st.binary(min_size=1, max_size=20)) + body[where:]
        case "flip" if body:
            return body[: where - 1] + bytes([draw(st.integers(0, 255))]) + body[where:]
    return body


def test_no_form_that_can_be_made_up_hurts(server):
    told = set()

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(bodies(), kinds, paths, framings, st.integers(1, 5000))
    def send(body, kind, path, framing, size):
        length = len(body)
        lines = {
            "chunks": ("Transfer-Encoding: chunked",),
            "short": (f"Content-Length: {max(0, length - size)}",),
            "long": (f"Content-Length: {length + size}",),
            "twice": (f"Content-Length: {length}", f"Content-Length: {size}"),
            "none": ("X: y",),
            "wrong": ("Content-Length: " + ["-1", "1e3", "", "\xb2", "9" * 30][size % 5],),
        }.get(framing, (f"Content-Length: {length}",))
        sent = chunked(body, size) if framing == "chunks" else body
        reply = server.bears(framed(b"", *lines, path=path, kind=kind) + sent, end=framing == "long")
        told.add(reply.error["message"] if reply.status >= 400 else reply.status)

    send()
    assert {0, 200} <= told
    assert len(told) > 12  # it got past the first check


# --- the worst

BEGUN = part("image", b"", "a")[:-2]
LARGE = 8 * MEGABYTE
WORST = {
    "10,000 parts": part("a", b"b") * 10_000 + END,
    "10,000 files": part("image[]", b"", "a") * 10_000 + END,
    "10,000 of one name": part("image", SMALL, "a") * 10_000 + END,
    "a header of megabytes": b"--x\r\nContent-Disposition: " + b"a" * LARGE,
    "a million headers": b"--x\r\n" + b"a:b\r\n" * (LARGE // 5),
    "a thousand options": b"--x\r\nContent-Disposition: form-data; " + b"a=b;" * 1000 + b"\r\n\r\n\r\n" + END,
    "a field of megabytes": part("prompt", bytes(LARGE)) + END,
    "a file of zeros": BEGUN + bytes(LARGE) + b"\r\n" + END,
    "boundaries that almost are": BEGUN + b"\r\n--" * (LARGE // 4) + END,
    "line ends": BEGUN + b"\r" * LARGE + END,
    "a preamble of megabytes": b"-" * LARGE,
    "an epilogue of megabytes": BEGUN + b"\r\n" + END + bytes(LARGE),
    "more than may be": BEGUN + bytes(2 * LARGE) + END,
}


@pytest.mark.parametrize("name", WORST)
def test_a_form_at_its_worst_costs_no_more_than_may_be(server, name):
    assert server.bears(framed(WORST[name])).status == 400
    if len(WORST[name]) <= LARGE + 1000:
        assert server.bears(framed(chunked(WORST[name], 1 << 16), "Transfer-Encoding: chunked")).status in (0, 400)


@pytest.mark.parametrize("size", [1, 16, 256])
def test_a_body_in_crumbs_is_refused_before_it_costs(server, size):
    raw = framed(chunked(BEGUN + bytes(MEGABYTE) + END, size), "Transfer-Encoding: chunked")
    assert server.bears(raw).status in (0, 400)
    few = framed(chunked(part("image", CUT, "a") + part("prompt", b"a") + END, size), "Transfer-Encoding: chunked")
    assert "damaged" in server.bears(few).error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"n":' + b"1" * 60_000 + b"}",
        b'{"seed": 1e999}',
        b'{"prompt":"\\ud800"}',
        b"\xff\0",
    ],
    ids=["lists", "objects", "digits", "infinity", "half a letter", "bytes"],
)
@pytest.mark.parametrize("path", ["/v1/images/generations", "/api/jobs", "/api/collections"])
def test_json_at_its_worst(server, body, path):
    assert server.bears(framed(body, path=path, kind="application/json")).status == 400


@pytest.mark.parametrize(
    ("raw", "statuses"),
    [
        (b"\0\1\2\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\n\r\n", {400}),
        (b"GET /\r\n\r\n", {400}),
        (b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
        (head("GET", "/", "Host: localhost"), {400}),
        (head("GET", "/" + "a" * 100_000), {0, 400}),
        (head("GET", "/?" + "a&" * 100_000), {0, 400}),
        (head("GET", "/nowhere", "a: b", *["a: b"] * 100_000), {0, 400}),
        (head("GET", "/nowhere", "Cookie: " + "\xff" * 1000, "Connection: close"), {404}),
        (head("CONNECT", "evil.example:80", "Connection: close"), {404}),
        (head("GET", "http://evil.example/v1/models", "Connection: close"), {404}),
        (head("BREW", "/v1/models", "Connection: close"), {405}),
        (head("GET", "/nowhere", "Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Key: a"), {404}),
        (head("PRI", "*", "Connection: close").replace(b"HTTP/1.1", b"HTTP/2.0"), {400, 404}),
        (head("POST", "/api/jobs", "Transfer-Encoding: chunked", "Content-Type: application/json") + b"zz\r\n", {0, 400}),
        (head("POST", "/api/jobs", "Transfer-Encoding: gzip"), {0, 400}),
    ],
)
def test_what_is_hardly_http_is_told_so_in_four_keys(server, raw, statuses):
    assert server.bears(raw).status in statuses
