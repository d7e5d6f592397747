"""`unclip serve` as a process of its own on loopback, and what the system says of it and its workers."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.wire import Answer, Connection, ask

PAGE = os.sysconf("SC_PAGE_SIZE")
READY_SECONDS = 60.0
_SERVE = (sys.executable, "-c", "from unclip.cli import main; raise SystemExit(main())", "serve")


class Served:
    """A server, its standard error in `<data>.log`; `async with` starts it, waits until it paints, and ends it.

    `settings` are options and overrides of `unclip serve`; `through` replaces the command that runs the verb.
    """

    def __init__(self, data: Path, *settings: str, model: str = "stub", through: Sequence[str] = _SERVE):
        self.data = data
        where = ["--model", model, "--device", "cpu", "--port", "0", "--data", str(data)]
        rate = "limits.requests_per_minute=1000000"  # of one key, which would be reached before the server's
        self._command = [*through, *where, rate, *settings]
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    async def __aenter__(self) -> "Served":
        await self.start()
        await self.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    async def start(self) -> None:
        """Returns when it answers. RuntimeError with the end of its log when it does not start."""
        log = self.data.with_suffix(".log")
        with log.open("a") as errors:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self._process.stdout is not None
        address = await asyncio.to_thread(self._process.stdout.readline)
        if not address:
            raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
        self.port = int(address.rsplit(":", 1)[1])

    async def ready(self) -> None:
        """Returns when it paints; TimeoutError."""
        async with asyncio.timeout(READY_SECONDS):
            while (await self.ask("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not heed it within ten seconds."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        return await ask(self.port, method, path, body, headers)

    async def job(self, id: str) -> dict[str, Any]:
        return (await self.ask("GET", f"/api/jobs/{id}")).json()

    async def ended(self, id: str, within: float = 60.0) -> dict[str, Any]:
        """A job once it has ended; TimeoutError."""
        async with asyncio.timeout(within):
            while (job := await self.job(id))["state"] in ("queued", "running"):
                await asyncio.sleep(0.01)
        return job

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The processes that paint. Its other child keeps account of what multiprocessing shares."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            found += [int(pid) for pid in (task / "children").read_text().split()]
        return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def painted(server: Served, id: str) -> None:
    """Returns when a job's first step is told of, or it has ended."""
    async with await Connection.to(server.port) as connection:
        async for kind, _ in connection.events("GET", f"/api/jobs/{id}/events"):
            if kind == "progress":
                return


def resident(pid: int) -> int:
    """Bytes in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def peak(pid: int) -> int:
    """Bytes in memory at most since `forget_peak`."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def counts(pid: int) -> tuple[int, int]:
    """Threads and open files."""
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


def sockets(pid: int) -> int:
    """Those that it has open, also its own to listen on."""
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += os.readlink(descriptor).startswith("socket:")
    return found


def send(pid: int, what: signal.Signals) -> None:
    os.kill(pid, what)


async def gone(pid: int, within: float = 10.0) -> float:
    """Seconds until a process has ended; TimeoutError."""
    began = time.monotonic()
    async with asyncio.timeout(within):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.005)
    return time.monotonic() - began
