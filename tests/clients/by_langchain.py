"""LangChain's DallEAPIWrapper, which gives urls, one a line."""

from typing import Any

from by_openai import failed
from drive import Case, drive
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper


def call(case: Case) -> Any:
    fields = dict(case["fields"])
    prompt = fields.pop("prompt")
    wrapper = DallEAPIWrapper(
        base_url=f"{case['url']}/v1",
        api_key=case["key"],
        max_retries=case["retries"],
        timeout=case["timeout"],
        default_headers=case["headers"],
        **fields,
    )
    return wrapper.run(prompt)


if __name__ == "__main__":
    drive(call, lambda urls: {"data": [{"url": url} for url in urls.splitlines()]}, failed)
