"""Two replicas on a Ray that is started and stopped here: who paints, what is cancelled, who dies, who can listen in."""

import asyncio
import io
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import png
from PIL import Image
from stub_engine import asked, ended, events_of, until

from unclip.cli import main
from unclip.errors import ConfigError
from unclip.server.config import ServerConfig
from unclip.server.crew import Message, Order, hire
from unclip.server.engine import Engine
from unclip.server.jobs import Job, JobRequest, JobState
from unclip.server.painting import encode_png
from unclip.server.replica import Replica
from unclip.server.store import Store
from unclip.server.stub import Stub

pytestmark = [  # Ray's own, of pydantic, of its files, and of its sockets
    pytest.mark.filterwarnings("ignore:::pydantic.*"),
    pytest.mark.filterwarnings("ignore:::ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CONFIG = {"model": "stub", "stub_step_seconds": 0.05, "heartbeat_seconds": 5.0, "device": "cpu", "batch": 2}


class Cluster:
    """An engine over two replicas, in a loop of its own; `do` has it do something, and waits."""

    def __init__(self, folder: Path):
        self.store = Store(folder)
        self.config = ServerConfig.parse({**CONFIG, "replicas": 2, "data": folder, "host": "::1", "keys": ["a-secret-key"]})
        self.engine = Engine(self.config, self.store)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.signals = status(os.getpid())["SigCgt"]
        self.strangers = set(descendants(os.getpid()))
        self.stopped = False

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, 60), self._loop).result()

    def submit(self, prompt: str = "a cat", **changes: object) -> Job:
        return self.do(self.engine.submit("me", asked(prompt, **changes)))

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.engine.health()["workers"]
        return row

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self.do(self.engine.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self.store.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster(tmp_path_factory.mktemp("data"))
        try:
            cluster.do(cluster.engine.start())
            cluster.do(cluster.until(lambda: cluster.row["replicas"] == 2))
            yield cluster
        finally:
            cluster.stop()


def test_both_replicas_paint_and_the_pictures_are_those_of_one_process(cluster):
    job = cluster.submit(n=4, steps=30, seed=5)
    cluster.do(cluster.until(lambda: sorted(cluster.row["painted_at"].values()) == [2, 2]))
    told = cluster.do(events_of(cluster.engine, job.id))
    assert Counter(event.kind for event in told if event.kind in ("image", "state")) == {"image": 4, "state": 2}
    assert {event.data["slot"] for event in told if event.kind == "preview"} == {0, 1, 2, 3}
    done = cluster.do(ended(cluster.engine, job))
    assert done.state == JobState.DONE
    assert cluster.row == {"ready": True, "replicas": 2, "painting": 0, "painted_at": {}}
    request = asked(n=4, steps=30, seed=5)
    assert [picture(cluster, id) for id in done.images] == [alone(request, slot) for slot in range(4)]


def test_signals_stay_the_servers(cluster):
    changed = int(cluster.signals, 16) ^ int(status(os.getpid())["SigCgt"], 16)
    assert not changed & (1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1))


def picture(cluster: Cluster, id: str) -> bytes:
    path = cluster.store.path(id)
    assert path is not None
    with Image.open(path) as image:
        return image.tobytes()


def alone(request: JobRequest, slot: int, *files: str) -> bytes:
    """What the stub paints of it here."""
    painted = Stub().paint(request, slot, files, lambda *_: None, threading.Event())
    return Image.open(io.BytesIO(encode_png(painted.image))).tobytes()


def test_pictures_travel_with_their_order(cluster):
    ids = [cluster.store.add_image("me", png(32 + side), kind="upload", settings={}, parents=()) for side in (0, 1)]
    request = JobRequest(task="interpolate", images=tuple(ids), frames=2, size=256, steps=2, seed=3)
    done = cluster.do(ended(cluster.engine, cluster.do(cluster.engine.submit("me", request))))
    files = [str(cluster.store.path(id)) for id in ids]
    assert [picture(cluster, id) for id in done.images] == [alone(request, slot, *files) for slot in (0, 1)]
    gone = JobRequest(task="variations", images=("gone",), n=1)
    assert cluster.do(ended(cluster.engine, cluster.do(cluster.engine.submit("me", gone)))).error == "image_gone"


