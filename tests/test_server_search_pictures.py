"""Pictures of an index over HTTP: by index and row, for who has a key or a signed url, drawn anew, or not there."""

import base64
import http.client
import json
import os
import re
import struct
import zlib

import numpy as np
import pytest
from live_server import live
from PIL import Image
from toy_index import Indexed, opened
from toy_search import drawn

KEY, OTHER = "sk-first-of-two", "sk-second-of-two"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Indexed(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    """One that has keys, of whom the first calls."""
    with live(tmp_path_factory.mktemp("server"), **made.config, keys=[KEY, OTHER]) as running:
        running.http.headers["authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="module")
def rows(server):
    """What was found, by the names of the files."""
    found = server.post("/api/search", {"index": "photos", "text": "a", "n": 200}).json()
    return {(hit["name"], hit["time"]): f"/api/search/photos/{found['edition']}/{hit['id']}" for hit in found["hits"]}


def knn(server, **fields):
    return server.http.post("/knn-service", content=json.dumps({"text": "a", "num_images": 20, **fields}))


def near(image: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures show the same, give or take what packing does."""
    small = [np.asarray(one.convert("RGB").resize((12, 9)), np.float32) for one in (image, other)]
    return float(np.abs(small[0] - small[1]).mean()) < 12


# --- what is drawn


def test_each_kind_of_file_is_drawn_as_a_jpeg_of_its_size_or_less(server, rows):
    assert len(rows) == 14
    for place, (width, height) in {("photo.jpg", None): (90, 60), ("moving.gif", None): (40, 30)}.items():
        for path in (rows[place], f"{rows[place]}/thumb"):
            answer = server.http.get(path)
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "immutable" in answer.headers["cache-control"]
            assert opened(answer.content).size == (width, height)
    shown = {place: opened(server.http.get(path).content) for place, path in rows.items()}
    assert near(shown["003.png", None], drawn(3))
    assert near(shown["shard.tar#b", None], drawn(23))
    for time, number in ((0.0, 30), (1.0, 31)):
        assert near(shown["film.mp4", time], drawn(number, (64, 48)))
        assert not near(shown["film.mp4", 1.0 - time], drawn(number, (64, 48)))


def test_large_pictures_are_made_small_and_upright(server, made):
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    Image.fromarray(noise).resize((3200, 2400), Image.Resampling.NEAREST).save(made.pictures / "000.png")
    Image.fromarray(noise).resize((1600, 1200), Image.Resampling.NEAREST).save(made.pictures / "photo.jpg", exif=exif)
    found = server.post("/api/search", {"index": "photos", "text": "a", "n": 200}).json()
    sizes = {}
    for hit in found["hits"]:
        place = f"/api/search/photos/{found['edition']}/{hit['id']}"
        if hit["name"] in ("000.png", "photo.jpg"):
            sizes[hit["name"]] = [opened(server.http.get(path).content).size for path in (place, f"{place}/thumb")]
    assert sizes == {"000.png": [(1024, 768), (256, 192)], "photo.jpg": [(768, 1024), (192, 256)]}


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        png_that_claims(60_000, 60_000),
        "fifo",
        "folder",
        "endless",
    ],
    ids=["gone", "empty", "svg", "html", "postscript", "torn", "bomb", "fifo", "folder", "endless"],
)
def test_a_file_that_is_no_picture_any_more_is_not_there_in_words(server, made, rows, content):
    path = made.pictures / "007.png"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "fifo":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    elif content == "endless":
        path.symlink_to("/dev/zero")
    try:
        for way in (rows["007.png", None], rows["007.png", None] + "/thumb"):
            answer = server.http.get(way)
            assert answer.status_code == 404
            assert "is not where it was when it was indexed, or cannot be read" in answer.json()["error"]["message"]
            assert str(made.folder) not in answer.text
        [hit] = [hit for hit in knn(server).json() if hit["image_path"] == "007.png"]
        assert "image" not in hit
        assert server.http.get(hit["url"]).status_code == 404
    finally:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        drawn(7).save(path)


def test_a_tar_or_a_film_that_is_gone_is_not_there_either(server, made, rows):
    for name, place in (("shard.tar", ("shard.tar#a", None)), ("film.mp4", ("film.mp4", 1.0))):
        content = made.bytes(name)
        (made.pictures / name).unlink()
        assert server.http.get(rows[place]).status_code == 404
        (made.pictures / name).write_bytes(content[: len(content) // 2] if name == "film.mp4" else content + content)
        assert server.http.get(rows[place]).status_code in (200, 404)
        (made.pictures / name).write_bytes(content)
        assert server.http.get(rows[place]).status_code == 200


# --- who gets it


def test_a_signed_url_opens_one_picture_for_whoever_has_it_and_nothing_else(server, made, monkeypatch):
    one, other = knn(server, num_images=2).json()
    bare = {"authorization": ""}
    answer = server.http.get(one["url"], headers=bare)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    query = one["url"].partition("?")[2]
    stored = server.http.post("/api/images", content=made.bytes("003.png")).json()["id"]
    wrong = [
        other["url"].partition("?")[0] + "?" + query,
        re.sub(r"expires=\d+", "expires=99999999999", one["url"]),
        one["url"].replace("/photos/", "/other/"),
        one["url"][:-1] + ("0" if one["url"][-1] != "0" else "1"),
        one["url"].partition("?")[0],
        f"{server.url}/pictures/{stored}.png?{query}",
        one["url"].replace("/found/", "/"),
    ]
    for url in wrong:
        assert server.http.get(url, headers=bare).status_code in (401, 403, 404), url
    signer, named = server.serving.signer, re.search(r"/pictures/(found/.*)\.jpg", one["url"])
    assert named is not None
    assert server.http.get(signer.url(server.url, named[1], "jpg"), headers=bare).status_code == 200
    monkeypatch.setattr(signer, "_seconds", -5)
    assert server.http.get(signer.url(server.url, named[1], "jpg")).json()["error"]["code"] == "url_expired"


def test_nothing_but_a_row_of_an_index_is_a_picture(server, rows):
    place = rows["003.png", None]
    edition = place.split("/")[4]
    for path in (
        "/api/search/photos/../../etc/passwd",
        "/api/search/photos/%2e%2e%2f%2e%2e/0",
        "/api/search/%2e%2e/x/0",
        "/api/search/..%2f..%2fetc/passwd/0",
        f"/api/search/photos/{edition}/..%2f..%2fetc%2fpasswd",
        f"/api/search/photos/{edition}/-1",
        f"/api/search/photos/{edition}/14",
        f"/api/search/photos/{edition}/99999999999999999999",
        f"/api/search/photos/{edition}/3.5",
        f"/api/search/photos/{edition}/3/thumb/..",
        f"/api/search/other/{edition}/3",
        "/api/search/photos/x/3",
        "/pictures/found/photos/x/3.jpg",
        "/pictures/found/..%2f..%2fetc/passwd/3.jpg",
    ):
        # Straight out: a client such as ours would take the dots out of the path.
        line = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
        line.request("GET", path, headers={"authorization": f"Bearer {KEY}"})
        answer = line.getresponse()
        assert answer.status in (400, 403, 404, 409), path
        assert b"root:" not in answer.read()
        line.close()
    assert server.http.get(place).status_code == 200


def test_without_a_key_nothing_is_told_and_with_another_only_what_is_everybodys(server, made, rows):
    place = rows["003.png", None]
    calls = [("GET", place), ("GET", f"{place}/thumb"), ("GET", "/indices-list")]
    calls += [("POST", "/knn-service"), ("POST", "/metadata"), ("POST", "/api/search")]
    for method, path in calls:
        for headers in ({"authorization": ""}, {"authorization": "Bearer sk-no-key-at-all"}):
            assert server.http.request(method, path, headers=headers, json={"text": "a"}).status_code == 401, path
    stored = server.http.post("/api/images", content=made.bytes("003.png")).json()["id"]
    theirs = {"authorization": f"Bearer {OTHER}"}
    body = {"index": "photos", "image": stored}
    assert server.post("/api/search", body).status_code == 200
    refusal = server.post("/api/search", body, headers=theirs)
    assert (refusal.status_code, refusal.json()["error"]["message"]) == (404, "There is no such picture.")
    assert server.http.get(place, headers=theirs).status_code == 200
    told = knn(server)
    assert {hit["image_path"] for hit in told.json()} >= {"003.png", "shard.tar#a", "film.mp4"}
    assert str(made.folder) not in told.text
    assert str(made.folder) not in server.post("/api/search", {"index": "photos", "text": "a"}).text


def test_a_key_may_stand_in_the_url_which_is_all_that_the_client_can_do(server):
    def basic(words: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(words.encode()).decode()}

    for given in (f"any:{KEY}", f":{OTHER}"):
        assert server.http.get("/indices-list", headers=basic(given)).json() == ["photos"]
    for given in (f"{KEY}:", KEY, f"{KEY}:{KEY}x"):
        assert server.http.get("/indices-list", headers=basic(given)).status_code == 401
    assert server.http.get("/indices-list", headers={"authorization": f"Basic {KEY}"}).status_code == 401


def test_pages_of_other_origins_may_not_search(server):
    for path in ("/knn-service", "/metadata", "/api/search"):
        answer = server.http.post(path, content=b"{}", headers={"origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
