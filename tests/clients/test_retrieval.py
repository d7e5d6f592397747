"""clip-retrieval's own client against the real server, unchanged; and the snippet of docs/server.md as it stands there."""

import json
import re
import subprocess

import httpx2
import pytest
from clients import python
from live_server import live
from test_docs import DOCS
from toy_index import Indexed, opened

KEY = "sk-the-right-key"
PROGRAM = python("legacy", "by_retrieval.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Indexed:
    return Indexed(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    with live(tmp_path_factory.mktemp("server"), **made.config, keys=(KEY,)) as running:
        yield running


def run(*arguments: str, given: str, cwd=None) -> str:
    done = subprocess.run(
        [*PROGRAM, *arguments], input=given, cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_finds_by_words_by_a_file_and_by_an_embedding(server, made):
    url = f"{server.url.replace('http://', f'http://any:{KEY}@')}/knn-service"
    here = {"url": url, "indice_name": "photos"}
    plain = {**here, "deduplicate": False}
    embedding = made.clip.images([opened(made.bytes("photo.jpg"))])[0].tolist()
    asked = [
        {"client": here, "query": {"text": "a red disc"}},  # all its defaults: safety, aesthetics, duplicates
        {"client": {**plain, "num_images": 3}, "query": {"image": str(made.pictures / "photo.jpg")}},
        {"client": {**plain, "num_images": 3}, "query": {"embedding_input": embedding}},
        {"client": plain, "captions": True, "query": {"text": "two green stars"}},
        {"client": plain, "query": {"image": "http://127.0.0.1:1/a.jpg"}},
        {"client": {**plain, "url": url.replace(KEY, "another-key")}, "query": {"text": "a"}},
        {"client": {**plain, "indice_name": "laion5B-L-14"}, "query": {"text": "a"}},
        {"client": plain, "query": {"text": "a", "image": "b"}},
    ]
    words, file, vector, caption, fetched, unknown, elsewhere, both = json.loads(run(given=json.dumps(asked)))
    assert 1 <= len(words) <= 14
    for hit in [*words, *file]:
        assert {"id", "similarity", "url", "caption", "image"} <= set(hit)
        assert httpx2.get(hit["url"]).headers["content-type"] == "image/jpeg"  # which needs no key
    assert len(file) == len(vector) == 3
    assert (file[0]["image_path"], vector[0]["image_path"]) == ("photo.jpg", "photo.jpg")
    assert (caption[0]["caption"], round(caption[0]["similarity"], 3)) == ("two green stars", 1.0)
    assert fetched["error"]["param"] == "image_url"
    assert unknown["error"]["code"] == "invalid_api_key"
    assert elsewhere["error"]["code"] == "index_not_found"
    assert both == {"raised": "ValueError: Only one of text or image can be provided."}


def test_the_snippet_finds(made, tmp_path):
    snippet = re.search(r"```python\n(from clip_retrieval.*?)^```", DOCS.read_text(), re.M | re.S)
    assert snippet is not None
    (tmp_path / "cat.png").write_bytes(made.bytes("003.png"))
    with live(tmp_path / "server", **made.config) as server:
        told = run("-", given=snippet[1].replace("http://127.0.0.1:8000", server.url), cwd=tmp_path).splitlines()
    assert 2 <= len(told) <= 20  # those that are near-duplicates come once
    for line in told:
        assert re.fullmatch(
            rf"-?[01]\.\d+ .+ {server.url}/pictures/found/photos/\w+/\d+\.jpg\?expires=\d+&signature=\w+", line
        )
