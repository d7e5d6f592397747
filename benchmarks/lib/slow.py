"""Clients that take their time, or all of the server's: whether they are let go, and whether others notice (test 12)."""

import asyncio
import io
import socket
from contextlib import suppress

import numpy as np
from lib.bench import GENERATIONS, Bench, Row, call, engine_seconds, paced, probing, quantile
from lib.served import Served, sockets
from lib.wire import Answer, Connection, request
from PIL import Image

LIMIT = 2.0  # seconds that the server gives for a head, for a body, for reading an answer
_LATE = 6.0  # seconds after which whoever is still there was not let go; a refused body is listened to for five
_EACH = 40  # of each kind


async def slow_clients(bench: Bench) -> list[Row]:
    """Silent, dripping and unreading clients, 40 of each kind, while others paint ten pictures a second."""
    engine, each = engine_seconds(), bench.times(_EACH, 3)
    limits = [f"limits.{name}_seconds={LIMIT}" for name in ("head", "body", "send")]
    async with bench.served(*limits) as server:
        large = await _large_picture(server)

        async def paint(connection: Connection, number: int) -> Answer:
            return await connection.ask("POST", GENERATIONS, call(seed=number))

        await paced(server.port, paint, rate=10, count=10)
        await asyncio.sleep(LIMIT)  # until our own connections are let go
        before = sockets(server.pid)
        kinds = _kinds(large)
        clients: list[socket.socket] = []
        coming = asyncio.create_task(_come(server.port, [*kinds.values()] * each, clients))
        stop = asyncio.Event()
        probes = asyncio.create_task(probing(server.port, "/healthz", stop))
        taken = await paced(server.port, paint, rate=10, count=int(10 * (LIMIT + _LATE)))
        stop.set()
        healthz = await probes
        await asyncio.sleep(LIMIT)  # for the connections of those who painted
        after = sockets(server.pid)
        coming.cancel()
        for client in clients:
            client.close()
    over = quantile([seconds for _, seconds in taken], 0.99) - engine
    told = f"of {4 * each} clients that {', '.join(kinds)}: there {_LATE:.0f} s after their time"
    return [
        Row("12", told, 0, after - before),
        Row("12", "answers other than 200 to other clients", 0, sum(answer.status != 200 for answer, _ in taken)),
        Row("12", "others' pictures over engine time: p99", 30, 1000 * over, "ms"),
        Row("12", f"p99 of {len(healthz)} /healthz meanwhile", 50, 1000 * quantile(healthz, 0.99), "ms"),
    ]


async def _large_picture(server: Served) -> str:
    """The path of one that no socket's buffer holds: 12 MB of noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG", compress_level=0)
    return f"/api/images/{(await server.ask('POST', '/api/images', buffer.getvalue())).json()['id']}"


def _kinds(large: str) -> dict[str, tuple[bytes, bytes]]:
    """What each kind of client sends at once, and then byte by byte."""
    whole = request("POST", GENERATIONS, call())
    return {
        "say nothing": (b"", b""),
        "drip their headers": (b"", whole),
        "drip their body": (whole[:-40], whole[-40:]),
        "do not read": (request("GET", large), b""),
    }


async def _come(port: int, sent: list[tuple[bytes, bytes]], clients: list[socket.socket]) -> None:
    """All of them within two seconds, as bare sockets that hold little; then they drip, a byte each, five times a second."""
    loop, dripping = asyncio.get_running_loop(), []
    for first, rest in sent:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        clients.append(client)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, first)
        dripping.append((client, iter(rest)))
        await asyncio.sleep(2 / len(sent))
    while True:
        for client, rest in dripping:
            with suppress(OSError, StopIteration):  # it was hung up on, or has said all
                await loop.sock_sendall(client, bytes([next(rest)]))
        await asyncio.sleep(0.2)
