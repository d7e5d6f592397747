"""The three calls of the OpenAI Images API as dall-e-2 answered them from 2022 to 2026: fields, limits, defaults, errors.

Over OpenAI's fields stand those of open servers (`seed`, `num_inference_steps`, `guidance_scale`, as vLLM-Omni has them)
and our own for the prior, the upsamplers and how a prompt is read. What later models brought and dall-e-2 has no use for is
accepted and named in the header `x-unclip-ignored`; any other field is an error that names it. JSON is read strictly; a
form's strings become numbers and booleans first, and are then held to the same rules.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from unclip.server import errors
from unclip.server.config import ALIAS
from unclip.server.errors import ApiError
from unclip.server.jobs import MOST, PROMPT_LIMIT, JobRequest, Task

SIZES = ("256x256", "512x512", "1024x1024")
MOST_PARTIAL = 3
NOT_JSON = "We could not parse the JSON body of your request: expected one JSON object."

Prompt = Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT, description="Unicode code points are counted.")]
Text = Annotated[str | None, Field(max_length=PROMPT_LIMIT)]
Steps = Annotated[int | None, Field(ge=1, le=1000)]
Scale = Annotated[float | None, Field(ge=0, le=100)]


class Call(BaseModel):
    """What every call takes. None stands for a field's default, as it does at OpenAI."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    model: Annotated[str | None, Field(max_length=256)] = None
    n: Annotated[int | None, Field(ge=1, le=MOST)] = None
    size: Literal["256x256", "512x512", "1024x1024", "auto"] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    user: Annotated[str, Field(max_length=1024, description="Not kept.")] = ""

    seed: Annotated[int | None, Field(ge=0, lt=1 << 53, description="Of the first picture; the next has seed + 1.")] = None
    num_inference_steps: Steps = None
    guidance_scale: Scale = None
    decoder_num_inference_steps: Steps = None
    decoder_guidance_scale: Scale = None
    prior_num_inference_steps: Steps = None
    prior_guidance_scale: Scale = None
    upsampler_num_inference_steps: Steps = None
    eta: Annotated[float | None, Field(ge=0, le=1)] = None

    quality: Literal["standard", "auto"] | None = None
    output_format: Literal["png"] | None = None
    style: Literal["vivid", "natural"] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    moderation: Literal["low", "auto"] | None = None
    output_compression: Annotated[int | None, Field(ge=0, le=100)] = None
    input_fidelity: Literal["high", "low"] | None = None
    complexity: Literal["low", "medium", "high"] | None = None
    safety_identifier: Annotated[str | None, Field(max_length=1024)] = None
    negative_prompt: Text = None

    @property
    def ignored(self) -> list[str]:
        """The fields that were given and change nothing."""
        return [name for name in IGNORED if getattr(self, name) is not None]

    @property
    def side(self) -> int:
        """Of the pictures, px."""
        return 1024 if self.size in (None, "auto") else int(str(self.size).partition("x")[0])

    def job(self, task: Task, *, images: tuple[str, ...] = (), mask: str | None = None) -> JobRequest:
        """The job that this call is, over stored pictures."""
        first = lambda *values: next((value for value in values if value is not None), None)  # noqa: E731
        return JobRequest(
            task=task,
            model=self.model or ALIAS,
            prompt=getattr(self, "prompt", None),
            images=images,
            mask=mask,
            n=self.n or 1,
            seed=self.seed,
            size=self.side,  # type: ignore[arg-type]  # one of the three
            steps=first(self.decoder_num_inference_steps, self.num_inference_steps),
            guidance=first(self.decoder_guidance_scale, self.guidance_scale),
            prior_steps=self.prior_num_inference_steps,
            prior_guidance=self.prior_guidance_scale,
            upsampler_steps=self.upsampler_num_inference_steps,
            eta=self.eta,
            as_typed=bool(getattr(self, "as_typed", None)),
        )


IGNORED = (
    "style",
    "background",
    "moderation",
    "output_format",
    "output_compression",
    "input_fidelity",
    "complexity",
    "safety_identifier",
    "negative_prompt",
)


class Streamed(Call):
    """A call that can also be answered picture by picture, over server-sent events: gpt-image's way, an extension here."""

    prompt: Prompt
    as_typed: Annotated[bool | None, Field(description="Whether the model gets the prompt's words as they are.")] = None
    stream: bool | None = None
    partial_images: Annotated[int | None, Field(ge=0, le=MOST_PARTIAL)] = None


class Generation(Streamed):
    """POST /v1/images/generations."""


class Edit(Streamed):
    """POST /v1/images/edits: besides these fields the files `image` and `mask`."""


class Variation(Call):
    """POST /v1/images/variations: besides these fields the file `image`."""


AnyCall = TypeVar("AnyCall", bound=Call)
AnyBody = TypeVar("AnyBody", bound=BaseModel)
FILES: dict[type[Call], tuple[str, ...]] = {Edit: ("image", "mask"), Variation: ("image",)}


class Part(NamedTuple):
    """A field of a form: its text, or a file's bytes."""

    name: str
    value: str | bytes


def from_body(kind: type[AnyBody], body: bytes) -> AnyBody:
    """A JSON body as a call or another model; ApiError with OpenAI's words for the first thing that is wrong with it."""
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ApiError(400, NOT_JSON)
    return _checked(kind, {name: _whole(value) for name, value in values.items()})


