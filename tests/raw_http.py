"""HTTP by hand, for what no client would send: bytes go out as they are, and what comes back is taken apart."""

import json
import socket
from contextlib import suppress
from typing import NamedTuple


class Reply(NamedTuple):
    """What came back until the server hung up: the first answer's status and body; nothing at all is status 0."""

    status: int
    body: bytes

    @property
    def error(self) -> dict:
        return json.loads(self.body)["error"]


def connected(url: str, timeout: float = 20) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def head(method: str, path: str, *lines: str) -> bytes:
    """A request's line and headers."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


def ask(url: str, raw: bytes, *, end: bool = False) -> Reply:
    """Sends `raw`, says with `end` that no more will come, and reads until the server hangs up."""
    with connected(url) as client:
        with suppress(ConnectionError):  # refused in the middle of it
            client.sendall(raw)
            if end:
                client.shutdown(socket.SHUT_WR)
        return reply(client)


def reply(client: socket.socket) -> Reply:
    return read(rest(client))


def rest(client: socket.socket) -> bytes:
    """All that comes until the end, which a reset is too."""
    got = bytearray()
    with suppress(ConnectionError):
        while piece := client.recv(1 << 16):
            got += piece
    return bytes(got)


def read(got: bytes) -> Reply:
    if not got:
        return Reply(0, b"")
    first, _, body = got.partition(b"\r\n\r\n")
    return Reply(int(first.split(b" ", 2)[1]), body)
