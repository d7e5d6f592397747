"""The server's benchmark runs, and says in the end what it says on the way."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "server.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=120, check=False)


def test_a_quick_run_measures_a_real_server():
    done = run("--quick", "--only", "4b,15")
    assert done.returncode == 0, done.stderr
    *table, total, last = done.stdout.splitlines()
    told = json.loads(last)
    assert told["name"] == "server"
    assert len(told["results"]) == len(table)
    assert {line.split()[0] for line in table} == {"4b", "15"}
    for line, result in zip(table, told["results"], strict=True):
        assert line.endswith(result["what"].partition(": ")[2].removesuffix("; peer: the target"))
        assert line.split()[1] == ("ok" if result["ours"] <= result["peer"] else "MISSED")
    assert total.startswith(f"{sum(line.split()[1] == 'ok' for line in table)} of {len(table)} ")
    # What a busy machine cannot change.
    assert [line for line in table if "MISSED" in line] == []


def test_a_test_that_is_not_there_is_one_line():
    done = run("--only", "99")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "99" in done.stderr
