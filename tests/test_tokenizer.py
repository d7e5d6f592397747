"""The tokenizer: nothing is lost whatever is typed, and CLIP's splitting as transformers has it."""

import gzip
import json
from pathlib import Path

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


PUBLISHED = [
    *PROMPTS,
    "A photo of a corgi's head, depicted as an explosion of a nebula!!!",
    "they're 1024x768, aren't they? I'D SAY SO",
    'a #1 @home 50% off $3.99 (cheap) -- "quoted" … ‘curly’ “marks”',
    "naïve café, Ελληνικά, हिन्दी, 한국어, ไทย, Ǆ İstanbul ẞ",
    "👩🏽‍🚀🏳️‍🌈 \u200b zero\u00a0width\ufeff",
    "x\0y\x7f",
    "<html> &amp; </w> <|pad|>",
    "cat " * 200,
    "pizza," * 200,
]
MERGES = json.loads(LEARNT.to_json())["model"]["merges"]


def entries() -> dict[str, int]:
    """What CLIP's layout makes of the learnt merges."""
    letters = sorted(_byte_letters().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, MERGES), START, END]
    return {token: index for index, token in enumerate(tokens)}


def folder_of(folder: Path, *, vocabulary: dict[str, int] | None = None, **configs: dict) -> Path:
    """A Hugging Face folder with the layout of CLIPTokenizer's."""
    (folder / "vocab.json").write_text(json.dumps(vocabulary or entries()), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, MERGES), ""]), encoding="utf-8")
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def openai_file(path: Path) -> Path:
    text = "\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *map(" ".join, MERGES), ""])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def same_as_transformers(folder: Path, prompts: list[str], *, context: int = 77) -> Tokenizer:
    theirs = CLIPTokenizer.from_pretrained(folder)(prompts, padding="max_length", truncation=True, max_length=context)
    tokenizer = Tokenizer.from_hugging_face(folder, context=context)
    tokens = tokenizer(prompts)
    for row, prompt in enumerate(prompts):
        assert tokens.ids[row].tolist() == theirs["input_ids"][row], prompt
        assert tokens.mask[row].tolist() == [bool(kept) for kept in theirs["attention_mask"][row]], prompt
    return tokenizer


def test_a_hugging_face_folder_gives_transformers_ids(tmp_path):
    folder = folder_of(tmp_path)
    tokenizer = same_as_transformers(folder, PUBLISHED)
    assert tokenizer.pad == tokenizer.end == 512 + len(MERGES) + 1
    assert tokenizer(["a"]).ids[0, :3].tolist() == [tokenizer.start, 320, tokenizer.end]  # 320 is "a</w>" in CLIP itself
    assert tokenizer(["a cat", "cat " * 75, "cat " * 76]).cut == (False, False, True)


@pytest.mark.parametrize(
    ("configs", "pad"),
    [
        ({"tokenizer_config": {"pad_token": "!"}}, "!"),
        ({"special_tokens_map": {"pad_token": "!"}}, "!"),
        ({"tokenizer_config": {"pad_token": END}, "special_tokens_map": {"pad_token": "!"}}, "!"),
        ({"special_tokens_map": {"pad_token": {"content": "!", "lstrip": False, "rstrip": False, "normalized": True}}}, "!"),
        (
            {"tokenizer_config": {"pad_token": END, "added_tokens_decoder": {}}, "special_tokens_map": {"pad_token": "!"}},
            END,
        ),
    ],
    ids=["config", "map", "both", "as an object", "newer config"],
)
def test_the_pad_token_is_the_folders(configs, pad, tmp_path):
    prompts = [prompt for prompt in PUBLISHED if "!" not in prompt]
    tokenizer = same_as_transformers(folder_of(tmp_path, **configs), prompts)
    assert tokenizer.pad == entries()[pad]


def test_a_tokenizer_json_is_read_as_its_parts_are(tmp_path):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    parts.mkdir()
    CLIPTokenizer.from_pretrained(folder_of(parts)).save_pretrained(whole)
    assert (whole / "tokenizer.json").is_file()
    assert not (whole / "vocab.json").is_file()
    tokenizer = same_as_transformers(whole, PUBLISHED)
    assert torch.equal(tokenizer(PUBLISHED).ids, Tokenizer.from_hugging_face(parts, context=77)(PUBLISHED).ids)
    older = json.loads((whole / "tokenizer.json").read_text(encoding="utf-8"))
    older["model"]["merges"] = [" ".join(merge) for merge in older["model"]["merges"]]
    (whole / "tokenizer.json").write_text(json.dumps(older), encoding="utf-8")
    same_as_transformers(whole, PUBLISHED)


def test_letters_that_a_vocabulary_lacks_are_its_end(tmp_path):
    kept = [token for token in entries() if len(token.removesuffix("</w>")) > 1 or token.isascii()]
    tokenizer = same_as_transformers(folder_of(tmp_path, vocabulary={token: i for i, token in enumerate(kept)}), PUBLISHED)
    assert (tokenizer(["日本"]).ids[0, 1:4] == tokenizer.end).all()


