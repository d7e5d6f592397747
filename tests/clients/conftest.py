"""Servers for foreign clients to call, what they send, and what became of it."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import KEY, LOOKED_UP, PAINTED, REFUSED, STREAMED, TIMED_OUT, Case
from clients import CLIENTS, Client
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from live_server import Live, live, png


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """What the cases send, by name."""
    folder = tmp_path_factory.mktemp("pictures")
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(jpeg, "JPEG")
    drawn = {"plain": png(), "hole": png(hole=True), "small-hole": png(32, hole=True), "wide": png((64, 32))}
    drawn |= {"jpeg": jpeg.getvalue(), "text": b"hello", "large": png() + bytes(4 << 20)}
    for name, data in drawn.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Live]:
    """With keys, blocked words and Azure's paths; a picture takes 50 ms."""
    words = tmp_path_factory.mktemp("words") / "blocked.txt"
    words.write_text("forbidden fruit\n")
    how = {"models": {"second": "stub"}, "azure": True, "blocked_words": words, "keys": (KEY,), "stub_step_seconds": 0.005}
    with live(tmp_path_factory.mktemp("server"), limits={"requests_per_minute": 100_000}, **how) as running:
        running.http.headers["authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="session")
def rationing(tmp_path_factory) -> Iterator[Live]:
    """It grants each client, by a key of its own, thirty calls a minute."""
    keys = tuple(client.key for client in CLIENTS)
    with live(tmp_path_factory.mktemp("rationing"), limits={"requests_per_minute": 30}, keys=keys) as running:
        yield running


@pytest.fixture(scope="session")
def became(server, pictures):
    """What became of a client's case, in a form; all its cases are run at the first question."""
    known: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}

    def of(client: Client, case: Case, form: str) -> dict[str, Any]:
        if client.name not in known:
            ways = client.ways(*PAINTED, *STREAMED, *LOOKED_UP, *REFUSED, TIMED_OUT)
            told = client.drive(server.url, pictures, ways)
            known[client.name] = {(case.name, form): one for (case, form), one in zip(ways, told, strict=True)}
        return known[client.name][case.name, form]

    return of