@pytest.mark.parametrize(("prompt", "error"), [("stub: refuse", "refused"), ("stub: break", "internal")])
def test_what_goes_wrong_on_a_replica_has_a_name(cluster, prompt, error):
    assert cluster.do(ended(cluster.engine, cluster.submit(prompt, n=1))).error == error
    assert cluster.engine.health()["restarts"] == 0


def test_a_cancel_reaches_the_replicas_and_keeps_what_is_finished(cluster):
    job = cluster.submit(n=6, steps=60)  # 3 s a picture, four at a time
    cluster.do(until(cluster.engine, job, "image"))
    begun = time.monotonic()
    cancelled = cluster.do(cluster.engine.cancel(job.id))
    assert time.monotonic() - begun < 1
    assert cancelled.state == JobState.CANCELLED
    assert 1 <= len([id for id in cancelled.images if id]) < 6
    begun = time.monotonic()  # there is room at once: the other slots were let go
    assert cluster.do(ended(cluster.engine, cluster.submit(n=4, steps=1))).state == JobState.DONE
    assert time.monotonic() - begun < 1.5


def test_a_cancel_at_any_moment_is_answered(cluster):
    async def work() -> None:
        for pause in range(8):
            job = await cluster.engine.submit("me", asked(n=4, steps=100))
            async for event in cluster.engine.subscribe(job.id):
                if event.data.get("state") == "running":
                    break
            await asyncio.sleep(pause / 200)
            cancelled = await cluster.engine.cancel(job.id)
            assert cancelled is not None
            assert cancelled.state == JobState.CANCELLED
            assert cluster.row["painting"] == 0

    cluster.do(work())


def test_a_killed_replica_is_replaced_and_its_slots_are_painted_once(cluster):
    job = cluster.submit(n=4, steps=80, seed=1)  # 4 s a picture, time enough to see all of them begun
    cluster.do(cluster.until(lambda: sorted(cluster.row["painted_at"].values()) == [2, 2]))
    os.kill(int(next(iter(cluster.row["painted_at"])).rpartition(":")[2]), signal.SIGKILL)
    told = cluster.do(events_of(cluster.engine, job.id))
    assert told[-1].data == {"state": "done"}
    assert sorted(event.data["slot"] for event in told if event.kind == "image") == [0, 1, 2, 3]
    assert cluster.engine.health()["restarts"] == 1
    cluster.do(cluster.until(lambda: cluster.row["replicas"] == 2))


def test_a_replica_without_memory_goes_and_the_job_that_took_it_is_told_so(cluster):
    before = cluster.engine.health()["restarts"]
    greedy, other = cluster.submit("stub: no memory", n=1), cluster.submit(n=3, steps=5)
    assert cluster.do(ended(cluster.engine, greedy)).error == "out_of_memory"
    assert cluster.do(ended(cluster.engine, other)).state == JobState.DONE
    assert cluster.engine.health()["restarts"] == before + 2  # it was tried twice


