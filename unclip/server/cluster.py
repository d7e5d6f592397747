"""A crew of replicas on a Ray cluster. Ray Serve starts them, chooses who paints, scales them, and replaces those that die.

The app, the store and the engine stay the one process that owns the truth; each order is a streaming call of a deployment,
with its pictures in it, so that nothing else has to be where the replicas are. Serve's own doors stay shut: no HTTP or gRPC
proxy is started. Where no cluster is named, a Ray of our own is started on loopback, without a dashboard and behind a token
that nobody else has, and ended with us: whoever can speak with a Ray can run what he likes in it.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from unclip.errors import ConfigError
from unclip.server.config import ServerConfig, is_loopback
from unclip.server.crew import ENDS, Hear, Message, Order
from unclip.server.replica import BEGUN, Pictures, Replica
from unclip.server.worker import slots_at_once

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.5  # between two looks at how many replicas there are
HEALTH_SECONDS = 2.0  # between two questions of Serve whether a replica is well
GROW_SECONDS, SHRINK_SECONDS = 5.0, 120.0  # that work lasts, or lacks, before there are more replicas, or fewer
FINISH_SECONDS = 600.0  # what a replica that is needed no more gets for what it paints
CONNECT_SECONDS = 5.0
OBJECT_BYTES = 512 << 20  # shared memory of a Ray of our own, for pictures on their way


class Cluster:
    """The crew, and its only hand: Ray's router has the choice of the replica."""

    def __init__(self, config: ServerConfig, hear: Hear):
        assert config.replicas is not None
        self.hands, self.restarts, self.room = [self], 0, 0
        self.painting: dict[tuple[str, int], Order] = {}
        self._config, self._hear = config, hear
        self._least, self._most = config.replicas
        self._calls: dict[tuple[str, int], asyncio.Task[Message]] = {}
        self._places: dict[tuple[str, int], str] = {}  # which replica paints it
        self._dead: set[str] = set()
        self._ready, self._slots, self._open = 0, 0, False
        whose = f"{socket.gethostname()}:{config.data.resolve()}"  # so a server takes over what it left when it crashed
        self._name = f"unclip-{hashlib.sha256(whose.encode()).hexdigest()[:8]}"
        self._cpus = 1  # of a replica
        self._folder: Path | None = None  # of a Ray of our own
        self._handle: Any = None
        self._watching: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # who closes while it opens waits

    async def open(self) -> None:
        address = self._config.ray_address or os.environ.get("RAY_ADDRESS") or "local"
        async with self._turn:
            await asyncio.to_thread(_import_ray, alone=address == "local")
            try:
                await asyncio.to_thread(self._start if address == "local" else self._join, address)
                await asyncio.to_thread(self._deploy)
            except BaseException:
                await asyncio.to_thread(self._leave)
                raise
            self._open = True
            self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        async with self._turn:
            if not self._open or self._watching is None:
                return
            self._open = False
            for call in self._calls.values():
                call.cancel()
            await asyncio.gather(*self._calls.values(), return_exceptions=True)
            await self._watching
            await asyncio.to_thread(self._leave)
            self.hands = []

    def takes(self, *, alone: bool) -> bool:
        return len(self.painting) < self.room  # the replica sees to it that one is alone

    def paint(self, order: Order, *, alone: bool) -> None:
        self.painting[order.key] = order
        call = self._calls[order.key] = asyncio.create_task(self._call(order, alone))
        call.add_done_callback(lambda call: self._answered(order, call))

    def cancel(self, job: str, slot: int | None = None) -> None:
        for key, call in self._calls.items():
            if key[0] == job and slot in (None, key[1]):
                call.cancel()

    def health(self) -> dict[str, Any]:
        """`replicas` that are ready, and how many slots are `painted_at` each that is at work."""
        ready, painting = self.room > 0, len(self.painting)
        return {"ready": ready, "replicas": self._ready, "painting": painting, "painted_at": Counter(self._places.values())}

    # --- orders

    def _answered(self, order: Order, call: asyncio.Task[Message]) -> None:
        del self.painting[order.key], self._calls[order.key]
        self._places.pop(order.key, None)
        if self._open:
            self._hear(self, ("cancelled", *order.key) if call.cancelled() else call.result())

    async def _call(self, order: Order, alone: bool) -> Message:
        """From the order to its answer. What only waited in a replica that died is no suspect, and goes to another."""
        try:
            pictures = await asyncio.to_thread(_read, order.files)
            if pictures is None:
                return "failed", *order.key, "image_gone", None
            answer = None
            while answer is None:
                answer = await self._asked(order, pictures, alone)
            return answer
        except Exception as error:
            log.error("a replica stumbled: %s", error)
            return "failed", *order.key, "internal", None

    async def _asked(self, order: Order, pictures: Pictures, alone: bool) -> Message | None:
        """What one replica answers; None where it died before the order's turn came."""
        from ray.exceptions import RayError, RayTaskError

        answer, begun = None, False
        stream = self._handle.remote(order, pictures, alone)
        try:
            async for self._places[order.key], messages in stream:
                for message in messages:
                    if message == BEGUN:
                        begun = True
                    elif message[0] in ENDS:
                        answer = message
                    else:
                        self._hear(self, message)
        except asyncio.CancelledError:
            stream.cancel()
            if answer is None:
                raise
        except RayError as error:
            if answer is None and isinstance(error, RayTaskError):
                raise
        place = self._places.get(order.key)
        if answer is None or answer[0] == "lost":
            self._count_death(place)
        waited = place is not None and not begun
        return answer or (None if waited else ("lost", *order.key, "worker_died"))

    def _count_death(self, place: str | None) -> None:
        """Once, however many slots it had in hand; None: it said nothing yet."""
        if place is not None and place not in self._dead:
            log.warning("replica %s ended with slots in hand", place)
            self._dead.add(place)
            self.restarts += 1

    # --- replicas

    async def _watch(self) -> None:
        """Counts the replicas. There is room for as many as there may be, so that Ray sees when it takes more of them."""
        while self._open:
            ready = await asyncio.to_thread(self._count)
            if ready != self._ready:
                log.info("%d of at most %d replicas are ready", ready, self._most)
                self._ready, self.room = ready, self._most * self._slots if ready else 0
                self._hear(self, ("ready",))
            await asyncio.sleep(WATCH_SECONDS)

    def _count(self) -> int:
        from ray import serve

        try:
            app = serve.status().applications.get(self._name)
        except Exception as error:  # Ray's, Serve's, or the connection's: the next look may be luckier
            log.warning("the cluster does not answer: %s", type(error).__name__)
            return 0
        states = [state for one in app.deployments.values() for state in one.replica_states.items()] if app else []
        return sum(number for state, number in states if state == "RUNNING")

    def _start(self, address: str) -> None:
        """A Ray of our own."""
        import ray

        cores = os.cpu_count() or 1
        self._cpus = self._config.replica_cpus or max(1, cores // self._most)
        self._folder = Path(tempfile.mkdtemp(prefix="unclip-", dir="/tmp" if Path("/tmp").is_dir() else None))
        ray.init(
            address,
            num_cpus=max(cores, self._cpus * self._most),
            object_store_memory=OBJECT_BYTES,
            include_dashboard=False,
            logging_level=logging.ERROR,
            _temp_dir=str(self._folder),  # short, since sockets are in it
        )
        if not is_loopback(ray.util.get_node_ip_address()):
            raise ConfigError("Ray was imported before it was told to stay on loopback: give its cluster's address")

    def _join(self, address: str) -> None:
        """Somebody else's."""
        import ray

        self._cpus = self._config.replica_cpus or 1
        _check_address(address)
        try:
            ray.init(address, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"cannot join the Ray cluster at {address}: {str(error).splitlines()[0]}") from None

    def _deploy(self) -> None:
        """Asks for the replicas, which get ready in their own time."""
        import ray
        from ray import serve

        config, device = self._config, self._config.device
        on_gpu = device.startswith("cuda") or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        self._slots = slots_at_once(config, on_gpu=on_gpu)
        number: dict[str, Any] = {"num_replicas": self._most}
        if self._least < self._most:
            bounds = {"min_replicas": self._least, "max_replicas": self._most, "target_ongoing_requests": self._slots}
            delays = {"upscale_delay_s": GROW_SECONDS, "downscale_delay_s": SHRINK_SECONDS}
            number = {"autoscaling_config": bounds | delays}
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        deployment = serve.deployment(
            Replica,
            name="painter",
            max_ongoing_requests=self._slots,
            ray_actor_options={"num_cpus": self._cpus, "num_gpus": int(on_gpu)},
            health_check_period_s=HEALTH_SECONDS,
            health_check_timeout_s=config.heartbeat_seconds,
            graceful_shutdown_wait_loop_s=HEALTH_SECONDS,
            graceful_shutdown_timeout_s=FINISH_SECONDS,
            logging_config=quiet,
            **number,
        )
        bound = deployment.bind(config.model_copy(update={"keys": ()}), "cuda" if on_gpu else device)
        target = serve.RunTarget(bound, name=self._name, route_prefix=None)
        handle = serve.run_many([target], wait_for_applications_running=False)[0]
        self._handle = handle.options(method_name="paint", stream=True)

    def _leave(self) -> None:
        import ray
        from ray import serve

        if self._folder is None and ray.is_initialized():
            with suppress(Exception):  # the cluster may be gone
                serve.delete(self._name)
        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _read(files: tuple[str, ...]) -> Pictures | None:
    """None where one of them is gone."""
    try:
        return [(Path(file).name, Path(file).read_bytes()) for file in files]
    except OSError:
        return None


def _import_ray(*, alone: bool) -> None:
    """`alone`: a Ray that is started in this process listens on loopback, and to nobody without a token."""
    if alone:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as is the rule on those: its address is 127.0.0.1
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"  # it would abort on the SIGTERM that has us drain
    try:
        import ray.serve  # noqa: F401
    except ImportError:
        raise ConfigError("replicas need Ray Serve, which is not installed: pip install 'unclip[cluster]'") from None
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _check_address(address: str) -> None:
    """ConfigError for what is no address, or does not answer: Ray itself would try for a long time."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(f"ray_address {address!r}: expected host:port of a cluster's head, as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot join the Ray cluster at {address}: {error}") from None
