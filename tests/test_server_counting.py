"""How many tokens a prompt has, as the model's own tokenizer counts them, and without torch."""

import json
import subprocess
import sys

import pytest
from live_server import live

from unclip.server.counting import SHIPPED, counter, reader
from unclip.tokenizer import Tokenizer

LIMIT = 22  # of the shipped model: 24 less start and end
PROMPTS = (
    "",
    "a cat",
    "  a   3D render, of AN ünïcödé e\u0301clair ",
    "🦊 🦊 a fox’s “tail” 1234 <|endoftext|>",
    "a small pink cat on the left of a large yellow star " * 8,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(SHIPPED / "icons/tokenizer.json", context=1024)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_count_is_the_tokenizers(tokenizer, prompt):
    count = counter("icons")
    assert count is not None
    counted = count(prompt)
    ids = tokenizer([prompt])
    assert (counted.count, counted.limit) == (int(ids.mask.sum()) - 2, LIMIT)
    if counted.count <= LIMIT:
        assert counted.kept == len(prompt)
    else:
        read = tokenizer([prompt[: counted.kept]])
        assert read.ids[0, 1 : 1 + LIMIT].tolist() == ids.ids[0, 1 : 1 + LIMIT].tolist()
        assert int(read.mask.sum()) - 2 == LIMIT


def test_what_has_no_vocabulary_of_ours_is_not_counted(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/config.json").write_text(json.dumps({"model": {"text": {"context": 24}}}))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert counter(str(tmp_path)) is None
    assert counter("kakaobrain/karlo-v1-alpha") is None


def test_the_servers_process_needs_no_torch_for_it():
    code = "import sys; from unclip.server import counting; print(counting.counter('icons')('cat'), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "Counted(count=1, limit=22, kept=3) False\n"


def test_the_route_counts_for_the_model_that_is_asked_for(tmp_path):
    with live(tmp_path, models={"icons": "icons"}) as server:
        counted = server.post("/api/tokens", {"prompt": "cat " * 30, "model": "icons"}).json()
        assert (counted["count"], counted["limit"], counted["kept"]) == (30, LIMIT, 4 * LIMIT - 1)
        assert set(server.post("/api/tokens", {"prompt": "a cat"}).json().values()) == {None}
        assert server.post("/api/tokens", {"prompt": "a cat", "model": "nobody"}).status_code == 404
        for wrong in ({}, {"prompt": "x" * 10_001}, {"prompt": 3}, {"prompt": "a", "more": 1}):
            refused = server.post("/api/tokens", wrong)
            assert refused.status_code == 400
            assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_a_blocked_word_is_blocked_in_what_is_read_too(tmp_path):
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("cat\n")
    with live(tmp_path / "data", blocked_words=blocked, models={"reads": "icons"}) as server:
        refused = [
            server.paint(prompt=prompt, model=model) for prompt, model in (("A kitty!", "reads"), ("a cat", "dall-e-2"))
        ]
        assert [answer.json()["error"]["code"] for answer in refused] == ["content_policy_violation"] * 2
        assert server.paint(prompt="A kitty!", num_inference_steps=1).status_code == 200  # the stub reads nothing
    assert reader("icons").read("A kitty!").text == "A cat!"
    assert reader("stub") is None
