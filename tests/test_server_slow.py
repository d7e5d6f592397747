"""Clients that take their time, or all of ours: each is let go after its limit, and nobody else waits for it."""

import io
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from live_server import Live, live
from PIL import Image
from raw_http import connected, head, read, reply, rest

from unclip.server import security
from unclip.server.serving import PIECE

HEAD, SEND = 0.4, 0.5  # seconds
PACE = 0.02  # between two bytes of who drips
LATE = 5.0  # by when at the latest what ends after half a second has ended, on a machine that is busy


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    limits = {"head_seconds": HEAD, "send_seconds": SEND, "body_seconds": 0.5}
    with live(tmp_path_factory.mktemp("server"), limits=limits, stub_step_seconds=0.02) as running:
        yield running


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LATE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(client: socket.socket, drip: bytes = b"", since: float | None = None) -> float:
    """Seconds `since` then until the server hangs up, while `drip` is sent at its pace; a failure if it is all taken."""
    since = since or time.monotonic()
    for byte in drip or bytes(int(LATE / PACE)):
        readable, _, _ = select.select([client], [], [], PACE)
        if readable:
            assert rest(client) == b""
            return time.monotonic() - since
        if drip:
            client.send(bytes([byte]))
    raise AssertionError("the server took it all")


def answered_at_once(server: Live) -> None:
    since = time.perf_counter()
    assert server.http.get("/healthz").status_code == 200
    assert time.perf_counter() - since < 0.3


def test_who_says_nothing_is_let_go(server):
    since = time.monotonic()
    with connected(server.url) as client:
        answered_at_once(server)
        assert HEAD - 0.1 < ended(client, since=since) < LATE


def test_a_head_that_drips_is_not_waited_for(server):
    with connected(server.url) as client:
        assert HEAD - 0.1 < ended(client, head("GET", "/healthz", "X: " + "x" * 1000)) < LATE
    answered_at_once(server)


def test_nor_is_the_head_of_the_next_request(server):
    with connected(server.url) as client:
        client.sendall(head("GET", "/healthz"))
        assert read(client.recv(1 << 16)).status == 200
        assert ended(client, head("GET", "/healthz", "X: " + "x" * 1000)) < LATE


def test_nor_a_body_that_goes_on_after_its_answer(server, monkeypatch):
    monkeypatch.setattr(security, "_DRAIN_SECONDS", 0.1)
    with connected(server.url) as client:
        client.sendall(head("POST", "/nowhere", "Content-Length: 50000") + b"x")
        assert read(client.recv(1 << 16)).status == 404
        assert ended(client, b"x" * 10_000) < LATE


def test_a_head_in_time_is_answered_however_it_is_cut(server):
    with connected(server.url) as client:
        for byte in head("GET", "/healthz", "Connection: close"):
            client.send(bytes([byte]))
        assert reply(client).status == 200


# --- readers


def large(server: Live) -> str:
    """The path of a picture of 20 MB."""
    file = io.BytesIO()
    Image.effect_noise((4500, 4500), 100).save(file, "PNG", compress_level=0)
    assert len(file.getvalue()) > 20_000_000
    return f"/api/images/{server.store.add_image('local', file.getvalue(), 'upload')}"


def unread(server: Live) -> int:
    """Bytes that wait for their readers."""
    connections = tuple(server.server.server_state.connections)
    return sum(connection.transport.get_write_buffer_size() for connection in connections)


def waiting_for(server: Live) -> int:
    """How many connections have something that is not read."""
    return sum(one.transport.get_write_buffer_size() > 0 for one in tuple(server.server.server_state.connections))


def test_who_does_not_read_is_cut_off_and_its_answer_let_go(server):
    path = large(server)
    clients = [connected(server.url) for _ in range(3)]
    for client in clients:
        client.sendall(head("GET", path))
    until(lambda: waiting_for(server) == 3)
    assert unread(server) <= 3 * 2 * PIECE  # of 60 MB: the rest is not sent before it is wanted
    answered_at_once(server)
    until(lambda: unread(server) == 0)
    for client in clients:
        assert 0 < len(rest(client)) < 20_000_000
        client.close()


def test_who_reads_slowly_but_in_time_gets_it_all(server):
    path = large(server)
    with connected(server.url) as client:
        client.sendall(head("GET", path, "Connection: close"))
        until(lambda: unread(server) > 0)
        got = read(rest(client))
    assert (got.status, len(got.body) > 20_000_000) == (200, True)


# --- who vanishes


@pytest.mark.parametrize("how", ["half closed", "reset"])
def test_who_leaves_takes_its_job_along(server, how):
    body = b'{"prompt": "a cat", "num_inference_steps": 1000}'
    with connected(server.url) as client:
        lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        client.sendall(head("POST", "/v1/images/generations", *lines) + body)
        until(lambda: latest(server) == "running")
        if how == "half closed":
            client.shutdown(socket.SHUT_WR)
            assert rest(client) == b""
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: latest(server) == "cancelled")


def latest(server: Live) -> str | None:
    """The state of the newest job."""
    return next((job["state"] for job in server.http.get("/api/jobs?limit=1").json()["jobs"]), None)


def test_the_system_looks_after_silent_peers(server):
    with connected(server.url) as client:
        own = client.getsockname()
        until(lambda: any(one.client == own for one in tuple(server.server.server_state.connections)))
        theirs = next(one for one in server.server.server_state.connections if one.client == own)
        options = theirs.transport.get_extra_info("socket")
        assert options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_KEEPIDLE"):
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            idle, interval, count = (options.getsockopt(socket.IPPROTO_TCP, name) for name in names)
            assert idle + interval * count <= 60


# --- who comes in crowds


def test_the_longest_silent_makes_room_and_the_busy_stay(tmp_path):
    with live(tmp_path, limits={"connections": 8}) as server, ExitStack() as opened:
        server.http.get("/healthz")
        silent = [opened.enter_context(connected(server.url)) for _ in range(30)]
        until(lambda: len(select.select(silent, [], [], 0)[0]) >= 30 - 8)  # who is let go reads the end
        answered_at_once(server)
        streams = [opened.enter_context(connected(server.url)) for _ in range(8)]
        for client in streams:
            client.sendall(head("GET", "/api/events"))
            assert read(client.recv(1 << 16)).status == 200
        assert [rest(client) for client in silent] == [b""] * 30
        with connected(server.url) as client:
            client.sendall(head("GET", "/healthz"))
            refused = reply(client)
        assert (refused.status, refused.error["code"]) == (503, "server_is_overloaded")
        streams.pop().close()
        until(lambda: len(server.server.server_state.connections) < 8)
        with connected(server.url) as client:
            client.sendall(head("GET", "/healthz", "Connection: close"))
            assert reply(client).status == 200