def from_form(kind: type[AnyCall], parts: Sequence[Part]) -> tuple[AnyCall, dict[str, bytes]]:
    """A form as a call and its files, by name. One `image[]` is an `image`, as the clients send a list of one."""
    values: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, value in parts:
        name = name.removesuffix("[]") if name == "image[]" else name
        if name in FILES[kind]:
            if isinstance(value, str):
                raise errors.invalid_type(name, "a file", "a string")
            if name in files:
                raise errors.invalid_type(name, "a file", "an array")
            files[name] = value
        elif isinstance(value, bytes) and name in kind.model_fields:
            raise errors.invalid_type(name, _expected(kind, name), "a file")
        elif name in values and name in kind.model_fields:
            raise errors.invalid_type(name, _expected(kind, name), "an array")
        else:
            values[name] = _read(kind, name, value) if isinstance(value, str) else None
    call = _checked(kind, values)
    if "image" not in files:
        raise errors.missing("image")
    return call, files


def schema(kind: type[Call]) -> dict[str, Any]:
    """The JSON schema of a call's body, for the OpenAPI document."""
    made = kind.model_json_schema()
    if kind in FILES:
        made["properties"] |= {name: {"type": "string", "format": "binary"} for name in FILES[kind]}
        made["required"] = [*made.get("required", []), "image"]
    return made


def _checked(kind: type[AnyBody], values: dict[str, Any]) -> AnyBody:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise as_api_error(kind, error) from None


def as_api_error(kind: type[BaseModel], error: ValidationError) -> ApiError:
    """pydantic's first fault in OpenAI's words. A prompt is never repeated: errors end up in other people's logs."""
    fault: Any = error.errors(include_url=False)[0]
    if fault["type"] == "json_invalid" or not fault["loc"]:
        own = fault["msg"].removeprefix("Value error, ") if fault["type"] == "value_error" else NOT_JSON
        return ApiError(400, own, code="invalid_value" if own != NOT_JSON else None)
    name, given, limits = str(fault["loc"][0]), fault["input"], fault.get("ctx", {})
    match fault["type"]:
        case "missing":
            return errors.missing(name)
        case "extra_forbidden":
            return errors.unknown_parameter(name)
        case "literal_error":
            if not isinstance(given, str) and issubclass(kind, Call):
                return errors.invalid_type(name, "one of the allowed strings", _kind_of(given))
            return errors.invalid_value(name, given, _allowed(kind, name))
        case "string_too_long" if name == "prompt":
            message = f"Prompt must be length {PROMPT_LIMIT} or less. Your prompt length is {len(given)}."
            return ApiError(400, message, param=name)
        case "string_too_long":
            message = f"Invalid '{name}': string too long. Expected at most {limits['max_length']} characters."
            return ApiError(400, message, code="string_above_max_length", param=name)
        case "string_too_short":
            message = (
                f"Invalid '{name}': empty string. Expected a string with minimum length 1, but got an empty string instead."
            )
            return ApiError(400, message, code="empty_string", param=name)
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return _out_of_range(name, given, limits)
        case "string_unicode":
            return ApiError(400, f"Invalid '{name}': it is not valid Unicode.", code="invalid_value", param=name)
        case _:
            return errors.invalid_type(name, _expected(kind, name), _kind_of(given))


def _out_of_range(name: str, given: float, limits: dict[str, Any]) -> ApiError:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    rule, bound = next((rule, bound) for rule, bound in limits.items() if rule in signs)
    low, sign = rule in ("ge", "gt"), signs[rule]
    number = "integer" if isinstance(given, int) else "decimal"
    side = "below minimum value" if low else "above maximum value"
    got = f"{given:g}" if abs(given) < 1e15 else "a larger number"
    message = f"Invalid '{name}': {number} {side}. Expected a value {sign} {bound}, but got {got} instead."
    return ApiError(
        400,
        message,
        code=f"{number}_{side.replace('minimum', 'min').replace('maximum', 'max')}".replace(" ", "_"),
        param=name,
    )


def _whole(value: Any) -> Any:
    """To JSON 2.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read(kind: type[Call], name: str, text: str) -> Any:
    """A form's text as what its field holds, where it reads as that; the check says the rest."""
    if name not in kind.model_fields:
        return text
    holds = get_args(kind.model_fields[name].annotation)
    if int in holds and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if float in holds and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,2})?", text):
        return float(text)
    if bool in holds and text in ("true", "false"):
        return text == "true"
    return text


def _allowed(kind: type[BaseModel], name: str) -> tuple[str, ...]:
    annotation = kind.model_fields[name].annotation
    flat = [value for part in get_args(annotation) for value in get_args(part)] or get_args(annotation)
    return SIZES if issubclass(kind, Call) and name == "size" else tuple(str(value) for value in flat)


def _expected(kind: type[BaseModel], name: str) -> str:
    annotation = kind.model_fields[name].annotation
    holds = get_args(annotation) or (annotation,)
    words = {int: "an integer", float: "a decimal", bool: "a boolean"}
    return next((word for held, word in words.items() if held in holds), "a string")


def _kind_of(value: Any) -> str:
    words = {type(None): "null", bool: "a boolean", int: "an integer", float: "a decimal", str: "a string"}
    words |= {list: "an array", dict: "an object"}
    return words.get(type(value), "something else")
