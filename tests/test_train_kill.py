"""A run that was killed, anywhere and any number of times, ends as one that was not: bit by bit."""

import json
import socket
import subprocess
import sys

import toy_training
from toy_training import outcome_of


def script(name: str, *arguments: object) -> dict:
    command = [sys.executable, toy_training.__file__, name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_forty_kills_at_random_moments_change_nothing(tmp_path):
    report = script("killed_at_random", tmp_path, 40, 1)
    assert report["wrong"] == []
    assert report["died"] == 40
    assert len(report["log"]) == 5 + 3 + 3  # ticks, previews, evaluations: the comparison compares something


def test_dying_at_every_fsync_and_rename_changes_nothing(tmp_path):
    report = script("dies_at_each_call", tmp_path)
    assert report["wrong"] == []
    assert report["deaths"] > 30
    assert report["left"] == []


def test_two_ranks_do_what_one_does_and_may_join_midway(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script("shared_by_ranks", tmp_path, port)
    one = outcome_of(tmp_path / "one")
    for other in ("two", "grown"):
        ended = outcome_of(tmp_path / other)
        assert {key: ended[key] for key in one if key.endswith(".safetensors")} == {
            key: one[key] for key in one if key.endswith(".safetensors")
        }
