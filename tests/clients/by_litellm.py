"""LiteLLM, to which we are one more `openai/` model behind an `api_base`."""

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the internet for prices

import litellm
from by_openai import failed
from drive import Case, drive

CALLS = {"generate": "image_generation", "edit": "image_edit", "variation": "image_variation"}


def call(case: Case) -> Any:
    fields = {**case["fields"], **case["extra"], **case["files"]}
    fields |= {"api_base": f"{case['url']}/v1", "api_key": case["key"]}
    name = ("a" if case["form"] == "async" else "") + CALLS[case["call"]]
    model = f"openai/{fields.pop('model', 'dall-e-2')}"
    return getattr(litellm, name)(model=model, **fields, timeout=case["timeout"])


if __name__ == "__main__":
    litellm.suppress_debug_info = True
    drive(call, lambda answer: answer.model_dump(mode="json"), failed)
