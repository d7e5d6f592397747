"""A server on loopback for tests: the real app and engine under uvicorn in a thread, painting by arithmetic."""

import io
import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image, ImageDraw

from unclip.server.app import make_app
from unclip.server.config import STUB, ServerConfig
from unclip.server.engine import Engine
from unclip.server.run import Server
from unclip.server.store import Store


class Caller:
    """A plain HTTP client of the server at an address."""

    def __init__(self, url: str):
        self.url = url
        self.http = httpx2.Client(base_url=url, timeout=20)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        return self.http.post(path, json=body, **more)

    def paint(self, **changes: Any) -> httpx2.Response:
        return self.post("/v1/images/generations", {"prompt": "a cat", "size": "256x256", **changes})

    def form(self, call: str, image: bytes | None = None, mask: bytes | None = None, **fields: str) -> httpx2.Response:
        files = {name: ("x.png", data, "image/png") for name, data in (("image", image), ("mask", mask)) if data is not None}
        return self.http.post(f"/v1/images/{call}", files=files or {"nothing": ("x", b"")}, data=fields)


class Live(Caller):
    """A server that runs in this process, and its parts."""

    def __init__(self, url: str, server: Server, config: ServerConfig, store: Store):
        super().__init__(url)
        self.server, self.config, self.store = server, config, store

    @property
    def serving(self):
        return self.server.config.app.state.serving


@contextmanager
def live(data: Path, **changes: Any) -> Iterator[Live]:
    """Serves until the block ends."""
    config = ServerConfig.parse({"model": STUB, "data": data, **changes})
    store = Store(config.data)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(make_app(config, store, Engine(config, store)), listener)
        told: queue.Queue[str] = queue.Queue()
        thread = threading.Thread(target=server.run_until_stopped, args=(told.put,))
        thread.start()
        try:
            running = Live(told.get(timeout=30), server, config, store)
            with running.http:
                yield running
        finally:
            server.should_exit = True
            thread.join(30)
            store.close()
    assert not thread.is_alive()


def png(side: int | tuple[int, int] = 64, mode: str = "RGB", colour: Any = None, *, hole: bool = False, **how: Any) -> bytes:
    """A picture with something in it; with `hole`, its left half is transparent."""
    size = (side, side) if isinstance(side, int) else side
    image = Image.new("RGBA", size, (200, 80, 40, 255))
    draw = ImageDraw.Draw(image)
    draw.ellipse((0, 0, size[0] - 1, size[1] - 1), fill=colour or (40, 90, 200, 255))
    if hole:
        draw.rectangle((0, 0, size[0] // 2 - 1, size[1]), fill=(0, 0, 0, 0))
    buffer = io.BytesIO()
    image = image if hole else image.convert("RGB").convert(mode)
    image.save(buffer, "PNG", **how)
    return buffer.getvalue()


def picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def events(response: httpx2.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """The kinds and data of a stream of server-sent events."""
    kind = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
