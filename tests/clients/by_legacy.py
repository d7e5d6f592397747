"""openai 0.28, whose settings are global."""

import json
from typing import Any

import openai
from drive import Case, drive
from openai.api_requestor import APIRequestor

CALLS = {"generate": "create", "edit": "create_edit", "variation": "create_variation", "models": "list", "model": "retrieve"}
PATIENCE = 20  # s that a case grants unless it is about time


def call(case: Case) -> Any:
    openai.api_base, openai.api_key = f"{case['url']}/v1", case["key"]
    if case["path"]:
        return requested(case, case["call"], case["path"])
    if case["headers"] or case["timeout"] < PATIENCE:  # which Image.create takes for fields of the call
        return requested(case, "post", "/images/generations")
    name = ("a" if case["form"] == "async" else "") + CALLS[case["call"]]
    if case["call"] == "models":
        return getattr(openai.Model, name)()
    if case["call"] == "model":
        return getattr(openai.Model, name)(case["fields"]["model"])
    return getattr(openai.Image, name)(**case["fields"], **case["extra"], **case["files"])


def requested(case: Case, method: str, path: str) -> Any:
    """As Image.create does it, below its parameters."""
    how = {"params": {**case["fields"], **case["extra"]}, "headers": case["headers"], "request_timeout": case["timeout"]}
    requestor = APIRequestor()
    return (requestor.arequest if case["form"] == "async" else requestor.request)(method, path, **how)


def failed(error: Any) -> dict[str, Any]:
    if not isinstance(error, openai.OpenAIError) or not error.http_body:
        return {}
    told = json.loads(error.http_body)["error"]
    return told | {"message": str(error), "status": error.http_status, "id": error.headers.get("x-request-id")}


if __name__ == "__main__":
    drive(call, lambda answer: answer.to_dict_recursive(), failed)
