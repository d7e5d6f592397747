"""Callers who leave, and callers who are sent away: nobody is painted for who does not wait."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from live_server import Live, events, live

from unclip.server.events import Channel
from unclip.server.jobs import JobState
from unclip.server.store import Store


def test_a_client_that_leaves_stops_its_job(tmp_path):
    with live(tmp_path, stub_step_seconds=0.1) as server:
        with pytest.raises(httpx2.TimeoutException):
            server.post("/v1/images/generations", {"prompt": "a", "num_inference_steps": 100, "n": 2}, timeout=0.5)
        _cancelled(server, within=2.0)
        body, patience = {"prompt": "a", "num_inference_steps": 100}, {"x-stainless-read-timeout": "0.3"}
        answer = server.post("/v1/images/generations", body, headers=patience)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_is_overloaded")
        _cancelled(server, within=2.0)
        with server.http.stream("POST", "/v1/images/generations", json={**body, "stream": True}):
            time.sleep(0.3)
        _cancelled(server, within=2.0)


def _cancelled(server: Live, within: float) -> None:
    """The newest job is cancelled before `within` seconds are over."""
    ends = time.monotonic() + within
    while (state := server.http.get("/api/jobs?limit=1").json()["jobs"][0]["state"]) != "cancelled":
        assert time.monotonic() < ends, state
        time.sleep(0.02)


def test_who_is_sent_away_by_a_stopping_server_is_not_painted_for(tmp_path):
    """After its end the store has the page's job in the queue, and nobody's of those who were told to come again."""
    command = [sys.executable, "-c", "from unclip.cli.serve import app; app()", "--model", "stub", "--quiet", "--port", "0"]
    command += ["--data", str(tmp_path), "stub_step_seconds=0.05", "grace_seconds=0.2", "batch=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ThreadPoolExecutor() as threads:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        def call(body: dict) -> tuple[int, str]:
            body = {"num_inference_steps": 1000, "n": 1, **body}
            with httpx2.stream("POST", f"{url}/v1/images/generations", json=body, timeout=20) as answer:
                if body.get("stream"):
                    error = next(data for kind, data in events(answer) if kind == "error")
                else:
                    error = json.loads(answer.read())
            return answer.status_code, error["error"]["code"]

        bodies = [{"prompt": "runs"}, {"prompt": "waits"}, {"prompt": "streams", "stream": True}]
        told = [threads.submit(call, body) for body in bodies]
        httpx2.post(f"{url}/api/jobs", json={"task": "generate", "prompt": "the page's", "n": 1, "steps": 1000})
        ends = time.monotonic() + 20
        while len(states := [job["state"] for job in httpx2.get(f"{url}/api/jobs").json()["jobs"]]) < 4 or (
            "running" not in states
        ):
            assert time.monotonic() < ends, states
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert [one.result() for one in told] == [(status, "server_is_overloaded") for status in (503, 503, 200)]
        assert process.wait(20) == 0
    store = Store(tmp_path)
    jobs = {job.request.prompt: job.state for job in store.jobs("local")}
    store.close()
    assert jobs == {"runs": "cancelled", "waits": "cancelled", "streams": "cancelled", "the page's": "queued"}


def test_a_closed_channel_lets_its_listeners_go_whatever_is_told_yet():
    async def work() -> None:
        channel = Channel("a job")
        channel.close()
        channel.tell("state", {"state": JobState.QUEUED, "position": 0})
        told = [event async for event in channel.listen()]
        assert [event.data["position"] for event in told] == [0]

    asyncio.run(asyncio.wait_for(work(), 5))
