"""A small HTTP/1.1 client on asyncio streams: a request costs it a fraction of a millisecond, so that it can load a server.

It sends what it is given, byte for byte, also what a polite client would not.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

_MOST_LINE = 64 << 20  # of a stream: a picture in base64 is one line
WHOLE_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back, and the seconds from the first byte sent to the last one read."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection, which stays open from request to request; `async with`, or `close`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=_MOST_LINE))

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.writer.close()

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, within: float = WHOLE_SECONDS
    ) -> Answer:
        """Sends a request and reads the answer; `body`: bytes, or what becomes JSON. TimeoutError, ConnectionError."""
        began = time.perf_counter()
        async with asyncio.timeout(within):
            self.writer.write(request(method, path, body, headers))
            status, told = await self._head()
            length = 0 if method == "HEAD" else int(told.get("content-length", 0))  # a stream has none, and is not read
            content = await self.reader.readexactly(length)
        return Answer(status, told, content, time.perf_counter() - began)

    async def events(self, method: str, path: str, body: Any = None) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        """The kind and data of each server-sent event. ConnectionError for an answer that is none."""
        self.writer.write(request(method, path, body))
        status, _ = await self._head()
        if status != 200:
            raise ConnectionError(f"{path} answered {status}")
        kind = ""
        while line := (await self.reader.readline()).rstrip(b"\r\n") or not self.reader.at_eof():
            if line is True:  # an empty line ends an event
                continue
            if line.startswith(b"event: "):
                kind = line[7:].decode()
            elif line.startswith(b"data: "):
                yield kind, json.loads(line[6:])

    async def _head(self) -> tuple[int, dict[str, str]]:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise ConnectionError("the server closed the connection") from None
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in headers}


def request(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    """A request as it goes over the wire."""
    told = {"host": "127.0.0.1", **(headers or {})}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        told = {"content-type": "application/json", **told}
    if body is not None or method in ("POST", "PATCH"):
        told["content-length"] = str(len(body or b""))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + (body or b"")


def form(files: dict[str, tuple[str, bytes]], fields: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """A multipart body and its header. `files`: field -> name of the file, its bytes."""
    start, parts = '--cut\r\ncontent-disposition: form-data; name="', []
    for name, (filename, data) in files.items():
        parts += [f'{start}{name}"; filename="{filename}"\r\n\r\n'.encode(), data, b"\r\n"]
    parts += [f'{start}{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    return b"".join([*parts, b"--cut--\r\n"]), {"content-type": "multipart/form-data; boundary=cut"}


async def ask(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    async with await Connection.to(port) as connection:
        return await connection.ask(method, path, body, headers)
