"""Our OpenAPI document against our own answers: no request that anybody can make up brings on a fault of ours.

UNCLIP_SCHEMA_CASES is about how many requests are made up, over all operations, half of them as the document wants them.
"""

import os
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from live_server import live
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from toy_index import Indexed

CASES = int(os.environ.get("UNCLIP_SCHEMA_CASES", "60"))
STREAMS = ("/api/events",)  # which does not end

# What the document cannot say: a picture's bytes, the pictures that a task takes, that a form's numbers are text, and that a
# search is for one thing.
UNSAID = ("/v1/images/edits", "/v1/images/variations", "/api/jobs", "/api/images")
UNSAID += ("/knn-service", "/metadata", "/api/search")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    limits = {"requests_per_minute": 1_000_000, "searches_per_minute": 1_000_000}
    index = Indexed(tmp_path_factory.mktemp("index")).config
    with live(tmp_path_factory.mktemp("server"), limits=limits, queue=100_000, **index) as running:
        yield running


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_made_up_request_is_answered_as_the_document_says(server, mode):
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    operations = [operation for operation in operations if operation.path not in STREAMS]
    assert len(operations) > 20
    answered = set()

    def made_up(operation):
        @settings(
            max_examples=max(1, CASES // 2 // len(operations)),
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            excluded = [positive_data_acceptance, negative_data_rejection] if case.path in UNSAID else []
            response = case.call_and_validate(excluded_checks=excluded, timeout=20)
            answered.add(response.status_code)
            assert response.status_code < 500

        return ask

    tried = 0
    for operation in operations:
        with suppress(Unsatisfiable):  # one without input has no wrong input
            made_up(operation)()
            tried += 1
    assert tried >= (8 if mode is GenerationMode.NEGATIVE else len(operations))
    assert (400 if mode is GenerationMode.NEGATIVE else 200) in answered


def test_a_stream_is_as_the_document_says(server):
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    body = {"prompt": "a cat", "stream": True, "partial_images": 1, "size": "256x256", "response_format": "b64_json"}
    case = document["/v1/images/generations"]["POST"].Case(body=body, media_type="application/json")
    response = case.call_and_validate(timeout=20)
    assert response.headers["content-type"][0].startswith("text/event-stream")
    assert response.content.count(b"data: ") >= 1
