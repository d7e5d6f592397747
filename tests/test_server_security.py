"""Who may call the server, from where, how often and how much."""

import itertools
import time
from collections.abc import Iterator

import httpx2
import openai
import pytest
from fastapi.routing import APIRoute
from live_server import live, png
from pydantic import SecretStr

from unclip.cli import VERBS, main
from unclip.errors import ConfigError
from unclip.server import security
from unclip.server.config import ServerConfig
from unclip.server.signing import Signer, load_secret

KEY, OTHER = "sk-first-of-two", "sk-second-of-two"
FOUR = {"message", "type", "param", "code"}
OPEN = {"/", "/healthz", "/readyz", "/api/config", "/pictures/{name}", "/pictures/found/{index}/{edition}/{name}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with live(tmp_path_factory.mktemp("server"), origins=["https://friend.example"], hosts=["paint.example"]) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    with live(
        tmp_path_factory.mktemp("locked"), keys=[KEY, OTHER], azure=True, limits={"json_bytes": 2000, "body_seconds": 0.5}
    ) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def leaves(routes) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from leaves(route.original_router.routes)


# --- keys


def test_every_route_is_closed_unless_it_is_listed(locked):
    routes = list(leaves(locked.server.config.app.routes))
    assert len(routes) > 20
    answers = {}
    for route in routes:
        for method in route.methods or ():
            answers[method, route.path] = locked.http.request(method, route.path.replace("{", "").replace("}", ""))
    closed = {path for (_, path), answer in answers.items() if answer.status_code == 401}
    assert {path for _, path in answers} - closed == OPEN
    for answer in answers.values():
        if answer.status_code == 401:
            assert set(answer.json()["error"]) == FOUR
            assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/metrics", "/openapi.json", "/docs", "/nowhere", "/v1", "/page"):
        assert locked.http.get(path).status_code == 401, path


@pytest.mark.parametrize("given", [None, "", "Bearer", "Basic c2s6", "Bearer sk-wrong-key-1", f"bearer  {KEY}"])
def test_a_key_is_right_or_refused_without_repeating_it(locked, given):
    answer = locked.http.get("/v1/models", headers={} if given is None else {"authorization": given})
    if given and KEY in given:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 401
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert "wrong" not in answer.text


def test_the_official_client_is_told_that_its_key_is_wrong(locked):
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key="sk-nobodys", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.images.generate(prompt="a cat")
        assert caught.value.code == "invalid_api_key"
        client.api_key = OTHER
        assert len(client.images.generate(prompt="a cat", size="256x256").data or []) == 1


def test_what_is_another_keys_is_not_there(locked):
    mine, others = bearer(KEY), bearer(OTHER)
    image = locked.http.post("/api/images", content=png(), headers=mine).json()["id"]
    job = locked.post("/api/jobs", {"task": "variations", "images": [image], "n": 1, "size": 256}, headers=mine).json()["id"]
    name = locked.post("/api/collections", {"name": "mine"}, headers=mine).json()["id"]
    paths = [f"/api/images/{image}", f"/api/images/{image}/thumb", f"/api/images/{image}/info", f"/api/jobs/{job}"]
    paths += [f"/api/jobs/{job}/events", f"/api/collections/{name}"]
    for path in paths:
        for method in ("GET", "DELETE", "PATCH"):
            known = locked.http.request(method, path, headers=others, json={"name": "x"})
            unknown = locked.http.request(
                method, path.replace(image, "x").replace(job, "x"), headers=others, json={"name": "x"}
            )
            assert known.status_code == unknown.status_code in (404, 405)
            assert known.json() == unknown.json()
    taken = {"task": "variations", "images": [image]}
    assert locked.post("/api/jobs", taken, headers=others).status_code == 404
    assert locked.post(f"/api/jobs/{job}/cancel", headers=others).status_code == 404
    assert job not in locked.http.get("/api/jobs", headers=others).text
    assert job in locked.http.get("/api/jobs", headers=mine).text
    assert locked.http.get(f"/api/images/{image}", headers=mine).status_code == 200


