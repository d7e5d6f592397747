"""curl."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from drive import Case, drive

PATHS = {"generate": "/images/generations", "edit": "/images/edits", "variation": "/images/variations", "models": "/models"}
FAILED, TIMED_OUT = 22, 28  # curl's exit codes


class CurlError(Exception):
    def __init__(self, code: int, body: str, status: str, id: str):
        super().__init__(body)
        self.told = {"kind": f"curl {code}", "status": int(status) or None, "id": id}
        if code == FAILED:
            self.told |= json.loads(body)["error"]


def call(case: Case) -> Any:
    path = case["path"] or PATHS.get(case["call"]) or f"/models/{case['fields']['model']}"
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", str(case["timeout"])]
    command += ["--retry", str(case["retries"]), "--write-out", "%{http_code} %header{x-request-id}"]
    command += [word for name, value in _headers(case).items() for word in ("--header", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile() as answer:
        command += ["--output", answer.name, *_body(case), f"{case['url']}/v1{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        body = Path(answer.name).read_text()
    status, _, id = done.stdout.partition(" ")
    if done.returncode:
        raise CurlError(done.returncode, body, status, id)
    if case["fields"].get("stream"):
        return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]
    return json.loads(body)


def _headers(case: Case) -> dict[str, str]:
    return {**({"Authorization": f"Bearer {case['key']}"} if case["key"] else {}), **case["headers"]}


def _body(case: Case) -> list[str]:
    fields = {**case["fields"], **case["extra"]}
    if case["call"] in ("generate", "post"):
        return ["--json", json.dumps(fields)]
    if case["call"] not in ("edit", "variation"):
        return []
    parts = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()]
    for name, what in case["files"].items():
        parts += [f"{name}=@{file.name}" for file in (what if isinstance(what, list) else [what])]
    return [word for part in parts for word in ("--form", part)]


if __name__ == "__main__":
    drive(call, lambda answer: answer, lambda error: getattr(error, "told", {}))
