"""What the official client sees: every call, every default, every class of error."""

import base64
import io
import time

import httpx2
import openai
import pytest
from live_server import live, picture, png

from unclip.images import read_settings

REQUEST_ID = r"req_[0-9a-f]{32}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    words = tmp_path_factory.mktemp("words") / "blocked.txt"
    words.write_text("# what nobody may ask for\nforbidden fruit\ncafé\n", encoding="utf-8")
    with live(tmp_path_factory.mktemp("server"), blocked_words=words, models={"second": "stub"}, azure=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0, timeout=20) as made:
        yield made


def refused(kind: type[openai.APIStatusError], call) -> openai.APIStatusError:
    """The error that the client raises; all four keys and the request's id are there."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.response.json() == {
        "error": {"message": error.body["message"], "type": error.type, "param": error.param, "code": error.code}
    }
    assert error.request_id.startswith("req_")
    return error


def variation(client: openai.OpenAI, **fields):
    with pytest.warns(DeprecationWarning, match="deprecated"):
        return client.images.create_variation(**fields)


# --- what is answered


def test_a_generation_is_urls_of_pictures_with_their_seeds(server, client):
    before = int(time.time())
    answer = client.images.generate(prompt="a cat", n=2, size="256x256", extra_body={"seed": 7})
    assert before <= answer.created <= time.time()
    assert [made.seed for made in answer.data] == [7, 8]
    assert all(made.b64_json is None for made in answer.data)
    assert answer.usage is None
    got = [httpx2.get(made.url) for made in answer.data]
    assert [response.headers["content-type"] for response in got] == ["image/png"] * 2
    assert all(response.headers["x-content-type-options"] == "nosniff" for response in got)
    assert [picture(response.content).size for response in got] == [(256, 256)] * 2
    assert got[0].content != got[1].content
    assert answer.data[0].url.startswith(server.url)


def test_the_defaults_are_one_url_of_1024_px_by_dall_e_2(client):
    raw = client.images.with_raw_response.generate(prompt="a cat")
    answer = raw.parse()
    assert len(answer.data) == 1
    assert picture(httpx2.get(answer.data[0].url).content).size == (1024, 1024)
    assert raw.headers["x-unclip-model"] == "stub"
    assert "x-unclip-ignored" not in raw.headers


def test_null_is_the_default_and_auto_is_1024(server):
    response = server.paint(size=None, n=None, response_format=None, model=None, quality=None, seed=None)
    assert response.status_code == 200
    assert picture(httpx2.get(response.json()["data"][0]["url"]).content).size == (1024, 1024)
    assert server.paint(size="auto").status_code == 200
    assert len(server.paint(n=2.0).json()["data"]) == 2
    assert server.paint(n=2.5).status_code == 400


def test_b64_holds_the_very_picture_and_its_settings(server, client, tmp_path):
    answer = client.images.generate(prompt="a dog", size="512x512", response_format="b64_json", extra_body={"seed": 3})
    assert answer.data[0].url is None
    data = base64.b64decode(answer.data[0].b64_json)
    (tmp_path / "made.png").write_bytes(data)
    settings = read_settings(tmp_path / "made.png")
    assert (settings["prompt"], settings["seed"], settings["size"]) == ("a dog", 3, 512)
    assert b"trainedAlgorithmicMedia" in data
    again = client.images.generate(prompt="a dog", size="512x512", response_format="b64_json", extra_body={"seed": 3})
    assert again.data[0].b64_json == answer.data[0].b64_json


def test_a_seed_is_drawn_and_told_and_gives_the_picture_again(server):
    first = server.paint(response_format="b64_json").json()["data"][0]
    assert server.paint(response_format="b64_json", seed=first["seed"]).json()["data"][0] == first
    assert server.paint(response_format="b64_json").json()["data"][0]["seed"] != first["seed"]


def test_the_extra_fields_reach_the_job(server):
    fields = {"num_inference_steps": 3, "guidance_scale": 2, "prior_num_inference_steps": 4, "prior_guidance_scale": 1.5}
    fields |= {"upsampler_num_inference_steps": 5, "eta": 0.5, "n": 2, "seed": 11}
    assert server.paint(**fields).status_code == 200
    asked = server.http.get("/api/jobs?limit=1").json()["jobs"][0]["request"]
    expected = {"steps": 3, "guidance": 2, "prior_steps": 4, "prior_guidance": 1.5, "upsampler_steps": 5, "eta": 0.5}
    assert expected.items() <= asked.items()
    assert (asked["n"], asked["seed"], asked["size"], asked["task"]) == (2, 11, 256, "generate")
    assert server.paint(num_inference_steps=3, decoder_num_inference_steps=6).status_code == 200
    assert server.http.get("/api/jobs?limit=1").json()["jobs"][0]["request"]["steps"] == 6


def test_what_later_models_brought_is_ignored_and_named(client):
    raw = client.images.with_raw_response.generate(
        prompt="a cat", style="vivid", background="auto", moderation="low", output_format="png", size="256x256",
        output_compression=90, quality="standard", extra_body={"negative_prompt": "dogs"},
    )  # fmt: skip
    ignored = raw.headers["x-unclip-ignored"].split(", ")
    assert ignored == ["style", "background", "moderation", "output_format", "output_compression", "negative_prompt"]


def test_every_answer_has_openais_headers(server):
    headers = server.paint().headers
    assert headers["openai-version"] == "2020-10-01"
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["x-ratelimit-limit-requests"]) > int(headers["x-ratelimit-remaining-requests"]) > 0
    assert headers["x-ratelimit-reset-requests"].endswith("s")


def test_models_are_listed_and_looked_up(client):
    listed = client.models.list().data
    assert [one.id for one in listed] == ["dall-e-2", "stub", "second"]
    assert {one.object for one in listed} == {"model"}
    assert client.models.retrieve("dall-e-2").id == "dall-e-2"
    error = refused(openai.NotFoundError, lambda: client.models.retrieve("dall-e-3"))
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "invalid_request_error")


def test_a_variation_takes_bytes_a_file_or_a_list_of_one(client):
    sent = [png(), ("x.png", png(), "image/png"), io.BytesIO(png())]
    for image in sent:
        answer = variation(client, image=image, n=2, size="256x256")
        assert picture(httpx2.get(answer.data[1].url).content).size == (256, 256)
    assert len(client.images.edit(image=[png(hole=True)], prompt="a hat", size="256x256").data) == 1


def test_an_edit_takes_its_hole_from_the_mask_or_from_the_image(server, client):
    client.images.edit(image=png(), mask=png(hole=True), prompt="a hat", size="256x256")
    by_mask = server.http.get("/api/jobs?limit=1").json()["jobs"][0]["request"]
    client.images.edit(image=png(hole=True), prompt="a hat", size="256x256")
    by_image = server.http.get("/api/jobs?limit=1").json()["jobs"][0]["request"]
    masks = [picture(server.http.get(f"/api/images/{asked['mask']}").content).convert("L") for asked in (by_mask, by_image)]
    assert by_image["task"] == by_mask["task"] == "inpaint"
    assert by_mask["prompt"] == "a hat"
    for mask in masks:
        assert [mask.getpixel((x, 30)) for x in (0, 31, 32, 63)] == [255, 255, 0, 0]


def test_azures_paths_are_an_alias(server):
    path = "/openai/deployments/second/images/generations?api-version=2024-02-01"
    answer = server.post(path, {"prompt": "a cat", "size": "256x256"}, headers={"api-key": "anything"})
    assert answer.status_code == 200
    assert server.http.get("/api/jobs?limit=1").json()["jobs"][0]["request"]["model"] == "second"
    with openai.AzureOpenAI(azure_endpoint=server.url, api_key="k", api_version="2024-02-01", max_retries=0) as client:
        assert len(client.images.generate(model="second", prompt="a cat", size="256x256").data) == 1
        refused(openai.NotFoundError, lambda: client.images.generate(model="third", prompt="a cat"))


def test_a_stream_has_previews_then_pictures(client):
    told = list(
        client.images.generate(prompt="a cat", n=2, size="256x256", stream=True, partial_images=2, extra_body={"seed": 5})
    )
    completed = [one for one in told if one.type == "image_generation.completed"]
    partial = [one for one in told if one.type == "image_generation.partial_image"]
    assert [one.seed for one in sorted(completed, key=lambda one: one.slot)] == [5, 6]
    assert all(picture(base64.b64decode(one.b64_json)).size == (256, 256) for one in completed)
    assert all(picture(base64.b64decode(one.b64_json)).width <= 64 for one in partial)
    assert [one.partial_image_index for one in partial if one.slot == 0] == list(
        range(len([1 for p in partial if not p.slot]))
    )
    assert completed[0].usage.total_tokens == 0
    assert completed[0].quality == "auto"  # which every client's type has


def test_an_edit_streams_too(client):
    told = list(client.images.edit(image=png(hole=True), prompt="a hat", size="256x256", stream=True))
    assert [one.type for one in told] == ["image_edit.completed"]


# --- what is refused


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"prompt": "x" * 1001}, "prompt", None, "Prompt must be length 1000 or less. Your prompt length is 1001."),
        ({"prompt": ""}, "prompt", "empty_string", "empty string"),
        ({"prompt": None}, "prompt", "invalid_type", "expected a string, but got null"),
        ({"size": "1536x1024"}, "size", "invalid_value",
         "Invalid value: '1536x1024'. Supported values are: '256x256', '512x512', and '1024x1024'."),
        ({"n": 0}, "n", "integer_below_min_value", ">= 1, but got 0"),
        ({"n": 11}, "n", "integer_above_max_value", "<= 10, but got 11"),
        ({"n": "2"}, "n", "invalid_type", "expected an integer, but got a string"),
        ({"n": True}, "n", "invalid_type", "got a boolean"),
        ({"user": None}, "user", "invalid_type", "got null"),
        ({"response_format": "png"}, "response_format", "invalid_value", "'url' and 'b64_json'"),
        ({"quality": "hd"}, "quality", "invalid_value", "'standard' and 'auto'"),
        ({"output_format": "svg"}, "output_format", "invalid_value", "'png'"),
        ({"frame_count": 4}, "frame_count", "unknown_parameter", "Unknown parameter: 'frame_count'."),
        ({"markup": "x"}, "markup", "unknown_parameter", "'markup'"),
        ({"seed": -1}, "seed", "integer_below_min_value", ">= 0"),
        ({"partial_images": 4}, "partial_images", "integer_above_max_value", "<= 3"),
        ({"guidance_scale": 101}, "guidance_scale", "integer_above_max_value", "100"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_in_openais_words(server, client, fields, param, code, words):
    error = refused(openai.BadRequestError, lambda: client.images.generate(**{"prompt": "p"}, extra_body=fields))
    assert (error.type, error.param, error.code) == ("invalid_request_error", param, code)
    assert words in error.body["message"]
    assert "x" * 20 not in error.response.text  # the prompt is never repeated


def test_a_prompt_is_counted_in_code_points(server):
    assert server.paint(prompt="😀" * 1000).status_code == 200
    assert server.paint(prompt="😀" * 1001).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"prompt": "a"', b"\xff", b"[" * 50_000, b'{"n": NaN}'])
def test_a_body_that_is_no_json_object(server, body):
    answer = server.http.post("/v1/images/generations", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]


def test_a_model_that_is_not_there(client):
    error = refused(openai.NotFoundError, lambda: client.images.generate(prompt="a", model="dall-e-3"))
    assert (error.type, error.param, error.code) == ("invalid_request_error", "model", "model_not_found")


@pytest.mark.parametrize("prompt", ["a Forbidden  FRUIT!", "cafe\u0301 in rain", "ｆｏｒｂｉｄｄｅｎ ｆｒｕｉｔ"])
def test_a_blocked_word_is_a_policy_violation(server, client, prompt):
    error = refused(openai.BadRequestError, lambda: client.images.generate(prompt=prompt))
    assert (error.type, error.param, error.code) == ("invalid_request_error", None, "content_policy_violation")
    assert "fruit" not in error.body["message"].lower()
    assert server.post("/api/jobs", {"task": "generate", "prompt": prompt}).json()["error"]["code"] == error.code
    assert server.paint(prompt="forbidden fruitcake in a cafeteria").status_code == 200


@pytest.mark.parametrize(
    ("image", "code", "words"),
    [
        (b"", None, "Uploaded image must be a PNG and less than 4 MB."),
        (b"hello", None, "Uploaded image must be a PNG and less than 4 MB."),
        (png() + bytes(4 << 20), None, "Uploaded image must be a PNG and less than 4 MB."),
        (b"\xff\xd8\xff\xe0" + bytes(50), None, "unsupported mimetype ('image/jpeg')"),
        (png((64, 32)), None, "must be square, got 64 x 32"),
        ([png(), png()], "invalid_type", "Invalid type for 'image': expected a file, but got an array instead."),
    ],
)
def test_a_wrong_image(client, image, code, words):
    error = refused(openai.BadRequestError, lambda: client.images.edit(image=image, prompt="a hat"))
    assert (error.type, error.param, error.code) == ("invalid_request_error", "image", code)
    assert words in error.body["message"]


@pytest.mark.parametrize(
    ("image", "mask", "param", "words"),
    [
        (png(), None, "image", "Invalid input image - format must be in ['RGBA', 'LA', 'L'], got RGB."),
        (png(mode="P"), None, "image", "got P"),
        (png(mode="L"), None, "image", "transparent"),
        (png(mode="RGBA"), None, "image", "transparent"),
        (png(), png(mode="RGBA"), "mask", "transparent"),
        (png(), png(32, hole=True), "mask", "same dimensions"),
        (png(), b"hello", "mask", "must be a PNG"),
    ],
)
def test_a_wrong_mask(client, image, mask, param, words):
    masks = {} if mask is None else {"mask": mask}
    error = refused(openai.BadRequestError, lambda: client.images.edit(image=image, prompt="a hat", **masks))
    assert (error.type, error.param) == ("invalid_request_error", param)
    assert words in error.body["message"]


def test_a_form_is_held_to_the_same_rules(server):
    rules = [
        ({"n": "two"}, "n", "invalid_type"),
        ({"n": "11"}, "n", "integer_above_max_value"),
        ({"size": "1x1"}, "size", "invalid_value"),
        ({"image_url": "http://127.0.0.1/"}, "image_url", "unknown_parameter"),
        ({"prompt": "variations take none"}, "prompt", "unknown_parameter"),
    ]
    for fields, param, code in rules:
        error = server.form("variations", png(), **fields).json()["error"]
        assert (error["param"], error["code"]) == (param, code)
    assert server.form("variations", png(), n="2", size="256x256", seed="3", guidance_scale="2.5").status_code == 200
    assert server.form("variations", None).json()["error"]["param"] == "nothing"
    repeated = server.http.post("/v1/images/variations", files=[("image", png()), ("n", (None, "1")), ("n", (None, "2"))])
    assert repeated.json()["error"]["message"] == "Invalid type for 'n': expected an integer, but got an array instead."
    texts = server.http.post("/v1/images/variations", files=[("image", (None, "text"))])
    assert texts.json()["error"]["message"] == "Invalid type for 'image': expected a file, but got a string instead."


def test_method_path_and_content_type(server):
    def told(response):
        return response.status_code, response.json()["error"]["code"]

    assert told(server.http.get("/v1/images/generations")) == (405, None)
    assert told(server.post("/v1/completions", {})) == (404, "unknown_url")
    assert "/v1/images/generations" in server.post("/images/generations", {}).json()["error"]["message"]
    assert told(server.http.post("/v1/images/generations", data={"prompt": "a"})) == (415, None)
    assert told(server.post("/v1/images/variations", {"image": "x"})) == (415, None)
    edit = server.post("/v1/images/edits", {"prompt": "a", "images": [{"image_url": "http://127.0.0.1:1/x.png"}]})
    assert (*told(edit), edit.json()["error"]["param"]) == (400, None, "images")


def test_what_goes_wrong_while_painting(client):
    error = refused(openai.BadRequestError, lambda: client.images.generate(prompt="stub: refuse"))
    assert error.type == "invalid_request_error"
    error = refused(openai.InternalServerError, lambda: client.images.generate(prompt="stub: break"))
    assert (error.status_code, error.type, error.code) == (500, "server_error", None)
    assert error.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.APIError, match="Something went wrong"):
        list(client.images.generate(prompt="stub: break", stream=True))


def test_a_full_queue_says_when_to_come_again(tmp_path):
    with live(tmp_path, queue=1, stub_step_seconds=0.05) as server:
        for _ in range(20):
            answer = server.post("/api/jobs", {"task": "generate", "prompt": "a cat", "steps": 400})
            if answer.status_code != 201:
                break
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert answer.json()["error"]["type"] == "rate_limit_error"
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0) as client:
            error = refused(openai.RateLimitError, lambda: client.images.generate(prompt="a cat"))
        assert int(error.response.headers["retry-after-ms"]) > 0
        for job in server.http.get("/api/jobs").json()["jobs"]:
            server.post(f"/api/jobs/{job['id']}/cancel")


def test_the_clients_own_retries_converge(tmp_path):
    with (
        live(tmp_path, limits={"requests_per_minute": 40}) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=2) as client,
    ):
        statuses = [server.paint(prompt="").status_code for _ in range(45)]  # refused, and counted all the same
        assert statuses.index(429) in (40, 41, 42)  # some seconds have passed
        assert len(client.images.generate(prompt="a cat", size="256x256").data) == 1
