"""Pools: drawn once and whole, embedded by one CLIP, opened again as they were."""

import json

import numpy as np
import pytest
import torch
from conftest import Squares

from unclip.data import pool as pools
from unclip.data.pool import NULL_ROW, Embedded, Joined, Pool
from unclip.data.source import Sample
from unclip.errors import DataError
from unclip.images import from_pixels, resize
from unclip.weights.store import fingerprint


def build(out, samples=10, size=16, **more) -> Pool:
    return pools.build(Squares(), out, samples=samples, size=size, name="squares", **more)


def test_a_pool_holds_the_sources_first_samples_in_order(tmp_path, squares):
    seen = []
    made = build(tmp_path / "deep" / "pool", 60, progress=lambda done, total: seen.append((done, total)), threads=3)
    assert seen == [(i + 1, 60) for i in range(60)]
    for opened in (made, Pool(tmp_path / "deep" / "pool")):
        assert (len(opened), opened.size, opened.images.shape) == (60, 16, (60, 16, 16, 3))
        for position in (0, 7, 59):
            sample = squares.sample(position, 16)
            assert np.array_equal(opened.images[position], sample.image)
            assert opened.samples[position] == {"key": sample.key, "caption": sample.caption, "meta": sample.meta}
        assert opened.captions[3] == squares.sample(3, 16).caption


def test_rows_come_as_bytes_or_floats_at_any_side(tmp_path):
    made = build(tmp_path / "pool")
    rows = [3, 1, 3]
    assert np.array_equal(made.pixels(rows).numpy(), made.images[rows])
    made.pixels(rows).zero_()  # a copy: the file cannot be written through it
    assert made.images[3].any()
    floats = made.tensor(rows)
    assert floats.shape == (3, 3, 16, 16)
    assert torch.equal(floats, from_pixels(made.images[rows]))
    assert torch.equal(made.tensor(range(2), 8), resize(from_pixels(made.images[:2]), 8))


def test_a_pool_that_is_there_is_left_alone(tmp_path):
    build(tmp_path / "pool")
    with pytest.raises(DataError, match="exists already"):
        build(tmp_path / "pool", 5)
    assert len(Pool(tmp_path / "pool")) == 10


def test_a_source_that_fails_leaves_nothing_behind(tmp_path):
    class Broken(Squares):
        def sample(self, position: int, size: int) -> Sample:
            if position == 6:
                raise DataError("picture 6 is torn")
            return super().sample(position, size)

    with pytest.raises(DataError, match="picture 6 is torn"):
        pools.build(Broken(), tmp_path / "pool", samples=10, size=16, name="broken")
    assert list(tmp_path.iterdir()) == []


def test_joined_sources_follow_one_another_and_the_last_goes_on():
    class Numbered:
        def __init__(self, name):
            self.name = name

        def __len__(self):
            return 99

        def sample(self, position, size):
            return f"{self.name}{position}"

    joined = Joined([(Numbered("a"), 2), (Numbered("b"), 1), (Numbered("c"), 2)])
    assert len(joined) == 5
    assert [joined.sample(position, 8) for position in range(7)] == ["a0", "a1", "b0", "c0", "c1", "c2", "c3"]


@pytest.mark.parametrize("damage", ["cut", "gone", "lines", "prose", "header", "foreign"])
def test_a_torn_pool_is_one_line(tmp_path, damage):
    folder = tmp_path / "pool"
    build(folder)
    images, samples, header = folder / "images.npy", folder / "samples.jsonl", folder / "pool.json"
    if damage == "cut":
        images.write_bytes(images.read_bytes()[:-100])
    elif damage == "gone":
        images.unlink()
    elif damage == "lines":
        samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-1]))
    elif damage == "prose":
        samples.write_text("not json\n")
    elif damage == "header":
        header.unlink()
    else:
        header.write_text(json.dumps({"name": "a package"}))
    with pytest.raises(DataError, match=str(folder)) as error:
        Pool(folder)
    assert "\n" not in str(error.value)


def test_embedding_keeps_what_clip_says(pool, micro_clip, tokenizer):
    embedded = Embedded(pool)
    assert embedded.clip == fingerprint(micro_clip.state_dict())
    assert embedded.z.shape == (48, 32)
    torch.testing.assert_close(embedded.z, micro_clip.encode_image(pool.tensor(range(48))))
    captions = ["", *dict.fromkeys(pool.captions)]
    assert len(embedded.pooled) == len(captions)
    tokens = tokenizer(captions)
    text = micro_clip.encode_text(tokens.ids, tokens.mask)
    torch.testing.assert_close(embedded.pooled, text.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embedded.states.float(), text.states, atol=2e-3, rtol=2e-3)
    assert torch.equal(embedded.mask, tokens.mask)
    assert [captions[row] for row in embedded.caption] == pool.captions
    assert embedded.mask[NULL_ROW].sum() == 2  # [start] [end]


def test_text_of_rows_is_fp32_and_in_their_order(pool):
    embedded = Embedded(pool)
    text = embedded.text(torch.tensor([4, 0, 4]))
    assert text.states.dtype == torch.float32
    assert torch.equal(text.pooled, embedded.pooled[[4, 0, 4]])
    assert torch.equal(text.mask[1], embedded.mask[0])


def test_equal_and_empty_captions_share_a_row(tmp_path, micro_clip, tokenizer):
    class Sparse(Squares):
        def sample(self, position: int, size: int) -> Sample:
            sample = super().sample(position, size)
            return Sample(sample.key, sample.image, ["", "one", "two", "one"][position % 4])

    made = pools.build(Sparse(), tmp_path / "pool", samples=8, size=32, name="sparse")
    seen = []
    embedded = pools.embed(
        made, micro_clip, tokenizer, fingerprint="x", batch=3, progress=lambda done, total: seen.append((done, total))
    )
    assert embedded.caption.tolist() == [0, 1, 2, 1] * 2
    assert seen[-1] == (11, 11)
    assert seen == sorted(seen)


def test_what_another_clip_embedded_is_refused_until_it_is_embedded_again(tmp_path, micro_clip, tokenizer):
    made = build(tmp_path / "pool", size=32)
    with pytest.raises(DataError, match="is not an embedded pool: run `unclip data embed`"):
        Embedded(made)
    pools.embed(made, micro_clip, tokenizer, fingerprint="a" * 64)
    assert Embedded(made, clip="a" * 64).clip == "a" * 64
    with pytest.raises(DataError, match=r"was embedded by another CLIP \(aaaaaaaaaaaa, not bbbbbbbbbbbb\)") as error:
        Embedded(made, clip="b" * 64)
    assert "\n" not in str(error.value)
    pools.embed(made, micro_clip, tokenizer, fingerprint="b" * 64)
    assert len(Embedded(made, clip="b" * 64).z) == 10


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_torn_embedding_is_one_line(tmp_path, micro_clip, tokenizer, damage):
    made = build(tmp_path / "pool", size=32)
    pools.embed(made, micro_clip, tokenizer, fingerprint="a")
    path = tmp_path / "pool" / "embedded" / "states.npy"
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"torn.*run `unclip data embed` again") as error:
        Embedded(made)
    assert "\n" not in str(error.value)
