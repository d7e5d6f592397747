"""The tokenizer: nothing is lost whatever is typed, and CLIP's splitting as transformers has it."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from unclip.errors import RequestError, WeightsError
from unclip.tokenizer import END, PAD, START, Tokenizer

CAPTIONS = ["a 3d render of a slice of pizza", "a flat icon of a red apple", "a noto emoji of a cat's face, smiling"] * 3
LEARNT = Tokenizer.train(CAPTIONS, vocab=640, context=24)
PROMPTS = [
    "a red apple",
    "A Red   Apple!!",
    "it's 2 cats, isn't it? they'll've 10 of 'em",
    "über-groß: das Mädchen",
    "日本の猫",
    "🍕🍕 pizza 👨‍👩‍👧",
    "قطة حمراء",
    "tabs\tand\nnew lines",
    "e\u0301 composed",
    "½ x² № ﬁne",
    "a_b#c",
    "",
]


def spelled(prompt: str) -> bytes:
    """The bytes that a prompt's pieces stand for."""
    alphabet = {letter: byte for byte, letter in _byte_letters().items()}
    tokens = LEARNT._core.encode(prompt, add_special_tokens=False).tokens
    return bytes(alphabet[letter] for token in tokens for letter in token.removesuffix("</w>"))


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def test_our_stand_ins_for_bytes_are_the_librarys():
    assert set(_byte_letters().values()) == set(pre_tokenizers.ByteLevel.alphabet())


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_no_byte_of_any_prompt_is_lost(prompt):
    normal = LEARNT._core.normalizer.normalize_str(prompt)
    assert spelled(prompt) == normal.replace(" ", "").encode()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_pieces_are_transformers_clip_tokenizers(prompt):
    model = json.loads(LEARNT.to_json())["model"]
    theirs = CLIPTokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=END,
    )
    ours = Tokenizer.from_json(LEARNT.to_json(), context=77)([prompt])
    assert ours.ids[0][ours.mask[0]].tolist() == theirs(prompt)["input_ids"]


def test_a_row_is_start_pieces_end_padding():
    tokens = LEARNT(["a red apple", ""])
    assert tokens.ids.shape == tokens.mask.shape == (2, 24)
    assert tokens.ids.dtype == torch.int64
    length = int(tokens.mask[0].sum())
    assert tokens.mask[0].tolist() == [True] * length + [False] * (24 - length)
    assert (tokens.ids[0, 0], tokens.ids[0, length - 1]) == (LEARNT.start, LEARNT.end)
    assert tokens.ids[1, :3].tolist() == [LEARNT.start, LEARNT.end, LEARNT.pad]
    assert tokens.cut == (False, False)


def test_a_long_prompt_is_cut_before_its_end_and_said_to_be():
    exact, longer = "cat " * 22, "cat " * 23
    tokens = LEARNT([exact, longer])
    assert tokens.cut == (False, True)
    assert torch.equal(tokens.ids[0], tokens.ids[1])
    assert tokens.mask.all()
    assert tokens.ids[1, -1] == LEARNT.end


@pytest.mark.parametrize(
    ("one", "other"), [("A Cat", "a cat"), (" a\t\ncat ", "a cat"), ("e\u0301", "\u00e9")], ids=["case", "space", "nfc"]
)
def test_what_makes_no_difference(one, other):
    assert torch.equal(LEARNT([one]).ids, LEARNT([other]).ids)


def test_the_names_of_special_tokens_are_text_like_any_other():
    ids = LEARNT([f"a {END} {START} cat"]).ids[0].tolist()
    assert ids.count(LEARNT.end) == ids.count(LEARNT.start) == 1


def test_stray_bytes_are_refused_in_one_line():
    with pytest.raises(RequestError, match="no utf-8") as error:
        LEARNT(["fine", "caf\udce9"])
    assert "\n" not in str(error.value)


def test_the_vocabulary_keeps_to_its_size_and_learns_whole_words():
    assert 515 < LEARNT.vocab <= 640
    assert Tokenizer.train([], vocab=1, context=24).vocab == 515
    assert int(LEARNT(["apple"]).mask.sum()) == 3


def test_training_and_reloading_give_the_same_ids(tmp_path):
    again = Tokenizer.train(CAPTIONS, vocab=640, context=24)
    (tmp_path / "tokenizer.json").write_text(LEARNT.to_json(), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json", context=24)
    for other in (again, loaded):
        assert torch.equal(other([*PROMPTS, END]).ids, LEARNT([*PROMPTS, END]).ids)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read the tokenizer"),
        ("{}", "is not a tokenizer"),
        (json.dumps({**json.loads(LEARNT.to_json()), "added_tokens": []}).replace(START, "<s>"), f"lacks {START}"),
    ],
    ids=["missing", "foreign", "another kind"],
)
def test_a_file_that_is_no_tokenizer_is_one_line(text, words, tmp_path):
    path = tmp_path / "tokenizer.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=words) as error:
        Tokenizer.load(path, context=24)
    assert "\n" not in str(error.value)
