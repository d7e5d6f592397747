"""clip-retrieval's contract, field by field, and the page's own search, by the real process over a small index."""

import base64
import json

import numpy as np
import pytest
from live_server import live
from toy_index import COUNT, Indexed, of_others, opened

FOUR = {"message", "type", "param", "code"}
TURNED = (60, 30, 150, 15, 0)
ROWS = COUNT + 2 + 2 + 2  # drawings, a JPEG and a GIF, two of a tar, two shots of a film
# As ClipClient of clip-retrieval 2.45 sends it, byte for byte but for the values.
RECORDED = {
    "text": None,
    "image": None,
    "image_url": None,
    "embedding_input": None,
    "deduplicate": True,
    "use_safety_model": True,
    "use_violence_detector": True,
    "indice_name": "photos",
    "use_mclip": False,
    "aesthetic_score": 9,
    "aesthetic_weight": 0.5,
    "modality": "image",
    "num_images": 40,
    "num_result_ids": 40,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Indexed(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    """Three indices, blocked words, and pictures of 200 kB at most. `turned` has rows at angles of so many degrees."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "blocked.txt").write_text("forbidden fruit\n")
    angles = np.radians(TURNED)
    z = np.zeros((len(angles), made.clip.width))
    z[:, 0], z[:, 1] = np.cos(angles), np.sin(angles)
    of_others(folder / "turned", z, url=[f"{degrees} degrees" for degrees in TURNED])
    indices = [str(made.path), f"zoo={made.path}", str(folder / "turned")]
    config = {"indices": indices, "clips": dict.fromkeys(("photos", "zoo", "turned"), str(made.where)), "device": "cpu"}
    config |= {"blocked_words": folder / "blocked.txt", "limits": {"upload_bytes": 200_000}}
    with live(tmp_path_factory.mktemp("server"), **config) as running:
        yield running


def knn(server, **fields):
    """As the client posts it: a string of JSON without a content type."""
    return server.http.post("/knn-service", content=json.dumps(fields))


def hits(answer) -> list:
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status: int, param: str | None, words: str = "") -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == FOUR
    assert error["param"] == param
    assert words in error["message"]
    assert "\n" not in error["message"]


def name_of(hit: dict) -> str:
    return hit["image_path"].rpartition("/")[2]


def in_base64(made: Indexed, name: str) -> str:
    return base64.b64encode(made.bytes(name)).decode()


# --- /knn-service


def test_the_request_that_the_client_sends_is_answered_as_it_reads_it(server):
    answer = knn(server, **{**RECORDED, "text": "a red disc", "deduplicate": False})
    found = hits(answer)
    assert len(found) == ROWS
    assert sorted(hit["id"] for hit in found) == list(range(ROWS))
    assert [hit["similarity"] for hit in found] == sorted((hit["similarity"] for hit in found), reverse=True)
    for hit in found:
        assert set(hit) >= {"id", "similarity", "url", "caption", "image_path", "image"}
        assert set(hit) <= {"id", "similarity", "url", "caption", "image_path", "image", "time", "until"}
        assert max(opened(base64.b64decode(hit["image"])).size) <= 256
        assert opened(server.http.get(hit["url"]).content).size == opened(base64.b64decode(hit["image"])).size
    captions = {name_of(hit): hit["caption"] for hit in found}
    assert captions["000.png"] == "a red disc"
    assert captions["shard.tar#a"] == "two green stars"
    assert captions["007.png"] is None
    assert {hit["time"] for hit in found if name_of(hit) == "film.mp4"} == {0.0, 1.0}
    ignored = "use_safety_model, use_violence_detector, aesthetic_score, aesthetic_weight"
    assert answer.headers["x-unclip-ignored"] == ignored


def test_a_picture_finds_itself_and_so_does_its_embedding(server, made):
    for name in ("003.png", "photo.jpg"):
        best = hits(knn(server, image=in_base64(made, name), num_images=3, indice_name="photos", modality="image"))[0]
        assert name_of(best) == name
        assert best["similarity"] > 0.999
    [row] = hits(server.post("/metadata", {"ids": [best["id"]], "indice_name": "photos"}))
    assert row["metadata"]["image_path"] == best["image_path"]
    embedding = made.clip.images([opened(made.bytes("photo.jpg"))])[0]
    for scale in (1, 1000):  # of any length
        again = hits(knn(server, embedding_input=(scale * embedding).tolist(), num_images=3))
        assert name_of(again[0]) == "photo.jpg"
        assert again[0]["similarity"] == pytest.approx(best["similarity"], abs=1e-3)


def test_words_are_sought_among_pictures_or_among_captions(server):
    best = hits(knn(server, text="two green stars", modality="text", num_images=2))
    assert name_of(best[0]) == "shard.tar#a"
    assert best[0]["similarity"] > 0.999
    assert best[1]["similarity"] < 0.999


def test_more_ids_than_rows_and_more_rows_than_ids(server):
    found = hits(knn(server, text="a cat", num_images=2, num_result_ids=5))
    assert len(found) == 5
    assert [set(hit) == {"id", "similarity"} for hit in found] == [False, False, True, True, True]
    assert len(hits(knn(server, text="a cat", num_images=5, num_result_ids=2))) == 2
    assert hits(knn(server, text="a cat", num_images=0)) == []
    assert len(hits(knn(server, text="a cat", num_images=0, num_result_ids=3))) == 3
    assert len(hits(knn(server, text="a cat", num_images=1000))) == ROWS
    assert len(hits(knn(server, text="a cat"))) == ROWS  # all but the query has a default


def test_deduplicating_keeps_the_best_of_each_group_that_is_connected(server, made):
    """At 0, 15 and 30 degrees each is alike to its neighbour, of which the first stays, and 60 and 150 are by themselves."""
    asked = {"embedding_input": [1.0] + [0.0] * (made.clip.width - 1), "num_images": 5, "indice_name": "turned"}
    every, once = (hits(knn(server, **asked, deduplicate=unique)) for unique in (False, True))
    assert [hit["url"] for hit in every] == [f"{degrees} degrees" for degrees in (0, 15, 30, 60, 150)]
    assert [hit["url"] for hit in once] == [f"{degrees} degrees" for degrees in (0, 60, 150)]
    assert [hit["similarity"] for hit in once] == pytest.approx([1, 0.5, np.cos(np.radians(150))], abs=1e-3)


PLAIN = {"text": "a cat", "num_images": 3}


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, None),
        ({"use_mclip": False, "use_safety_model": False, "use_violence_detector": False}, None),
        ({"aesthetic_score": "", "aesthetic_weight": ""}, None),  # as clip-retrieval's page sends them
        ({"aesthetic_score": "9", "aesthetic_weight": "0.5"}, "aesthetic_score, aesthetic_weight"),
        ({"aesthetic_score": 9, "aesthetic_weight": 1}, "aesthetic_score, aesthetic_weight"),
        ({"use_mclip": True}, "use_mclip"),
        ({"use_mclip": None, "use_safety_model": None, "num_result_ids": None, "indice_name": None}, None),
    ],
)
def test_what_belongs_to_models_that_are_not_here_changes_nothing_and_is_named(server, fields, ignored):
    answer = knn(server, **PLAIN, **fields)
    assert [hit["id"] for hit in hits(answer)] == [hit["id"] for hit in hits(knn(server, **PLAIN))]
    assert answer.headers.get("x-unclip-ignored") == ignored


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({}, 400, "text", "exactly one of text, image and embedding_input, got none of them"),
        ({"text": ""}, 400, "text", "got none of them"),
        ({"text": "a", "image": "aGk="}, 400, "image", "got text and image"),
        ({"image_url": "http://127.0.0.1:1/a.png"}, 400, "image_url", "Nothing is fetched here"),
        ({"text": "a", "image_url": "file:///etc/passwd"}, 400, "image_url", "Nothing is fetched here"),
        ({"image": "aGVsbG8="}, 400, "image", "expected a PNG, JPEG or WebP"),
        ({"image": "a"}, 400, "image", "not base64"),
        ({"image": "PHN2Zz48L3N2Zz4="}, 400, "image", "expected a PNG, JPEG or WebP"),
        ({"embedding_input": [1.0, 2.0]}, 400, "embedding_input", "has 2 numbers, expected"),
        ({"embedding_input": "1, 2"}, 400, "embedding_input", "Invalid type"),
        ({"text": 7}, 400, "text", "Invalid type"),
        ({"text": "a" * 10_001}, 400, "text", "10000"),
        ({"text": "a", "indice_name": "laion5B"}, 404, "indice_name", "There is no index 'laion5B' here."),
        ({"text": "a", "modality": "video"}, 400, "modality", "'image' and 'text'"),
        ({"text": "a", "num_images": -1}, 400, "num_images", ">= 0"),
        ({"text": "a", "num_images": 1001}, 400, "num_images", "<= 1000"),
        ({"text": "a", "num_images": "3"}, 400, "num_images", "an integer"),
        ({"text": "a", "num_result_ids": 10_001}, 400, "num_result_ids", "<= 10000"),
        ({"text": "a", "num_result_ids": 0}, 400, "num_result_ids", ">= 1"),
        ({"text": "a", "deduplicate": "yes"}, 400, "deduplicate", "a boolean"),
        ({"text": "a", "aesthetic_score": [9]}, 400, "aesthetic_score", "Invalid type"),
        ({"text": "a", "k": 3}, 400, "k", "Unknown parameter: 'k'."),
    ],
)
def test_what_cannot_be_sought_is_refused_in_words(server, fields, status, param, words):
    refused(knn(server, **fields), status, param, words)


def test_an_embedding_that_points_nowhere_is_refused_alone(server, made):
    refused(knn(server, embedding_input=[0.0] * made.clip.width), 400, None, "points nowhere")
    for body in (b"", b"[]", b"{", b'{"text": NaN}', b"\xff", b'{"text": "\\ud800"}'):
        assert server.http.post("/knn-service", content=body).status_code == 400


def test_a_picture_as_large_as_the_page_may_send_fits(server, made):
    padded = base64.b64encode(made.bytes("003.png") + bytes(190_000)).decode()
    assert name_of(hits(knn(server, image=padded))[0]) == "003.png"
    assert knn(server, image=padded + "A" * 100_000).status_code == 413
    assert server.post("/metadata", {"ids": [0] * 40_000, "indice_name": "photos"}).status_code == 413


# --- /metadata, /indices-list


def test_metadata_tells_of_rows_in_the_order_of_their_ids(server):
    told = hits(server.http.post("/metadata", content=json.dumps({"ids": [5, 0, 5], "indice_name": "photos"})))
    assert [one["id"] for one in told] == [5, 0, 5]
    assert told[0] == told[2]
    assert all(set(one["metadata"]) >= {"caption", "url", "image_path", "image"} for one in told)
    assert hits(server.post("/metadata", {"ids": [], "indice_name": "photos"})) == []
    refused(server.post("/metadata", {"ids": [0, ROWS], "indice_name": "photos"}), 400, "ids", f"no row {ROWS}")
    refused(server.post("/metadata", {"ids": [-1], "indice_name": "photos"}), 400, "ids")
    refused(server.post("/metadata", {"ids": [0], "indice_name": "x"}), 404, "indice_name")
    refused(server.post("/metadata", {"ids": [0]}), 400, "indice_name", "Missing")
    refused(server.post("/metadata", {"indice_name": "photos"}), 400, "ids", "Missing")


def test_indices_are_listed_as_they_were_given_and_the_first_is_asked_unless_one_is_named(server):
    assert server.http.get("/indices-list").json() == ["photos", "zoo", "turned"]
    assert server.http.get("/api/config").json()["indices"] == {"photos": ROWS, "zoo": ROWS, "turned": len(TURNED)}
    for named, asked in ((None, "photos"), ("zoo", "zoo")):
        [one] = hits(knn(server, text="a cat", num_images=1, indice_name=named))
        assert f"/pictures/found/{asked}/" in one["url"]


def test_who_needs_no_key_is_told_where_files_are_as_clip_retrieval_tells_it(server, made):
    for hit in hits(knn(server, text="a cat", num_images=100)):
        assert hit["image_path"].startswith(str(made.pictures))


def test_a_server_without_an_index_has_nothing_to_find(tmp_path):
    with live(tmp_path) as server:
        assert server.http.get("/indices-list").json() == []
        assert server.http.get("/api/config").json()["indices"] == {}
        refused(knn(server, text="a"), 404, "indice_name")
        refused(server.post("/api/search", {"index": "photos", "text": "a"}), 404, "index")
        assert server.http.get("/api/search/photos/0/0").status_code == 404
        assert "unclip_search" not in server.http.get("/metrics").text


# --- /api/search


def search(server, **fields):
    return server.post("/api/search", {"index": "photos", **fields})


def test_the_page_seeks_by_words_by_its_own_pictures_and_by_what_was_found(server, made):
    told = search(server, text="two green stars", among="text", n=1).json()
    assert told["total"] == ROWS
    assert 0 < told["seconds"] < 20
    [hit] = told["hits"]
    assert (hit["caption"], hit["time"], hit["url"]) == ("two green stars", None, None)
    assert hit["name"].endswith("shard.tar#a")
    assert (hit["width"], hit["height"]) == (40, 30)
    stored = server.http.post("/api/images", content=made.bytes("005.png")).json()["id"]
    told = search(server, image=stored).json()
    assert told["hits"][0]["name"].endswith("005.png")
    like = {"edition": told["edition"], "id": told["hits"][0]["id"]}
    assert [one["id"] for one in search(server, like=like).json()["hits"]] == [one["id"] for one in told["hits"]]


def test_the_weight_leads_from_the_words_to_the_picture(server, made):
    stored = server.http.post("/api/images", content=made.bytes("005.png")).json()["id"]
    ids = lambda **fields: [hit["id"] for hit in search(server, n=5, **fields).json()["hits"]]  # noqa: E731
    both = {"text": "a blue square", "image": stored}
    assert ids(**both, weight=0) == ids(text="a blue square")
    assert ids(**both, weight=1) == ids(image=stored)
    scores = [search(server, **both, weight=weight, n=5).json()["hits"][0]["score"] for weight in (0.25, 0.5, 0.75)]
    assert len(set(scores)) == 3


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "text"),
        ({"text": "  "}, 400, "text"),
        ({"text": "a", "index": "other"}, 404, "index"),
        ({"image": "0" * 32}, 404, None),
        ({"image": "0" * 32, "like": {"edition": "a", "id": 0}}, 400, "like"),
        ({"like": {"edition": "of-before", "id": 0}}, 409, None),
        ({"like": {"edition": "a", "id": -1}}, 400, "like"),
        ({"text": "a", "weight": 1.5}, 400, "weight"),
        ({"text": "a", "n": 0}, 400, "n"),
        ({"text": "a", "n": 201}, 400, "n"),
        ({"text": "a", "path": "/etc/passwd"}, 400, "path"),
    ],
)
def test_what_the_page_cannot_seek_is_refused_in_words(server, fields, status, param):
    refused(search(server, **fields), status, param)


def test_blocked_words_are_not_sought_either(server):
    for answer in (knn(server, text="a Forbidden Fruit"), search(server, text="a forbidden fruit")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_policy_violation")
    assert knn(server, text="a fruit").status_code == 200