@pytest.mark.parametrize("pad", ["!", END])
def test_special_tokens_in_a_prompt_are_text_in_a_published_vocabulary_too(pad, tmp_path):
    tokenizer = Tokenizer.from_hugging_face(folder_of(tmp_path, tokenizer_config={"pad_token": pad}), context=77)
    tokens = tokenizer([f"a {END} {START} cat!"])
    kept = tokens.ids[0][tokens.mask[0]].tolist()
    assert kept.count(tokenizer.end) == kept.count(tokenizer.start) == 1
    assert kept[-2] == entries()["!</w>"]  # and not entries()["!"], the pad token


@pytest.mark.parametrize("name", ["bpe_simple_vocab_16e6.txt", "bpe_simple_vocab_16e6.txt.gz"])
def test_openais_file_gives_the_same_ids_padded_with_0(name, tmp_path):
    tokenizer = Tokenizer.from_openai(openai_file(tmp_path / name), context=77)
    theirs = Tokenizer.from_hugging_face(folder_of(tmp_path), context=77)(PUBLISHED)
    ours = tokenizer(PUBLISHED)
    assert torch.equal(ours.ids, theirs.ids.where(theirs.mask, 0))
    assert torch.equal(ours.mask, theirs.mask)
    assert (tokenizer.vocab, tokenizer.pad) == (len(entries()), 0)


def test_only_the_lines_that_clip_takes_are_merges(tmp_path):
    letters = sorted(_byte_letters().values())
    pairs = [f"{left} {right}" for left in letters for right in letters]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["#version: 0.2", *pairs]), encoding="utf-8")
    tokenizer = Tokenizer.from_openai(path, context=8)
    assert (tokenizer.vocab, tokenizer.start, tokenizer.end) == (49408, 49406, 49407)


def test_a_published_tokenizer_is_the_same_when_read_again(tmp_path):
    made = [Tokenizer.from_openai(openai_file(tmp_path / "vocab.txt"), context=30)]
    for pad in ("!", "a</w>", END):
        made.append(Tokenizer.from_hugging_face(folder_of(tmp_path, tokenizer_config={"pad_token": pad}), context=30))
    for tokenizer in made:
        again = Tokenizer.from_json(tokenizer.to_json(), context=30)
        assert again.pad == tokenizer.pad
        assert torch.equal(again(PUBLISHED).ids, tokenizer(PUBLISHED).ids)
        assert again.to_json() == tokenizer.to_json()
    assert [tokenizer.pad for tokenizer in made] == [0, 0, 320, entries()[END]]
    assert json.loads(LEARNT.to_json())["padding"] is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no vocab.json"),
        ({"vocab.json": "{}"}, "has no merges.txt"),
        ({"vocab.json": "[]", "merges.txt": ""}, "are not a vocabulary"),
        ({"vocab.json": "{}", "merges.txt": "a b c"}, "are not a vocabulary"),
        ({"vocab.json": json.dumps({END: 0, START: 1}), "merges.txt": "a b"}, "do not fit"),
        ({"vocab.json": json.dumps({END: 0}), "merges.txt": ""}, "lacks"),
        ({"vocab.json": json.dumps({END: 0, START: 1}), "merges.txt": "", "tokenizer_config.json": "["}, "cannot read"),
        ({"vocab.json": "{}", "merges.txt": "", "tokenizer_config.json": "[]"}, "expected an object"),
        ({"vocab.json": "{}", "merges.txt": "", "tokenizer_config.json": '{"pad_token": "?"}'}, "pads with '.'"),
        ({"vocab.json": "{}", "merges.txt": "", "tokenizer_config.json": '{"pad_token": [1]}'}, "pads with"),
        ({"tokenizer.json": "{}"}, "not a tokenizer of CLIP's kind"),
        ({"tokenizer.json": "no"}, "cannot read"),
        ({"tokenizer.json": json.dumps({"model": {"vocab": {}, "merges": []}})}, "not a tokenizer of CLIP's kind"),
        (
            {"tokenizer.json": json.dumps({"model": {"vocab": {}, "merges": ["a"], "end_of_word_suffix": "</w>"}})},
            "CLIP's kind",
        ),
    ],
)
def test_a_folder_without_a_tokenizer_is_one_line(files, words, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=words) as error:
        Tokenizer.from_hugging_face(tmp_path, context=24)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the vocabulary"),
        (b"", "not OpenAI's list of merges"),
        (b"<html>\na b\n", "not OpenAI's list of merges"),
        (b"#version: 0.2\na b c\n", "not OpenAI's list of merges"),
        (b"#version: 0.2\nab c\n", "do not fit its vocabulary"),
        (b"#version: 0.2\n\xff \xfe\n", "cannot read the vocabulary"),
        (gzip.compress(b"#version: 0.2\na b\n", mtime=0)[:-9], "cannot read the vocabulary"),
        (b"\x1f\x8b not gzip", "cannot read the vocabulary"),
    ],
)
def test_a_file_that_is_no_list_of_merges_is_one_line(content, words, tmp_path):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as error:
        Tokenizer.from_openai(path, context=24)
    assert "\n" not in str(error.value)
