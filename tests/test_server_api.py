"""The page's own doors: jobs and their events, pictures, collections, and what whoever runs the server sees."""

import base64
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from live_server import Live, events, live, picture, png

from unclip.server.metrics import Metrics
from unclip.server.provenance import COLOURS
from unclip.server.security import Guard

ENDED = ("done", "failed", "cancelled")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with live(tmp_path_factory.mktemp("server"), stub_step_seconds=0.01) as running:
        yield running


def submit(server: Live, **fields) -> dict:
    answer = server.post("/api/jobs", {"task": "generate", "prompt": "a cat", "n": 2, "size": 256, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def ended(server: Live, id: str, within: float = 10) -> dict:
    until = time.monotonic() + within
    while (job := server.http.get(f"/api/jobs/{id}").json())["state"] not in ENDED:
        assert time.monotonic() < until
        time.sleep(0.02)
    return job


def test_the_page_learns_what_it_needs(server):
    told = server.http.get("/api/config").json()
    assert told["models"] == ["dall-e-2", "stub"]
    assert (told["sizes"], told["max_n"], told["prompt_limit"]) == ([256, 512, 1024], 10, 1000)
    assert "outpaint" in told["tasks"]
    assert (told["key_required"], told["signature"]) == (False, False)
    prompts = {server.http.get("/api/surprise").json()["prompt"] for _ in range(20)}
    assert len(prompts) > 3


def test_a_job_is_made_followed_and_found_again(server):
    job = submit(server, seed=3, steps=60)
    assert (job["state"], job["request"]["seed"], job["images"]) == ("queued", 3, [None, None])
    with server.http.stream("GET", f"/api/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = list(events(response))
    assert told[-1] == ("state", {"job": job["id"], "state": "done"})
    images = {data["slot"]: data for kind, data in told if kind == "image"}
    assert [images[slot]["seed"] for slot in (0, 1)] == [3, 4]
    assert {kind for kind, _ in told} == {"state", "progress", "preview", "image"}
    done = ended(server, job["id"])
    assert done["images"] == [images[0]["image"], images[1]["image"]]
    assert (done["progress"], done["attempts"], done["error"]) == (1.0, 1, None)
    assert "owner" not in done
    assert server.http.get("/api/jobs?limit=1").json()["jobs"] == [done]
    assert done not in server.http.get(f"/api/jobs?before={job['id']}").json()["jobs"]


def test_a_call_that_streams_shows_previews_before_the_picture(server):
    body = {"prompt": "a cat", "size": "256x256", "stream": True, "partial_images": 1, "num_inference_steps": 100}
    with server.http.stream("POST", "/v1/images/generations", json=body) as response:
        told = list(events(response))
    assert [kind for kind, _ in told] == ["image_generation.partial_image", "image_generation.completed"]
    sides = [picture(base64.b64decode(data["b64_json"])).width for _, data in told]
    assert sides[0] <= 64
    assert sides[1] == 256
    assert told[0][1]["partial_image_index"] == 0


def test_a_stream_goes_on_where_it_was_left(server):
    job = submit(server, n=1)
    with server.http.stream("GET", f"/api/jobs/{job['id']}/events") as response:
        lines = [line for line in response.iter_lines() if line.startswith("id: ")]
    last = int(lines[-1].removeprefix("id: "))
    assert [int(line.removeprefix("id: ")) for line in lines] == sorted({int(line[4:]) for line in lines})
    again = server.http.get(f"/api/jobs/{job['id']}/events", headers={"last-event-id": str(last - 1)})
    assert again.text.count("event: state") == 1
    odd = server.http.get(f"/api/jobs/{job['id']}/events", headers={"last-event-id": "nonsense"})
    assert odd.status_code == 200


def test_one_stream_tells_of_all_jobs(server):
    with server.http.stream("GET", "/api/events") as response:
        job = submit(server)
        seen = []
        for kind, data in events(response):
            seen.append((kind, data["job"], data.get("state")))
            if data.get("state") in ENDED:
                break
    assert {told[1] for told in seen} == {job["id"]}
    assert [told[0] for told in seen].count("image") == 2
    assert seen[-1] == ("state", job["id"], "done")


def test_a_job_is_cancelled_and_forgotten(server):
    job = submit(server, steps=1000)
    answer = server.post(f"/api/jobs/{job['id']}/cancel")
    assert answer.json()["state"] == "cancelled"
    assert server.post(f"/api/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert server.http.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert server.http.get(f"/api/jobs/{job['id']}").status_code == 404
    done = submit(server, n=1)
    image = ended(server, done["id"])["images"][0]
    assert server.http.delete(f"/api/jobs/{done['id']}").status_code == 204
    assert server.http.get(f"/api/images/{image}").status_code == 404
    running = submit(server, steps=1000)
    assert server.http.delete(f"/api/jobs/{running['id']}").status_code == 204


def begun(server: Live, id: str, within: float = 10) -> None:
    until = time.monotonic() + within
    while server.http.get(f"/api/jobs/{id}").json()["state"] == "queued":
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_queue_is_moved_taken_back_and_cleared(tmp_path):
    with live(tmp_path, stub_step_seconds=0.02, batch=1) as server:
        running, a, b, c = [submit(server, steps=1000) for _ in range(4)]
        begun(server, running["id"])
        moved = server.post(f"/api/jobs/{c['id']}/move", {"before": a["id"]})
        assert (moved.status_code, moved.json()["position"]) == (200, 0)
        listed = {job["id"]: job["position"] for job in server.http.get("/api/jobs").json()["jobs"]}
        assert listed == {running["id"]: None, c["id"]: 0, a["id"]: 1, b["id"]: 2}
        assert server.post(f"/api/jobs/{c['id']}/move", {"before": None}).json()["position"] == 2
        for id, before in ((running["id"], a["id"]), (a["id"], running["id"])):
            refused = server.post(f"/api/jobs/{id}/move", {"before": before})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_queued")
        assert server.post(f"/api/jobs/{a['id']}/move", {"before": "nobodys"}).status_code == 404
        assert server.post(f"/api/jobs/{a['id']}/move", {"before": 3}).json()["error"]["param"] == "before"
        assert server.post(f"/api/jobs/{a['id']}/move", {}).json()["error"]["param"] == "before"
        taken = server.post(f"/api/jobs/{a['id']}/withdraw").json()
        assert (taken["request"], taken["state"]) == (a["request"], "cancelled")
        assert server.http.get(f"/api/jobs/{a['id']}").status_code == 404
        assert server.post(f"/api/jobs/{running['id']}/withdraw").status_code == 409
        assert server.post("/api/jobs/cancel?waiting=true").json() == {"ids": [b["id"], c["id"]]}
        assert server.post("/api/jobs/cancel").json() == {"ids": [running["id"]]}
        assert server.post("/api/jobs/cancel").json() == {"ids": []}


def test_one_picture_is_left_out(server):
    job = submit(server, steps=100)
    path = f"/api/jobs/{job['id']}/slots"
    assert server.post(f"{path}/1/cancel").json()["dropped"] == [1]
    done = ended(server, job["id"])
    assert (done["state"], done["dropped"], done["images"][1]) == ("done", [1], None)
    assert server.post(f"{path}/0/cancel").json() == done  # too late
    assert server.post(f"{path}/2/cancel").status_code == 404
    assert server.post(f"{path}/-1/cancel").json()["error"]["param"] == "slot"
    assert server.post("/api/jobs/nobodys/slots/0/cancel").status_code == 404


def test_a_refusal_says_why_at_both_doors(server):
    why = "The model cannot serve this request: the stub was asked to refuse."
    failed = ended(server, submit(server, prompt="stub: refuse")["id"])
    assert (failed["error"], failed["detail"]) == ("refused", "the stub was asked to refuse")
    answer = server.paint(prompt="stub: refuse")
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, why)
    with server.http.stream("POST", "/v1/images/generations", json={"prompt": "stub: refuse", "stream": True}) as response:
        assert [data["error"]["message"] for _, data in events(response)] == [why]
    broken = ended(server, submit(server, prompt="stub: break")["id"])
    assert (broken["error"], broken["detail"]) == ("internal", None)


def test_a_call_whose_picture_was_left_out_was_cancelled(server):
    def leave_out() -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            (job,) = server.http.get("/api/jobs?limit=1").json()["jobs"]
            if job["request"]["prompt"] == "half a pair":
                server.post(f"/api/jobs/{job['id']}/slots/0/cancel")
                return

    with ThreadPoolExecutor(1) as pool:
        pool.submit(leave_out)
        answer = server.paint(prompt="half a pair", n=2, num_inference_steps=100)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "cancelled")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"task": "paint"}, "task", "Supported values are: 'generate'"),
        ({"size": 300}, "size", "'256', '512', and '1024'"),
        ({"n": "4"}, "n", "expected an integer"),
        ({"n": 11}, "n", "<= 10"),
        ({"strength": 0}, "strength", "> 0"),
        ({"theta": [0.7]}, "theta", "0.5"),
        ({"prompt": "x" * 1001}, "prompt", "1000 or less"),
        ({"prompt": None}, None, "generate needs a prompt"),
        ({"images": ["nobodys"]}, None, "generate takes 0 images"),
        ({"task": "variations", "images": ["nobodys"]}, None, "no such picture"),
        ({"model": "dall-e-3"}, "model", "does not exist"),
        ({"colour": "red"}, "colour", "Unknown parameter"),
    ],
)
def test_a_wrong_job_is_named_in_our_words(server, fields, param, words):
    answer = server.post("/api/jobs", {"task": "generate", "prompt": "a cat", **fields})
    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_a_picture_is_stored_shown_and_removed(server):
    made = server.http.post("/api/images?kind=upload", content=png((300, 200), hole=True)).json()
    assert (made["width"], made["height"]) == (300, 200)
    back = server.http.get(f"/api/images/{made['id']}")
    assert picture(back.content).getpixel((1, 1))[3] == 0
    assert "immutable" in back.headers["cache-control"]
    again = server.http.get(f"/api/images/{made['id']}", headers={"if-none-match": back.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert picture(server.http.get(f"/api/images/{made['id']}/thumb").content).size == (256, 171)
    info = server.http.get(f"/api/images/{made['id']}/info").json()
    assert (info["kind"], info["parents"], info["settings"]) == ("upload", [], {})
    assert "owner" not in info
    assert server.http.delete(f"/api/images/{made['id']}").status_code == 204
    assert server.http.get(f"/api/images/{made['id']}").status_code == 404
    assert server.http.post("/api/images?kind=else", content=png()).json()["error"]["param"] == "kind"


def test_a_mask_is_black_and_white(server):
    by_alpha = server.http.post("/api/images?kind=mask", content=png(hole=True)).json()["id"]
    by_paint = server.http.post("/api/images?kind=mask", content=png(colour=(255, 255, 255, 255))).json()["id"]
    masks = [picture(server.http.get(f"/api/images/{id}").content) for id in (by_alpha, by_paint)]
    assert [mask.mode for mask in masks] == ["L", "L"]
    assert [masks[0].getpixel(place) for place in ((5, 32), (60, 32))] == [255, 0]
    assert [masks[1].getpixel(place) for place in ((0, 0), (32, 32))] == [0, 255]


def test_a_made_picture_carries_its_settings_unless_stripped(server):
    job = submit(server, n=1, prompt="a secret cat")
    image = ended(server, job["id"])["images"][0]
    plain = server.http.get(f"/api/images/{image}").content
    assert b"a secret cat" in plain
    assert b"trainedAlgorithmicMedia" in plain
    stripped = server.http.get(f"/api/images/{image}?settings=false").content
    assert b"secret" not in stripped
    assert b"trainedAlgorithmicMedia" in stripped
    signed = picture(server.http.get(f"/api/images/{image}?signature=true").content)
    assert signed.getpixel((255, 255)) == tuple(bytes.fromhex(COLOURS[-1][1:]))
    assert signed.getpixel((256 - 20, 255)) == tuple(bytes.fromhex(COLOURS[0][1:]))
    assert signed.crop((0, 0, 256, 252)).tobytes() == picture(plain).crop((0, 0, 256, 252)).tobytes()


def test_every_task_is_taken(server):
    a, b = (server.http.post("/api/images", content=png(colour=colour)).json()["id"] for colour in ("red", "blue"))
    mask = server.http.post("/api/images?kind=mask", content=png(hole=True)).json()["id"]
    asked = [
        ({"task": "variations", "images": [a], "prompt": None}, 2),
        ({"task": "inpaint", "images": [a], "mask": mask}, 2),
        ({"task": "outpaint", "images": [a], "left": 64}, 2),
        ({"task": "interpolate", "images": [a, b], "frames": 3}, 3),
        ({"task": "text_diff", "images": [a], "old": "a cat", "new": "a dog", "theta": [0.1, 0.3]}, 2),
        ({"task": "image_to_image", "images": [a], "strength": 0.5}, 2),
    ]
    for fields, pictures in asked:
        job = ended(server, submit(server, steps=2, **fields)["id"])
        assert (job["state"], len(job["images"])) == ("done", pictures)
        info = server.http.get(f"/api/images/{job['images'][0]}/info").json()
        assert info["parents"][0] == a


def test_collections(server):
    images = [server.http.post("/api/images", content=png()).json()["id"] for _ in range(2)]
    made = server.post("/api/collections", {"name": "cats"}).json()
    path = f"/api/collections/{made['id']}"
    for image in images:
        server.post(f"{path}/images/{image}")
    assert server.http.delete(f"{path}/images/{images[0]}").json()["images"] == [images[1]]
    assert server.http.patch(path, json={"name": "dogs"}).json()["name"] == "dogs"
    assert [one["name"] for one in server.http.get("/api/collections").json()["collections"]][-1] == "dogs"
    assert server.post(f"{path}/images/nobodys").status_code == 404
    assert server.post("/api/collections", {"name": ""}).json()["error"]["param"] == "name"
    assert server.http.delete(path).status_code == 204
    assert server.http.patch(path, json={"name": "x"}).status_code == 404
    assert server.http.get(f"/api/images/{images[1]}").status_code == 200


def test_metrics_tell_by_route_and_hold_no_words(server):
    server.paint(prompt="a secret wish")
    server.http.get("/api/images/a-secret-id")
    text = server.http.get("/metrics").text
    assert 'unclip_requests_total{method="POST",route="/v1/images/generations",status="200"}' in text
    assert 'route="/api/images/{id}",status="404"' in text
    assert "unclip_engine_queued" in text
    assert "secret" not in text
    counted = Metrics()
    counted.request("GET", "/x", 200, 0.05)
    assert 'unclip_request_seconds_bucket{route="/x",le="0.02"} 0\n' in counted.text({})
    assert 'unclip_request_seconds_bucket{route="/x",le="0.1"} 1\n' in counted.text({})


def test_a_fault_is_told_in_four_keys_and_logged_without_words(server, monkeypatch, caplog):
    def broken(*args):
        raise KeyError("a secret prompt")

    monkeypatch.setattr(server.store, "jobs", broken)
    answer = server.http.get("/api/jobs")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"] in caplog.text
    assert "KeyError at" in caplog.text
    assert "secret" not in caplog.text + answer.text
    assert Guard.__name__ not in answer.text


def test_health_and_readiness(server):
    assert server.http.get("/healthz").json() == {"status": "ok"}
    until = time.monotonic() + 10
    while server.http.get("/readyz").status_code != 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert server.http.get("/readyz").json() == {"status": "ready"}


def test_the_command_drains_on_sigterm_and_keeps_its_history(tmp_path):
    code = "import sys; from unclip.cli.serve import app; app(standalone_mode=False)"
    command = [sys.executable, "-c", code, "--model", "stub", "--port", "0", "--data", str(tmp_path / "data")]
    command += ["stub_step_seconds=0.05", "grace_seconds=20"]

    def started() -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        assert process.stdout
        return process, process.stdout.readline().strip()

    process, url = started()
    with process:
        job = httpx2.post(f"{url}/api/jobs", json={"task": "generate", "prompt": "a", "n": 1, "steps": 30}).json()
        while httpx2.get(f"{url}/api/jobs/{job['id']}").json()["state"] != "running":
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert httpx2.get(f"{url}/readyz").status_code == 503
        refused = httpx2.post(f"{url}/v1/images/generations", json={"prompt": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_is_overloaded")
        assert process.wait(20) == 0
        assert process.stderr
        assert "Traceback" not in process.stderr.read()
    process, url = started()
    with process:
        assert httpx2.get(f"{url}/api/jobs/{job['id']}").json()["state"] == "done"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_what_keeps_the_server_from_starting_is_one_line(tmp_path, capsys):
    from unclip.cli.serve import _run
    from unclip.errors import ConfigError
    from unclip.server.config import ServerConfig

    with live(tmp_path / "taken") as running:
        taken = ServerConfig(model="stub", data=tmp_path / "other", port=int(running.url.rpartition(":")[2]))
        with pytest.raises(ConfigError, match="cannot listen on 127"):
            _run(taken, quiet=True)
        with pytest.raises(ConfigError, match="another server has the data folder"):
            _run(ServerConfig(model="stub", data=tmp_path / "taken", port=0), quiet=True)
    with pytest.raises(ConfigError, match="blocked words"):
        _run(ServerConfig(model="stub", data=tmp_path / "third", port=0, blocked_words=tmp_path / "none"), quiet=True)
    assert capsys.readouterr().out == ""
