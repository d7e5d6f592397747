"""`unclip serve` as a process of its own, whose memory, time and files are nobody else's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Served:
    """A server that runs: its address and its process id."""

    def __init__(self, url: str, pid: int):
        self.url, self.pid = url, pid

    def status(self, which: str) -> int:
        """A number of bytes in the process's status, as VmRSS."""
        return int(Path(f"/proc/{self.pid}/status").read_text().partition(f"{which}:")[2].split()[0]) << 10


@contextmanager
def served(folder: Path, *overrides: str) -> Iterator[Served]:
    """Serves the stub until the block ends; then it stops in order, with no traceback shown. Its spool is `folder`/tmp."""
    said, spool = folder / "stderr", folder / "tmp"
    spool.mkdir()
    code = "import sys; from unclip.cli.serve import app; app(standalone_mode=False)"
    command = [sys.executable, "-c", code, "--model", "stub", "--port", "0", "--quiet", "--data", str(folder / "data")]
    environment = {**os.environ, "TMPDIR": str(spool)}
    with (
        said.open("w") as file,
        subprocess.Popen([*command, *overrides], stdout=subprocess.PIPE, stderr=file, text=True, env=environment) as process,
    ):
        assert process.stdout
        try:
            yield Served(process.stdout.readline().strip(), process.pid)
        finally:
            process.terminate()
        assert process.wait(20) == 0
    assert "Traceback" not in said.read_text()
