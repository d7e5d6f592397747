"""GLIDE's tokens: GPT-2's as transformers has them, lower-cased, padded with the end token."""

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer

from unclip.errors import RequestError, WeightsError
from unclip.models.glide_tokenizer import END, GlideTokenizer


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> tuple[Path, Path]:
    """encoder.json and, gzipped, vocab.bpe, learnt on a few words."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    learnt.train_from_iterator(
        ["an oil painting of a corgi", "a painting of the corgi's oil", "it's oil, isn't it"], trainer
    )
    model = json.loads(learnt.to_str())["model"]
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "encoder.json").write_text(json.dumps(model["vocab"] | {END: len(model["vocab"])}), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""])
    (folder / "vocab.bpe.gz").write_bytes(gzip.compress(merges.encode()))
    return folder / "encoder.json", folder / "vocab.bpe.gz"


@pytest.fixture(scope="module")
def tokens(vocabulary) -> GlideTokenizer:
    return GlideTokenizer.from_gpt2(*vocabulary, context=12)


@pytest.mark.parametrize(
    "prompt",
    [
        "an oil painting of a corgi",
        "",
        "  two  spaces\t\n",
        "it's isn't THE'RE",
        "日本の猫 🍕",
        "½ x² 123",
        "ΟΔΥΣΣΕΥΣ",
        "a  b",
    ],
)
def test_pieces_are_transformers_gpt2_tokenizers(vocabulary, prompt):
    merges = gzip.decompress(vocabulary[1].read_bytes()).decode().splitlines()[1:]
    vocab = json.loads(vocabulary[0].read_text(encoding="utf-8"))
    theirs = GPT2Tokenizer(vocab=vocab, merges=[tuple(line.split()) for line in merges])
    ours = GlideTokenizer.from_gpt2(*vocabulary)
    ours = GlideTokenizer.from_json(ours.to_json(), context=128)([prompt])
    assert ours.ids[0][ours.mask[0]].tolist() == theirs(prompt.lower())["input_ids"]


def test_merges_by_hand(tmp_path):
    vocab = {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4, END: 5}
    (tmp_path / "encoder.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\na b\nĠ ab\n", encoding="utf-8")
    for context, ids, cut in ((8, [3, 1, 0, 4, 5, 5, 5, 5], False), (4, [3, 1, 0, 4], False), (3, [3, 1, 0], True)):
        tokens = GlideTokenizer.from_gpt2(tmp_path / "encoder.json", tmp_path / "vocab.bpe", context=context)
        given = tokens(["ABBa ab"])
        assert (given.ids.tolist(), given.cut) == ([ids], (cut,))


def test_a_row_is_pieces_then_end_tokens(tokens):
    given = tokens(["a corgi", "", "corgi " * 12])
    assert given.ids.shape == given.mask.shape == (3, 12)
    length = int(given.mask[0].sum())
    assert 0 < length < 12
    assert given.mask[0].tolist() == [True] * length + [False] * (12 - length)
    assert given.ids[0, length:].eq(tokens.end).all()
    assert not given.mask[1].any()
    assert given.mask[2].all()
    assert given.cut == (False, False, True)


def test_the_name_of_the_end_token_is_text_like_any_other(tokens):
    given = tokens(["a" + END])
    assert not given.ids[0][given.mask[0]].eq(tokens.end).any()


def test_what_is_no_vocabulary_or_no_text_is_refused_in_one_line(tokens, vocabulary, tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read the vocabulary .*absent\.json"):
        GlideTokenizer.from_gpt2(tmp_path / "absent.json", vocabulary[1])
    with pytest.raises(WeightsError, match=r"are not GPT-2's encoder\.json and vocab\.bpe") as error:
        GlideTokenizer.from_gpt2(vocabulary[1], vocabulary[0])
    assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="is not a tokenizer"):
        GlideTokenizer.from_json("{}", context=12)
    with pytest.raises(WeightsError, match=r"last token is not <\|endoftext\|>"):
        GlideTokenizer.from_json(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).to_str(), context=12)
    with pytest.raises(RequestError, match="no utf-8"):
        tokens(["a \udcff"])
