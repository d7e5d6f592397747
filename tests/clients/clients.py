"""The clients, each a program in an environment of its own, which `make test-clients` makes.

A program takes cases as JSON and says what became of them. All cases of a client go to one process.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cases import Case

HERE = Path(__file__).parent
ENVIRONMENTS = Path(sys.prefix) / "clients"

MODERN = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}
MODERN |= {405: "APIStatusError", 415: "APIStatusError", 500: "InternalServerError", 503: "InternalServerError"}
MODERN |= {0: "APITimeoutError"}
NODE = MODERN | {405: "APIError", 415: "APIError", 0: "APIConnectionTimeoutError"}
LEGACY = {400: "InvalidRequestError", 401: "AuthenticationError", 404: "InvalidRequestError", 405: "APIError"}
LEGACY |= {415: "InvalidRequestError", 429: "RateLimitError", 500: "APIError", 503: "ServiceUnavailableError", 0: "Timeout"}
LITELLM = MODERN | {"content_policy_violation": "ContentPolicyViolationError", 0: "Timeout"}
CURL = dict.fromkeys(MODERN, "curl 22") | {0: "curl 28"}

IMAGES = frozenset({"generate", "edit", "variation"})
ALL = IMAGES | {"models", "model", "get", "post"}
EVERYTHING = frozenset({"status", "type", "code", "param", "id"})


@dataclass(frozen=True)
class Client:
    """A program; its name for the error of a code or else of a status (0: a timeout); its calls; what its errors show."""

    name: str
    command: tuple[str, ...]
    kinds: dict[Any, str]
    calls: frozenset[str] = ALL
    forms: tuple[str, ...] = ("sync", "async")
    shows: frozenset[str] = EVERYTHING
    without: frozenset[str] = frozenset()
    """Cases that this client cannot express, or changes before it sends them."""
    stubborn: bool = False
    """It comes again whether it is told to or not."""

    @property
    def key(self) -> str:
        """Its own, where each has one."""
        return f"sk-of-{self.name}"

    def ways(self, *cases: Case) -> list[tuple[Case, str]]:
        """Those of the cases that this client can do, in every form."""
        able = [case for case in cases if case.call in self.calls and case.name not in self.without]
        return [(case, form) for case in able for form in (self.forms if case.call not in ("get", "post") else ("sync",))]

    def drive(self, url: str, pictures: Path, ways: list[tuple[Case, str]]) -> list[dict[str, Any]]:
        """What became of each case: {"answer": ...} or {"error": ...}."""
        cases = [{**asdict(case), "form": form, "url": url} for case, form in ways]
        for case in cases:
            del case["refusal"]
            case["files"] = {name: _paths(pictures, what) for name, what in case["files"].items()}
        how = {"cwd": ENVIRONMENTS / "node", "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run(self.command, input=json.dumps(cases), check=False, **how)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def python(environment: str, script: str) -> tuple[str, ...]:
    where = ENVIRONMENTS / environment / "bin" / "python" if environment else sys.executable
    return str(where), str(HERE / script)


STREAMS = frozenset({"generate-stream", "edit-stream"})
CLIENTS = [
    Client("openai-3", python("", "by_openai.py"), MODERN, ALL | {"azure"}),
    Client("openai-2", python("second", "by_openai.py"), MODERN, ALL | {"azure"}),
    Client("openai-0.28", python("legacy", "by_legacy.py"), LEGACY, without=STREAMS | {"two-images", "come-again"}),
    Client("openai-node", ("node", str(HERE / "by_node.cjs")), NODE, ALL | {"azure"}, ("async",)),
    Client("curl", python("", "by_curl.py"), CURL, forms=("sync",), without=frozenset({"not-again"})),
    Client(
        "langchain",  # it gives urls, and takes none of our own fields
        python("second", "by_langchain.py"),
        MODERN,
        frozenset({"generate"}),
        ("sync",),
        without=STREAMS | {"generate-b64", "generate-steps", "unknown-field", "overloaded", "timeout"},
    ),
    Client(
        "litellm",  # it sends of a variation nothing but the picture, and refuses two images itself
        python("second", "by_litellm.py"),
        LITELLM,
        IMAGES,
        shows=frozenset({"status"}),
        without=STREAMS | {"variation-url", "variation-b64", "too-many-in-a-form", "two-images", "no-picture", "overloaded"},
        stubborn=True,
    ),
]


def _paths(pictures: Path, what: str | list[str]) -> Any:
    return str(pictures / what) if isinstance(what, str) else [_paths(pictures, one) for one in what]
