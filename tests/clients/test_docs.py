"""The snippets of docs/server.md do what they say, as they stand there."""

import os
import re
import subprocess
from pathlib import Path

import httpx2
import pytest
from clients import ENVIRONMENTS, python
from live_server import live, picture, png

DOCS = Path(__file__).parents[2] / "docs" / "server.md"
SNIPPETS = dict(re.findall(r"^### ([^\n]+)\n\n```\w+\n(.*?)^```", DOCS.read_text(), re.M | re.S))


def run(environment: str) -> list[str]:
    return [python(environment, "")[0], "-"]


RUN = [
    ("Python, openai 2 and 3", run(""), 3),
    ("Python, openai 2 and 3", run("second"), 3),
    ("Python, openai 0.28", run("legacy"), 2),
    ("Node", ["node", "-"], 2),
    ("curl", ["bash", "-e"], 4),
    ("LangChain", run("second"), 2),
    ("LiteLLM", run("second"), 1),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with live(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_every_snippet_is_run():
    assert set(SNIPPETS) == {name for name, _, _ in RUN}


@pytest.mark.parametrize(("name", "command", "urls"), RUN)
def test_a_snippet_paints(server, tmp_path, name, command, urls):
    (tmp_path / "cat.png").write_bytes(png())
    (tmp_path / "mask.png").write_bytes(png(hole=True))
    code = SNIPPETS[name].replace("http://127.0.0.1:8000", server.url)
    ours = {"NODE_PATH": str(ENVIRONMENTS / "node" / "node_modules"), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        command, input=code, cwd=tmp_path, env=os.environ | ours, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r'http://[^\s"]+', done.stdout)
    assert len(found) == urls
    for url in found:
        assert picture(httpx2.get(url).content).size == (256, 256)
