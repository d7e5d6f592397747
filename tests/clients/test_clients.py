"""Every client makes every call that it has, in every form, and meets every error that it can."""

import base64
import re
import time
from dataclasses import replace

import httpx2
import pytest
from cases import COME_AGAIN, LOOKED_UP, NOT_AGAIN, PAINTED, REFUSED, SPEND, STREAMED, TIMED_OUT, Case
from clients import CLIENTS, Client
from live_server import picture


def ways(*cases: Case):
    """Parameters of a test: each client with each case in each form."""
    listed = [(client, case, form) for client in CLIENTS for case, form in client.ways(*cases)]
    return pytest.mark.parametrize(
        ("client", "case", "form"), [pytest.param(*one, id=f"{one[0].name}-{one[1].name}-{one[2]}") for one in listed]
    )


@ways(*PAINTED)
def test_pictures(became, client: Client, case: Case, form: str):
    told = became(client, case, form)
    assert "error" not in told, told
    made = told["answer"]["data"]
    side = int(case.fields.get("size", "1024x1024").partition("x")[0])
    assert len(made) == case.fields.get("n", 1)
    for slot, one in enumerate(made):
        if case.fields.get("response_format") == "b64_json":
            assert not one.get("url")
            data = base64.b64decode(one["b64_json"])
        else:
            assert not one.get("b64_json")
            response = httpx2.get(one["url"])
            assert response.headers["content-type"] == "image/png"
            data = response.content
        assert picture(data).size == (side, side)
        if "seed" in case.extra and "seed" in one:
            assert one["seed"] == case.extra["seed"] + slot


@ways(*STREAMED)
def test_streams(became, client: Client, case: Case, form: str):
    told = became(client, case, form)
    assert "error" not in told, told
    events = told["answer"]
    family = "image_edit" if case.call == "edit" else "image_generation"
    completed = [event for event in events if event["type"] == f"{family}.completed"]
    partial = [event for event in events if event["type"] == f"{family}.partial_image"]
    assert len(completed) == case.fields.get("n", 1)
    assert len(completed) + len(partial) == len(events)
    assert len(partial) <= case.fields["partial_images"] * len(completed)
    assert {picture(base64.b64decode(event["b64_json"])).size for event in completed} == {(1024, 1024)}


@ways(*LOOKED_UP)
def test_models(became, client: Client, case: Case, form: str):
    told = became(client, case, form)
    assert "error" not in told, told
    listed = told["answer"]["data"] if case.call == "models" else [told["answer"]]
    assert [one["id"] for one in listed] == (["dall-e-2", "stub", "second"] if case.call == "models" else ["dall-e-2"])
    assert {(one["object"], one["owned_by"]) for one in listed} == {("model", "unclip")}


@ways(*REFUSED)
def test_errors(became, client: Client, case: Case, form: str):
    error, refusal = became(client, case, form).get("error"), case.refusal
    assert error is not None
    assert refusal is not None
    assert error["kind"] == client.kinds.get(refusal.code, client.kinds[refusal.status])
    assert refusal.words in error["message"]
    assert "x" * 20 not in error["message"]  # a prompt is never repeated
    expected = {"status": refusal.status, "type": refusal.type, "code": refusal.code, "param": refusal.param}
    assert {name: error[name] for name in expected if name in client.shows} == {
        name: value for name, value in expected.items() if name in client.shows
    }
    if "id" in client.shows:
        assert re.fullmatch(r"req_[0-9a-f]{32}", error["id"])


@ways(TIMED_OUT)
def test_timeouts(server, became, client: Client, case: Case, form: str):
    """The client sees its own timeout, and the server works no longer."""
    assert became(client, case, form)["error"]["kind"] == client.kinds[0]
    ends = time.monotonic() + 5
    while any(job["state"] in ("queued", "running") for job in jobs(server)):
        assert time.monotonic() < ends
        time.sleep(0.05)
    slow = [job["state"] for job in jobs(server) if job["request"]["steps"] == 1000]
    assert slow
    assert set(slow) == {"cancelled"}


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_retries(rationing, pictures, client: Client):
    """A fault of ours is sent once; a client that finds no room comes again when it was told to, and is served."""
    cases = [replace(case, key=client.key) for case in (NOT_AGAIN, *SPEND, COME_AGAIN)]
    ways = [(case, form) for case, form in client.ways(*cases) if form == client.forms[0]]
    names = [case.name for case, _ in ways]
    times = 0
    while times < 3:  # on a busy machine there is room again before the client asks: it is not told to come again
        times, before = times + 1, limited(rationing)
        told = client.drive(rationing.url, pictures, ways)
        no_room = [one["error"] for name, one in zip(names, told, strict=True) if name == "spend"]
        no_room = [error for error in no_room if error["status"] == 429]
        if "come-again" not in names or limited(rationing) - before > len(no_room):
            break
    if not client.stubborn:
        told_so = {(error["kind"], error["type"], error["code"]) for error in no_room}
        assert told_so == {(client.kinds[429], "rate_limit_error", "rate_limit_exceeded")}
    if "come-again" in names:
        assert "answer" in told[-1], told[-1]
        assert limited(rationing) - before > len(no_room)
    if "not-again" in names:
        prompts = [job["request"]["prompt"] for job in jobs(rationing, authorization=f"Bearer {client.key}")]
        assert prompts.count("stub: break") == times


def limited(server) -> int:
    """How many calls were told that there is no room."""
    found = re.search(r'event="rate_limited"} (\d+)', server.serving.metrics.text({}))
    return int(found[1]) if found else 0


def jobs(server, **headers: str) -> list[dict]:
    return server.http.get("/api/jobs?limit=200", headers=headers).json()["jobs"]
