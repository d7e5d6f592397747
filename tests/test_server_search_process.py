"""The process that searches: how it is started, dies alone, hangs, fills up, drains, and sees that an index has changed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import numpy as np
import pytest
from live_server import live
from toy_clip import save_clip
from toy_index import Indexed, of_others
from toy_search import drawn

from unclip.errors import ConfigError, UnclipError
from unclip.search import approximate
from unclip.search.layout import Index
from unclip.server.app import drain
from unclip.server.config import ServerConfig
from unclip.server.search.queries import Found, Query
from unclip.server.search.seeker import Seeker

LIMITS = {"search_seconds": 3.0, "searches": 12, "searches_per_minute": 100_000}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Indexed(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    """Two indices beside it: one of others without a manifest, and one without rows."""
    folder = tmp_path_factory.mktemp("foreign")
    z = made.clip.texts(["a red disc", "a cat on a mat"]).numpy()
    of_others(
        folder / "laion",
        z,
        url=["https://example.org/1.jpg", None],
        caption=[b"one", b"two"],
        NSFW=[np.nan, 0.5],
        key=[1, 2],
    )
    of_others(folder / "empty", z[:0])
    indices = made.config["indices"] | {"laion": folder / "laion", "empty": folder / "empty"}
    config = made.config | {"indices": indices, "clips": dict.fromkeys(indices, str(made.where))}
    with live(tmp_path_factory.mktemp("server"), **config, limits=LIMITS) as running:
        yield running


def knn(server, **fields):
    asked = {"num_images": 1} | ({} if {"image", "embedding_input"} & fields.keys() else {"text": "a cat"})
    return server.http.post("/knn-service", content=json.dumps(asked | fields))


def search(server, **fields):
    return server.post("/api/search", {"index": "photos", "text": "a", **fields})


def metric(server, name: str) -> float:
    return float(server.http.get("/metrics").text.partition(f"\nunclip_search_{name} ")[2].split()[0])


def pid_of(server) -> int:
    return server.serving.finder._child.pid


def until(holds, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.02)


# --- the start


def test_what_cannot_be_opened_is_told_in_one_line_before_anything_is_served(made, tmp_path):
    code = "import sys; from unclip.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", "--model", "stub", "--port", "0", "--data", str(tmp_path)]
    done = subprocess.run([*command, "--index", str(made.path)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: cannot open clip, the CLIP of {made.path}: ")  # its name is no place
    assert line.endswith("; or name it with clips.photos=FOLDER")


def test_every_index_needs_a_clip_of_its_own(made, tmp_path):
    of_others(tmp_path / "foreign", np.ones((2, 3)), url=["a", "b"])
    other = save_clip(tmp_path / "other", seed=2)
    for index, clips, words in (
        (tmp_path, {}, "is no index: expected a folder with"),
        (tmp_path / "foreign", {}, "does not say which CLIP made it: name that with clips.x="),
        (tmp_path / "foreign", {"x": str(made.where)}, "has embeddings of 3 numbers, but those of clip have"),
        (made.path, {"x": str(other)}, "was made with another CLIP, clip"),
    ):
        with pytest.raises(UnclipError, match=words):
            Seeker(ServerConfig.parse({"indices": {"x": index}, "clips": clips, "device": "cpu"}))


@pytest.mark.parametrize(
    ("indices", "clips", "words"),
    [
        (["a b.index"], {}, "'a b' cannot be a name"),
        (["../x/..index"], {}, "cannot be a name"),
        (["one/p.index", "two/p.index"], {}, "two indices have one name"),
        ({"p/q": "x"}, {}, "'p/q' cannot be a name"),
        (["p.index"], {"q": "icons"}, "there is no index 'q', only p"),
        ([], {"q": "icons"}, "none at all"),
    ],
)
def test_names_that_cannot_be_are_refused(indices, clips, words):
    with pytest.raises(ConfigError, match=words):
        ServerConfig.parse({"indices": indices, "clips": clips})


def test_an_index_is_named_by_its_stem_or_as_it_is_told():
    parsed = ServerConfig.parse({"indices": ["a/photos.index", "x=b=c.index", "./films"]}).indices
    told = {"photos": "a/photos.index", "x": "b=c.index", "films": "films"}
    assert {name: str(path) for name, path in parsed.items()} == told


def test_past_many_rows_the_cells_are_asked(made, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    of_others(tmp_path / "large", rng.normal(size=(approximate.LEAST, made.clip.width)), url=["a"] * approximate.LEAST)
    config = ServerConfig.parse({"indices": [tmp_path / "large"], "clips": {"large": str(made.where)}, "device": "cpu"})
    query = Query(index="large", k=1, embedding=tuple(rng.normal(size=made.clip.width).tolist()))
    [exact] = Seeker(config).find([query])
    about = approximate.compress(Index(tmp_path / "large"))
    monkeypatch.setattr(approximate, "MANY", 1000)
    seeker = Seeker(config)
    [found, shots] = seeker.find([query, replace(query, shots=True)])
    assert isinstance(seeker._opened["large"].find("image").__self__, approximate.Approximate)
    assert isinstance(found, Found)
    assert isinstance(shots, Found)
    assert [hit.id for hit in shots.hits] == [hit.id for hit in found.hits]
    assert about.recall < 1 or found == exact


# --- its death, and who waits


def test_it_dies_alone_and_is_started_again(server):
    first, restarts = pid_of(server), metric(server, "restarts")
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(knn, server)
        until(lambda: metric(server, "waiting") == 1)
        assert server.paint().status_code == 200  # painting goes on
        os.kill(first, signal.SIGKILL)
        answer = waiting.result(20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert "retry-after-ms" in answer.headers
    until(lambda: metric(server, "ready") == 1)
    assert knn(server).status_code == 200
    assert pid_of(server) != first
    assert metric(server, "restarts") == restarts + 1


def test_one_that_is_slow_is_left_alone_and_one_that_hangs_is_killed(server):
    assert knn(server).status_code == 200
    pid, late = pid_of(server), metric(server, "late")
    server.serving.finder._answered["find"] = time.monotonic() + 60  # as if others were answered all the time
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert knn(server).status_code == 503
    assert 0.9 * LIMITS["search_seconds"] < time.monotonic() - began < 20
    os.kill(pid, signal.SIGCONT)
    until(lambda: knn(server).status_code == 200)
    assert pid_of(server) == pid
    os.kill(pid, signal.SIGSTOP)
    assert knn(server).status_code == 503
    assert metric(server, "late") == late + 2
    until(lambda: metric(server, "ready") == 1 and pid_of(server) != pid)
    assert knn(server).status_code == 200


def test_so_many_wait_and_no_more_and_are_answered_together_as_alone(server, made):
    asked = [{"text": f"a {word}"} for word in ("cat", "disc", "square", "star")]
    asked += [{"text": "a cat", "modality": "text"}, {"text": "a mat", "num_images": 9}, {"indice_name": "laion"}]
    asked += [{"embedding_input": [1.0]}, {"embedding_input": [0.0] * made.clip.width}, {"image": "aGVsbG8="}]
    asked += [{"indice_name": "empty", "deduplicate": True}, {"text": "a cat", "deduplicate": True, "num_images": 9}]
    assert len(asked) == LIMITS["searches"]
    alone = [knn(server, **fields) for fields in asked]
    assert [answer.status_code for answer in alone] == [200] * 7 + [400] * 3 + [200] * 2
    rejected = metric(server, "rejected")
    os.kill(pid_of(server), signal.SIGSTOP)
    with ThreadPoolExecutor(16) as threads:
        together = [threads.submit(knn, server, **fields) for fields in asked]
        until(lambda: metric(server, "waiting") == len(asked))
        for answer in (knn(server), search(server)):
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert int(answer.headers["retry-after-ms"]) > 0
        os.kill(pid_of(server), signal.SIGCONT)
        for one, other in zip(alone, (told.result(20) for told in together), strict=True):
            assert one.status_code == other.status_code
            if one.status_code == 200:
                pairs = list(zip(one.json(), other.json(), strict=True))
                assert [hit["id"] for hit, _ in pairs] == [hit["id"] for _, hit in pairs]
                assert all(abs(a["similarity"] - b["similarity"]) < 1e-2 for a, b in pairs)
    assert metric(server, "waiting") == 0
    assert metric(server, "rejected") == rejected + 2


def test_a_server_that_stops_answers_who_waits_and_leaves_nothing(made, tmp_path):
    threads_before = threading.active_count()
    with live(tmp_path, **made.config, limits={"searches_per_minute": 2}) as server, ThreadPoolExecutor() as threads:
        assert knn(server).status_code == 200
        pid = pid_of(server)
        os.kill(pid, signal.SIGSTOP)
        waiting = threads.submit(knn, server)
        until(lambda: metric(server, "waiting") == 1)
        limited = knn(server)  # so many a minute
        assert (limited.status_code, limited.headers["x-ratelimit-limit-requests"]) == (429, "2")
        draining = asyncio.run_coroutine_threadsafe(drain(server.server.config.app), server.serving.finder._child._loop)
        until(lambda: httpx2.get(f"{server.url}/readyz").status_code == 503)
        refusal = httpx2.post(f"{server.url}/metadata", json={"ids": [0], "indice_name": "photos"})
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "server_is_overloaded")
        os.kill(pid, signal.SIGCONT)
        assert waiting.result(20).status_code == 200
        draining.result(20)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert threading.active_count() == threads_before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "lock", "secret", "unclip.db"]


# --- indices that change, and those of others


def test_an_index_that_was_made_anew_is_the_one_that_is_asked(server, made):
    before = search(server).json()
    place = f"/api/search/photos/{before['edition']}/{before['hits'][0]['id']}"
    assert server.http.get(place).status_code == 200
    drawn(99).save(made.pictures / "zz.png")
    made.make()
    after = search(server).json()
    assert (after["total"], after["edition"] != before["edition"]) == (before["total"] + 1, True)
    assert any(hit["name"].endswith("zz.png") for hit in after["hits"])
    for answer in (server.http.get(place), search(server, text=None, like={"edition": before["edition"], "id": 0})):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "index_changed")
    assert server.http.get("/api/config").json()["indices"]["photos"] == after["total"]


def test_an_index_of_others_is_told_as_far_as_json_has_it(server):
    [first, second] = knn(server, text="a red disc", num_images=2, indice_name="laion").json()
    assert 0.99 < first.pop("similarity") <= 1.001
    assert second.pop("similarity") < 0.99
    assert first == {"id": 0, "url": "https://example.org/1.jpg", "caption": "one"}
    assert second == {"id": 1, "caption": "two", "NSFW": 0.5}
    told = search(server, index="laion", text="a red disc").json()
    assert (told["hits"][0]["url"], told["hits"][0]["name"]) == ("https://example.org/1.jpg", None)
    assert server.http.get(f"/api/search/laion/{told['edition']}/0").status_code == 404
    assert knn(server, indice_name="empty").json() == []
    assert search(server, index="empty").json()["hits"] == []
    refusal = knn(server, modality="text", indice_name="laion")
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (400, "no_captions")
