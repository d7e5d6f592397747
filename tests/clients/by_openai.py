"""openai 2 and 3."""

from typing import Any

import openai
from drive import Case, drive

CLIENTS = {"sync": openai.OpenAI, "async": openai.AsyncOpenAI}
AZURES = {"sync": openai.AzureOpenAI, "async": openai.AsyncAzureOpenAI}


def client(case: Case) -> Any:
    how = {"api_key": case["key"], "max_retries": case["retries"], "timeout": case["timeout"]}
    how["_strict_response_validation"] = True
    if case["call"] == "azure":
        return AZURES[case["form"]](azure_endpoint=case["url"], api_version="2024-02-01", **how)
    return CLIENTS[case["form"]](base_url=f"{case['url']}/v1", **how)


def call(case: Case) -> Any:
    with_it = client(case)
    fields = {**case["fields"], **case["files"], "extra_body": case["extra"] or None, "extra_headers": case["headers"]}
    match case["call"]:
        case "generate" | "azure":
            return with_it.images.generate(**fields)
        case "edit":
            return with_it.images.edit(**fields)
        case "variation":
            return with_it.images.create_variation(**fields)
        case "models":
            return with_it.models.list()
        case "model":
            return with_it.models.retrieve(case["fields"]["model"])
        case "get":
            return with_it.get(case["path"], cast_to=object)
        case "post":
            return with_it.post(case["path"], body=case["fields"], cast_to=object)


def failed(error: Any) -> dict[str, Any]:
    told = {name: getattr(error, name, None) for name in ("type", "code", "param")}
    return told | {"status": getattr(error, "status_code", None), "id": getattr(error, "request_id", None)}


if __name__ == "__main__":
    drive(call, lambda answer: answer.to_dict(mode="json"), failed)
