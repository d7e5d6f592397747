"""What is asked of every client, and what has to come back: one table for all of them."""

from dataclasses import dataclass, field
from typing import Any

INVALID = "invalid_request_error"
KEY = "sk-the-right-key"


@dataclass(frozen=True)
class Refusal:
    """The error that a case ends in, as the wire has it."""

    status: int
    param: str | None = None
    code: str | None = None
    words: str = ""
    type: str = INVALID


@dataclass(frozen=True)
class Case:
    """A call. `files` are names of pictures that conftest.py draws; `extra` has fields that no client has parameters for."""

    name: str
    call: str
    fields: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None
    key: str = KEY
    retries: int = 0
    timeout: float = 20
    headers: dict[str, str] = field(default_factory=dict)
    path: str = ""


SMALL = {"size": "256x256"}
CAT = {"prompt": "a cat", **SMALL}
HAT = {"prompt": "a hat", **SMALL}
B64 = {"response_format": "b64_json"}

PAINTED = [
    Case("generate-defaults", "generate", {"prompt": "a cat"}),
    Case("generate-urls", "generate", {**CAT, "n": 2, "response_format": "url", "user": "u1"}, {"seed": 7}),
    Case("generate-b64", "generate", {**CAT, "n": 3, "size": "512x512", **B64, "model": "dall-e-2"}, {"seed": 7}),
    Case("generate-all", "generate", {**CAT, "n": 10}),
    Case("generate-steps", "generate", {**CAT, **B64}, {"num_inference_steps": 2, "guidance_scale": 2.5, "seed": 1}),
    Case("edit-mask-url", "edit", {**HAT, "n": 2}, {"seed": 7}, {"image": "plain", "mask": "hole"}),
    Case("edit-own-alpha-b64", "edit", {**HAT, **B64}, files={"image": "hole"}),
    Case("variation-url", "variation", {**SMALL, "n": 2}, {"seed": 7}, {"image": "plain"}),
    Case("variation-b64", "variation", {**SMALL, **B64, "user": "u1"}, files={"image": "hole"}),
    Case("variation-defaults", "variation", files={"image": "plain"}),
    Case("azure", "azure", {**CAT, "model": "second"}),
]

# At 1024 px: openai 2 knows no other size in a stream.
STREAMED = [
    Case("generate-stream", "generate", {"prompt": "a cat", "n": 2, "stream": True, "partial_images": 2}),
    Case("edit-stream", "edit", {"prompt": "a hat", "stream": True, "partial_images": 0}, files={"image": "hole"}),
]

LOOKED_UP = [Case("models", "models"), Case("model", "model", {"model": "dall-e-2"})]

NOT_PNG = Refusal(400, "image", None, "Uploaded image must be a PNG and less than 4 MB.")
REFUSED = [
    Case("prompt-too-long", "generate", {"prompt": "x" * 1192}, refusal=Refusal(
        400, "prompt", None, "Prompt must be length 1000 or less. Your prompt length is 1192.")),
    Case("prompt-empty", "generate", {"prompt": ""}, refusal=Refusal(400, "prompt", "empty_string", "empty string")),
    Case("wrong-size", "generate", {"prompt": "a cat", "size": "1536x1024"}, refusal=Refusal(
        400, "size", "invalid_value",
        "Invalid value: '1536x1024'. Supported values are: '256x256', '512x512', and '1024x1024'.")),
    Case("too-many", "generate", {**CAT, "n": 11}, refusal=Refusal(
        400, "n", "integer_above_max_value", "<= 10, but got 11")),
    Case("unknown-field", "generate", CAT, {"frame_count": 4}, refusal=Refusal(
        400, "frame_count", "unknown_parameter", "Unknown parameter: 'frame_count'.")),
    Case("too-many-in-a-form", "variation", {**SMALL, "n": 11}, files={"image": "plain"}, refusal=Refusal(
        400, "n", "integer_above_max_value", "<= 10, but got 11")),
    Case("two-images", "edit", HAT, files={"image": ["hole", "plain"]}, refusal=Refusal(
        400, "image", "invalid_type", "Invalid type for 'image': expected a file, but got an array instead.")),
    Case("jpeg", "edit", HAT, files={"image": "jpeg"}, refusal=Refusal(
        400, "image", None, "unsupported mimetype ('image/jpeg')")),
    Case("no-picture", "variation", SMALL, files={"image": "text"}, refusal=NOT_PNG),
    Case("too-large", "edit", HAT, files={"image": "large"}, refusal=NOT_PNG),
    Case("not-square", "edit", HAT, files={"image": "wide"}, refusal=Refusal(
        400, "image", None, "Uploaded image must be square, got 64 x 32.")),
    Case("no-alpha", "edit", HAT, files={"image": "plain"}, refusal=Refusal(
        400, "image", None, "Invalid input image - format must be in ['RGBA', 'LA', 'L'], got RGB.")),
    Case("other-dimensions", "edit", HAT, files={"image": "plain", "mask": "small-hole"}, refusal=Refusal(
        400, "mask", None, "Uploaded image and mask must have the same dimensions")),
    Case("policy", "generate", {**CAT, "prompt": "a forbidden fruit"}, refusal=Refusal(
        400, None, "content_policy_violation", "Your request was rejected as a result of our safety system.")),
    Case("wrong-key", "generate", CAT, key="sk-wrong-key", refusal=Refusal(
        401, None, "invalid_api_key", "Incorrect API key provided: sk-***")),
    Case("unknown-model", "generate", {**CAT, "model": "dall-e-3"}, refusal=Refusal(
        404, "model", "model_not_found", "The model `dall-e-3` does not exist")),
    Case("unknown-model-looked-up", "model", {"model": "dall-e-3"}, refusal=Refusal(
        404, "model", "model_not_found", "The model `dall-e-3` does not exist")),
    Case("wrong-path", "post", path="/nothing", refusal=Refusal(404, None, "unknown_url", "POST /v1/nothing")),
    Case("wrong-method", "get", path="/images/generations", refusal=Refusal(405, None, None, "Not allowed to GET")),
    Case("wrong-content-type", "post", {"image": "x"}, path="/images/variations", refusal=Refusal(
        415, None, None, "expected multipart/form-data")),
    Case("fault", "generate", {"prompt": "stub: break"}, refusal=Refusal(
        500, None, None, "Something went wrong on the server.", "server_error")),
    Case("overloaded", "generate", CAT, {"num_inference_steps": 1000}, headers={"x-stainless-read-timeout": "0.01"},
         refusal=Refusal(503, None, "server_is_overloaded", "The server is overloaded", "service_unavailable_error")),
]  # fmt: skip

TIMED_OUT = Case("timeout", "generate", CAT, {"num_inference_steps": 1000}, timeout=0.5)

# For a server that grants thirty calls a minute: a fault that must not be sent again; calls until there is no room; and one
# that comes again when there is.
NOT_AGAIN = Case("not-again", "generate", {"prompt": "stub: break"}, retries=2)
SPEND = [Case("spend", "generate", {"prompt": ""})] * 36
COME_AGAIN = Case("come-again", "generate", CAT, retries=2)