def test_a_public_address_needs_a_key(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(VERBS, "serve", ("unclip.cli.serve", "Serve the page and the API."))
    with pytest.raises(ConfigError, match="no key is set"):
        ServerConfig(host="0.0.0.0")
    assert main(["serve", "--host", "0.0.0.0", "--data", str(tmp_path / "data")]) == 2
    assert "no key is set" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    assert main(["serve", "--api-key", "short", "--data", str(tmp_path / "data")]) == 2
    assert "short" not in capsys.readouterr().err
    assert "sk-first" not in repr(ServerConfig(host="0.0.0.0", keys=(SecretStr(KEY),)))


# --- browsers


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "paint.example.evil"]
)
def test_a_strangers_host_name_is_refused(server, host):
    answer = server.http.get("/api/jobs", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "paint.example", "a.localhost", "10.0.0.7:80"]
)
def test_loopback_addresses_and_named_hosts_are_answered(server, host):
    assert server.http.get("/api/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("how", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}])
@pytest.mark.parametrize("path", ["/v1/images/variations", "/v1/images/generations", "/api/jobs", "/api/images"])
def test_another_origins_page_changes_nothing(server, how, path):
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        answer = server.http.post(path, content=b"{}", headers={**how, "content-type": kind})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in server.http.options(path, headers=asked).headers


def test_the_own_page_and_named_origins_may_call(server):
    own = {"origin": server.url}
    assert server.post("/api/collections", {"name": "own"}, headers=own).status_code == 201
    friend = {"origin": "https://friend.example", "access-control-request-method": "POST"}
    asked = {**friend, "access-control-request-headers": "authorization, x-stainless-os, x-evil"}
    answer = server.http.options("/v1/images/generations", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert answer.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert server.http.get("/v1/models", headers=friend).headers["access-control-allow-origin"] == "https://friend.example"


def test_no_answer_can_run_or_be_framed(server):
    for path in ("/", "/page/style.css", "/api/jobs", "/v1/models", "/nowhere"):
        headers = server.http.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
    page = server.http.get("/").text
    assert page.count("<script") == page.count('<script type="module" src=')
    assert " onclick" not in page
    assert " style=" not in page


@pytest.mark.parametrize(
    "path", ["../config.py", "%2e%2e/config.py", "..%2fconfig.py", "..%5cconfig.py", "/etc/passwd", "%00"]
)
def test_no_file_outside_the_page_is_read(server, path):
    for base in ("/page/", "/pictures/", "/api/images/"):
        answer = server.http.get(base + path)
        assert answer.status_code in (400, 403, 404)
        assert set(answer.json()["error"]) == FOUR


# --- how much and how often


def test_a_body_is_capped_before_it_is_parsed(locked):
    headers = {**bearer(KEY), "content-type": "application/json"}
    large = locked.http.post("/v1/images/generations", content=bytes(5000), headers=headers)
    assert (large.status_code, set(large.json()["error"])) == (413, FOUR)
    chunks = locked.http.post("/v1/images/generations", content=iter([bytes(500)] * 20), headers=headers)
    assert chunks.status_code == 413
    form = locked.http.post("/v1/images/variations", files={"image": bytes(9 << 20)}, headers=bearer(KEY))
    assert form.status_code == 400
    assert "less than 4 MB" in form.json()["error"]["message"]


def test_a_body_that_drips_is_not_waited_for(locked):
    def drip():
        for _ in range(5):
            yield b"{"
            time.sleep(0.2)

    headers = {**bearer(KEY), "content-type": "application/json"}
    assert locked.http.post("/v1/images/generations", content=drip(), headers=headers).status_code == 408


def test_a_bucket_refills_evenly_by_its_own_clock():
    now = [0.0]
    limit = security.RateLimit(60, clock=lambda: now[0])
    assert [limit.take("a")[0] for _ in range(61)] == [True] * 60 + [False]
    granted, headers, wait = limit.take("a")
    assert not granted
    assert (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-reset-requests"]) == ("0", "1m0s")
    assert wait == 1000
    assert limit.take("b")[0]
    now[0] += 2.001
    assert [limit.take("a")[0] for _ in range(3)] == [True, True, False]


def test_the_limit_is_a_keys_own_and_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    with live(tmp_path, keys=[KEY, OTHER], limits={"requests_per_minute": 120}) as server:

        def paint(key: str, size: str) -> httpx2.Response:
            return server.post("/v1/images/generations", {"prompt": "a cat", "size": size}, headers=bearer(key))

        jumps = itertools.cycle([0, 86_400, -86_400])
        monkeypatch.setattr(time, "time", lambda real=time.time: real() + next(jumps))
        since = time.monotonic()
        answers = [paint(KEY, "7") for _ in range(180)]  # wrong, and counted all the same
        refilled = (time.monotonic() - since) * 120 / 60
        granted = [answer for answer in answers if answer.status_code == 400]
        assert 119 <= len(granted) <= 121 + refilled
        left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
        assert left[0] == 119
        assert all(a >= b - 1 for a, b in itertools.pairwise(left))
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 0 < int(refused.headers["retry-after-ms"]) <= 500
        assert refused.headers["retry-after"] == "1"
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=3) as client:
            assert len(client.images.generate(prompt="a cat", size="256x256").data or []) == 1  # it waits as it is told
        assert paint(OTHER, "256x256").headers["x-ratelimit-remaining-requests"] == "119"


def test_a_forms_worst_moments_are_no_fault_of_ours(server):
    def told(body: bytes, kind: str = "multipart/form-data; boundary=x") -> httpx2.Response:
        return server.http.post("/v1/images/edits", content=body, headers={"content-type": kind})

    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
    bodies = [
        b"",
        b"--x",
        part,
        part * 5000,
        b"--x\r\n" + b"h: " + b"v" * 70_000,
        b"--x\r\nContent-Disposition: form-data\r\n\r\n",
    ]
    bodies += [b'--x\r\nContent-Disposition: form-data; name="\xff\0"; filename="../../\0"\r\n\r\n\r\n--x--\r\n']
    for body in bodies:
        assert told(body).status_code == 400
    for kind in (
        "multipart/form-data",
        "multipart/form-data; boundary=" + "x" * 5000,
        "multipart/form-data; charset=no; boundary=x",
    ):
        assert told(part, kind).status_code == 400


# --- urls that are signed


def test_a_signed_url_is_good_for_its_picture_and_its_hour(server, tmp_path, monkeypatch):
    url = server.paint().json()["data"][0]["url"]
    assert httpx2.get(url).status_code == 200
    assert httpx2.get(url).headers["cross-origin-resource-policy"] == "cross-origin"
    forged = [url[:-1] + "0", url[:-1] + "1", url.replace("expires=1", "expires=9"), url.partition("?")[0], url + "é"]
    for other in forged[int(url.endswith("0")) :][:1] + forged[2:]:
        assert httpx2.get(other).json()["error"]["code"] == "invalid_signature"
    id = url.rpartition("/")[2].partition(".")[0]
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3601)
    assert httpx2.get(url).json()["error"]["code"] == "url_expired"
    secret = load_secret(tmp_path)
    assert load_secret(tmp_path) == secret
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    Signer(secret, 60).check(id, *Signer(secret, 60).url("", id).partition("expires=")[2].split("&signature="))