def test_nobody_else_can_speak_with_our_ray_and_nothing_of_it_stays(cluster):
    import grpc

    cluster.do(cluster.until(lambda: cluster.row["replicas"] == 2))
    family = [pid for pid in descendants(os.getpid()) if pid not in cluster.strangers]
    listening = {port: address for pid in family for address, port in listeners(pid)}
    outside = [port for port, address in listening.items() if not address.startswith(("127.", "::ffff:127.", "::1"))]
    assert len(listening) > 5
    assert len(outside) <= 2  # each replica's gRPC port, which Ray opens to all, and to nobody without the token
    for port in outside:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    cluster.stop()
    assert [pid for pid in family if alive(pid)] == []
    assert cluster.engine.health()["workers"] == []


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started, but not this one."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and alive(int(folder.name)):
            children.setdefault(int(status(int(folder.name))["PPid"]), []).append(int(folder.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found[1:]


def status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def alive(pid: int) -> bool:
    return status(pid).get("State", "Z")[0] != "Z"


def listeners(pid: int) -> list[tuple[str, int]]:
    """Addresses and ports on which a process waits for connections."""
    import socket

    held = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in held:
                address, port = local.split(":")
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.append((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found


def test_who_is_to_be_alone_in_a_replica_is(tmp_path):
    """A replica without Ray around it: the orders before one that killed others end first, those after it wait."""

    async def work() -> None:
        replica = Replica(ServerConfig.parse(CONFIG), "cpu")
        request = asked(seed=1, steps=4)
        log: list[tuple[str, str]] = []

        async def paint(name: str, alone: bool) -> None:
            async for _, messages in replica.paint(Order(name, 0, request, "stub", ()), [], alone):
                log.extend((name, message[0]) for message in messages)

        def begun(name: str) -> bool:
            return (name, "progress") in log

        first = [asyncio.create_task(paint(name, False)) for name in ("a", "b")]
        while not (begun("a") and begun("b")):
            await asyncio.sleep(0.005)
        killer = asyncio.create_task(paint("killer", True))
        await asyncio.sleep(0)
        later = asyncio.create_task(paint("c", False))
        await asyncio.gather(*first, killer, later)
        kinds = [(name, kind) for name, kind in log if kind not in ("preview", "begun")]
        start, end = kinds.index(("killer", "progress")), kinds.index(("killer", "done"))
        assert {name for name, _ in kinds[start:end]} == {"killer"}
        assert {name for name, _ in kinds[:start]} == {"a", "b"}
        assert kinds[-1] == ("c", "done")

    asyncio.run(work())


def test_a_call_that_is_given_up_ends_its_slot_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def work() -> None:
        replica = Replica(ServerConfig.parse(CONFIG), "cpu")
        order = Order("a", 0, JobRequest(task="variations", images=("x",), steps=1000, seed=1), "stub", ("x.png",))
        heard: list[Message] = []

        async def paint() -> None:
            async for _, messages in replica.paint(order, [("x.png", png())], False):
                heard.extend(messages)

        call = asyncio.create_task(paint())
        while not heard:
            await asyncio.sleep(0.005)
        while [path.name for path in tmp_path.rglob("*.png")] != ["x.png"]:  # it is written once it is the order's turn
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        while list(tmp_path.iterdir()):  # the generator's end
            await asyncio.sleep(0.005)
        async for _, messages in replica.paint(
            Order("b", 0, asked(seed=1), "stub", ()), [], True
        ):  # alone: the other has left
            heard.extend(messages)
        assert heard[-1][:2] == ("done", "b")

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--replicas", "4-1"], "expected a number, as 2, or a range, as 1-4"),
        (["--replicas", "0"], "expected a number"),
        (["--ray-address", "auto"], "give their number too"),
        (["--replicas", "2", "--device", "cuda:0,cuda:1"], "a replica paints on one device"),
        (["--replicas", "2", "--ray-address", "ray://somewhere:1"], "expected host:port of a cluster's head"),
        (["--replicas", "2", "--ray-address", "127.0.0.1:1"], "cannot join the Ray cluster at 127.0.0.1:1"),
    ],
)
def test_bad_options_are_told_in_a_line(tmp_path, capsys, given, reason):
    assert main(["serve", "--model", "stub", "--port", "0", "--data", str(tmp_path), *given]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert reason in told.err
    assert told.err.count("\n") == 1


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    crew = hire(ServerConfig.parse({**CONFIG, "replicas": 1, "data": tmp_path}), lambda *_: None)
    with pytest.raises(ConfigError, match=r"pip install 'unclip\[cluster\]'"):
        asyncio.run(crew.open())


def test_a_range_of_replicas_is_a_number_too():
    ranges = {given: ServerConfig.parse({"replicas": given}).replicas for given in (2, "3", "1-4")}
    assert ranges == {2: (2, 2), "3": (3, 3), "1-4": (1, 4)}
