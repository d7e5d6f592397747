"""500 pictures through a server, with all that goes wrong between them, and nothing of it left: memory, threads, files."""

import base64
import io
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from live_server import Caller, picture
from PIL import Image
from raw_http import ask, connected, head, rest
from served import served

from unclip.server.store import Store

PICTURES, EACH = 500, 10  # each: pictures a call
DRIFT = 0.05  # of the memory after a warm-up; benchmarks/server.py holds it over 2,000 pictures
ARENAS = 24 << 20  # bytes that the allocator may keep for threads that work together for the first time; 500 kept are 98 MB
FEW = 12  # threads or files more; one left by every third turn would be 17
PAGE = os.sysconf("SC_PAGE_SIZE")


def test_nothing_is_left_of_five_hundred_pictures(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((1200, 1200), 100).save(file, "PNG")
    noise = file.getvalue()
    assert len(noise) > 1 << 20  # which a form's parser puts into a file
    listing = head("GET", "/api/jobs?limit=200", "Connection: close")
    with served(tmp_path, "limits.requests_per_minute=100000") as process:
        server = Caller(process.url)
        with server.http:
            for number in range(15):
                turn(server, noise, number)
            with ThreadPoolExecutor(16) as crowd:  # until the server has all its threads, and each its database
                list(crowd.map(lambda _: ask(server.url, listing), range(100)))
            before = measured(server, process.pid)
            for number in range(PICTURES // EACH):
                turn(server, noise, number)
            after = measured(server, process.pid)
            told = engine(server)
        for name in before:
            most = before[name] * (1 + DRIFT) + ARENAS if name.startswith("memory") else before[name] + FEW
            assert after[name] <= most, (name, before[name], after[name])
        assert told["pictures"] >= PICTURES
        assert (told["restarts"], told["queued"], told["running"]) == (0, 0, 0)
        assert list((tmp_path / "tmp").iterdir()) == []
    store = Store(tmp_path / "data")
    files = {path.stem for path in (store.data / "images").rglob("*") if path.is_file()}
    assert all(store.image(id) for id in files)
    store.close()
    assert not list((tmp_path / "data").rglob(".*"))


def turn(server: Caller, noise: bytes, number: int) -> None:
    """Ten pictures, and every third time one of the things that go wrong."""
    told = server.paint(n=EACH, num_inference_steps=2, response_format="b64_json", seed=number).json()["data"]
    assert len(told) == EACH
    assert picture(base64.b64decode(told[-1]["b64_json"])).size == (256, 256)
    if number % 3 == 0:
        assert server.form("variations", noise, size="256x256").status_code == 200
        assert server.form("variations", noise[:-20]).status_code == 400
    elif number % 3 == 1:
        with connected(server.url) as client:  # and leaves, and is let go
            body = b'{"prompt": "a cat", "num_inference_steps": 1000, "size": "256x256"}'
            lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
            client.sendall(head("POST", "/v1/images/generations", *lines) + body)
            client.shutdown(socket.SHUT_WR)
            assert rest(client) == b""
    else:
        assert server.paint(prompt="stub: refuse", n=2).status_code == 400
        assert server.http.get("/api/jobs?limit=200").status_code == 200


def engine(server: Caller) -> dict[str, float]:
    """The engine's figures, as its operator has them."""
    told = re.findall(r"^unclip_engine_(\w+) (\S+)$", server.http.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in told}


def measured(server: Caller, pid: int) -> dict[str, float]:
    """Of the server's process and of its worker's: resident bytes, threads, open files."""
    calm = 0
    while calm < 50:  # who left at once may have left a job that is only about to be queued
        told = engine(server)
        calm = 0 if told["running"] or told["queued"] else calm + 1
    figures: dict[str, float] = {}
    for name, process in (("server", pid), ("worker", worker(pid))):
        figures[f"memory of the {name}"] = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
        figures[f"threads of the {name}"] = len(os.listdir(f"/proc/{process}/task"))
        figures[f"files of the {name}"] = len(os.listdir(f"/proc/{process}/fd"))
    return figures


def worker(pid: int) -> int:
    """The child that paints; the other is multiprocessing's own."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [child for thread in threads for child in (thread / "children").read_text().split()]
    (painter,) = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return int(painter)
