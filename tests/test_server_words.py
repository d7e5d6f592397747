"""What a model reads in a prompt, as the server tells it: while it is typed, in the answer, in the file; and `as_typed`."""

import base64
import io
import json
from collections.abc import Iterator

import openai
import pytest
from live_server import Live, events, live, picture, png
from PIL import Image
from test_words_model import KNOWN, OTHER, WORDS

from unclip import pipeline
from unclip.server.jobs import PROMPT_LIMIT, Job, JobRequest
from unclip.server.painting import options_of
from unclip.server.store import Store
from unclip.weights import opening, source, store

FEW = {"size": "256x256", "seed": 3, "num_inference_steps": 1, "prior_num_inference_steps": 1}
B64 = {"response_format": "b64_json"}


@pytest.fixture(scope="module")
def worded(micro_bundle, tmp_path_factory) -> str:
    """The folder of the micro model, with words."""
    folder = tmp_path_factory.mktemp("bundles") / "worded"
    source.save(opening.open_bundle(micro_bundle), folder, name="worded")
    store.put_words(folder, WORDS)
    return str(folder)


@pytest.fixture(scope="module")
def server(worded, micro_bundle, tmp_path_factory) -> Iterator[Live]:
    """One that paints with it; `plain` has no words, `stub` not even a vocabulary."""
    models = {"plain": str(micro_bundle), "stub": "stub"}
    with live(tmp_path_factory.mktemp("server"), model=worded, models=models, device="cpu", exact=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0, timeout=60) as made:
        yield made


def tokens(server: Live, prompt: str, **more: object) -> dict:
    answer = server.post("/api/tokens", {"prompt": prompt, **more})
    assert answer.status_code == 200
    return answer.json()


def settings(data: str | bytes) -> dict:
    with Image.open(io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data)) as image:
        return json.loads(image.info["unclip"])


# --- before it is painted


def test_a_prompt_is_read_as_the_pipeline_reads_it(server, worded):
    model = pipeline.load(worded, device="cpu")
    assert isinstance(model, pipeline.UnCLIP)
    for prompt in (OTHER, KNOWN, "Two ORBS in a zorblax", "", "🦊 orb"):
        told, reading = tokens(server, prompt), model.read(prompt)
        assert {"prompt": prompt, **{key: told[key] for key in ("read", "words", "unknown")}} == reading.record()
        ids = model.tokenizer([reading.text])
        assert min(told["count"], told["limit"]) == int(ids.mask.sum()) - 2  # of what is read, less the marks at its ends
    told = tokens(server, "an orb, a zorblax")
    assert (told["read"], told["unknown"]) == ("a blue disc, a zorblax", ["zorblax"])
    assert told["words"] == [{"word": "orb", "known": "blue disc", "source": "synonym"}]


def test_what_is_kept_is_counted_in_what_is_read(server):
    told = tokens(server, "orb, " * 30)
    assert told["read"] == "blue disc, " * 30
    assert told["count"] > told["limit"]
    given = tokens(server, told["read"], as_typed=True)
    assert (told["count"], told["kept"]) == (given["count"], given["kept"])


def test_what_nothing_is_read_in_says_nothing_of_it(server):
    nothing = {"read": None, "words": None, "unknown": None}
    typed = tokens(server, OTHER, as_typed=True)
    assert nothing.items() <= typed.items()
    assert typed["count"] != tokens(server, OTHER)["count"]
    assert typed == tokens(server, OTHER, model="plain")
    assert tokens(server, OTHER, model="stub") == {"count": None, "limit": None, "kept": None, **nothing}
    assert nothing.items() <= tokens(server, "orb".ljust(PROMPT_LIMIT + 1)).items()  # no job takes that many
    assert tokens(server, "orb".ljust(PROMPT_LIMIT))["words"]


# --- as it is painted


def test_the_answer_says_what_was_read_and_only_then(client):
    first, second = (client.images.generate(prompt=OTHER, n=2, extra_body=FEW | more).data for more in (B64, {}))
    assert [one.revised_prompt for one in (*first, *second)] == [KNOWN] * 4
    (known,) = client.images.generate(prompt=KNOWN, extra_body=FEW | B64).data
    assert "revised_prompt" not in known.model_fields_set
    assert picture(base64.b64decode(first[0].b64_json)).tobytes() == picture(base64.b64decode(known.b64_json)).tobytes()
    assert (settings(first[0].b64_json)["prompt"], settings(first[0].b64_json)["read"]) == (OTHER, KNOWN)


def test_as_typed_paints_what_was_typed_and_the_file_says_so(client):
    read, typed, unworded = (
        client.images.generate(prompt=OTHER, extra_body=FEW | B64 | more).data[0]
        for more in ({}, {"as_typed": True}, {"model": "plain"})
    )
    assert "revised_prompt" not in typed.model_fields_set
    pixels = [picture(base64.b64decode(one.b64_json)).tobytes() for one in (read, typed, unworded)]
    assert pixels[0] != pixels[1] == pixels[2]
    assert settings(typed.b64_json)["as_typed"] is True
    assert "read" not in settings(typed.b64_json)
    assert "as_typed" not in settings(read.b64_json)


def test_an_edit_and_a_stream_say_it_too(server, client):
    fields = {name: str(value) for name, value in FEW.items()}
    edited, typed = (
        server.form("edits", png(hole=True), prompt=OTHER, **fields, **more).json()["data"][0]
        for more in ({}, {"as_typed": "true"})
    )
    assert edited["revised_prompt"] == KNOWN
    assert "revised_prompt" not in typed
    (completed,) = client.images.generate(prompt=OTHER, stream=True, extra_body=FEW)
    assert completed.revised_prompt == KNOWN
    with server.http.stream("POST", "/v1/images/generations", json={"prompt": KNOWN, "stream": True} | FEW) as stream:
        ((kind, told),) = events(stream)
    assert kind == "image_generation.completed"
    assert "revised_prompt" not in told


def test_the_pages_jobs_have_it_and_captions_are_read_or_not(server):
    uploaded = server.http.post("/api/images", content=png(), headers={"content-type": "application/octet-stream"}).json()
    request = {"task": "text_diff", "images": [uploaded["id"]], "old": OTHER, "new": "a ruddy tile", "theta": [0.3]}
    request |= {"size": 256, "steps": 2, "seed": 3}
    made = []
    for more in ({}, {"as_typed": True}):
        job = server.post("/api/jobs", request | more).json()
        assert job["request"]["as_typed"] is bool(more)
        server.http.get(f"/api/jobs/{job['id']}/events")  # which ends with the job
        (image,) = server.http.get(f"/api/jobs/{job['id']}").json()["images"]
        made.append(settings(server.http.get(f"/api/images/{image}").content))
    assert (made[0]["old_read"], made[0]["new_read"]) == (KNOWN, "a red square")
    assert made[1]["as_typed"] is True
    assert not {"old_read", "new_read"} & made[1].keys()


# --- what is asked


def test_a_wrong_as_typed_is_named(server):
    refused = [
        server.paint(as_typed="yes"),
        server.paint(as_typed=1),
        server.form("edits", png(hole=True), prompt="a", as_typed="yes"),
        server.post("/api/jobs", {"task": "generate", "prompt": "a", "as_typed": "yes"}),
        server.post("/api/tokens", {"prompt": "a", "as_typed": 1}),
    ]
    for answer in refused:
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "as_typed", "invalid_type")
        assert error["message"].startswith("Invalid type for 'as_typed': expected a boolean")
    unworded = server.form("variations", png(), as_typed="true").json()["error"]  # there is no prompt to read
    assert (unworded["param"], unworded["code"]) == ("as_typed", "unknown_parameter")
    assert server.paint(as_typed=None, model="stub").status_code == 200


def test_the_document_has_it(server):
    document = server.http.get("/openapi.json").json()

    def fields(path: str) -> dict:
        (content,) = document["paths"][path]["post"]["requestBody"]["content"].values()
        return content["schema"]["properties"]

    for path in ("/v1/images/generations", "/v1/images/edits"):
        assert {one["type"] for one in fields(path)["as_typed"]["anyOf"]} == {"boolean", "null"}
    for path in ("/api/jobs", "/api/tokens"):
        assert (fields(path)["as_typed"]["type"], fields(path)["as_typed"]["default"]) == ("boolean", False)
    assert "as_typed" not in fields("/v1/images/variations")
    answers = document["components"]["schemas"]
    assert "revised_prompt" in answers["Picture"]["properties"]
    assert {"read", "words", "unknown"} <= answers["Tokens"]["properties"].keys()


def test_a_job_stays_as_typed_over_a_restart(tmp_path):
    before = Store(tmp_path)
    asked = [JobRequest(task="generate", prompt="a", as_typed=typed) for typed in (True, False)]
    ids = [before.add_job("me", one).id for one in asked]
    before.close()
    after = Store(tmp_path)
    jobs = [job for job in map(after.job, ids) if isinstance(job, Job)]
    after.close()
    assert [job.request.as_typed for job in jobs] == [True, False]
    assert [options_of(job.request).as_typed for job in jobs] == [True, None]


def test_as_typed_is_no_way_round_a_blocked_word(worded, tmp_path):
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("disc\n")
    with live(tmp_path / "data", blocked_words=blocked, models={"reads": worded}) as server:
        for more in ({}, {"as_typed": True}):
            refused = server.paint(prompt=OTHER, model="reads", **more)
            assert refused.json()["error"]["code"] == "content_policy_violation"
