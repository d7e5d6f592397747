"""The best of many: the order, what is kept, at which size who is painted."""

import pytest
import torch
from PIL import Image
from toy_clip import save_clip

from unclip.clip import Clip, load_clip, unit
from unclip.errors import RequestError
from unclip.rerank import best_of, draft_size, rerank


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return load_clip(save_clip(tmp_path_factory.mktemp("clip") / "micro", 5), precision="fp32")


def painted(seed: int, size: int = 32) -> Image.Image:
    """A picture that its seed alone decides."""
    noise = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(seed))
    image = Image.fromarray((noise * 255).byte().numpy()).resize((size, size), Image.Resampling.NEAREST)
    image.info["seed"] = seed
    return image


def test_the_nearest_come_first_and_know_their_place(clip):
    images = [painted(seed) for seed in range(9)]
    ranked = rerank(clip, images, "a red disc")
    scores = torch.cosine_similarity(clip.images(images), clip.texts(["a red disc"]))
    assert [one.place for one in ranked] == scores.argsort(descending=True).tolist()
    assert [one.score for one in ranked] == pytest.approx(scores.sort(descending=True).values.tolist(), abs=1e-6)
    assert all(one.image is images[one.place] for one in ranked)
    assert rerank(clip, images, "a red disc", keep=2) == ranked[:2]


def test_equals_stay_in_their_order(clip):
    assert [one.place for one in rerank(clip, [painted(1)] * 4, "a cat on a mat")] == [0, 1, 2, 3]


@pytest.mark.parametrize("keep", [0, 4])
def test_what_cannot_be_kept_is_refused(clip, keep):
    with pytest.raises(RequestError, match=f"keep = {keep} of 3 pictures"):
        rerank(clip, [painted(1)] * 3, "a", keep=keep)


def test_candidates_are_painted_small_and_the_chosen_again(clip):
    asked, told = [], []

    def paint(prompts, seeds, size):
        asked.append((len(prompts), tuple(seeds), size))
        return [painted(seed, size) for seed in seeds]

    best = best_of(paint, clip, "a blue square", among=20, n=3, seed=100, sizes=(32, 64), told=told.append)
    assert asked == [(16, tuple(range(100, 116)), 32), (4, tuple(range(116, 120)), 32), (3, asked[-1][1], 64)]
    assert told == [16, 20]
    assert [one.image.info["seed"] for one in best] == [100 + one.place for one in best] == list(asked[-1][1])
    assert {one.image.size for one in best} == {(64, 64)}
    scores = unit(clip.images([painted(seed) for seed in range(100, 120)])) @ unit(clip.texts(["a blue square"]))[0]
    assert [one.score for one in best] == pytest.approx(scores.sort(descending=True).values[:3].tolist(), abs=1e-6)


def test_at_one_size_nothing_is_painted_twice(clip):
    calls = []

    def paint(prompts, seeds, size):
        calls.append(size)
        return [painted(seed, size) for seed in seeds]

    assert len(best_of(paint, clip, "two green stars", among=4, n=2, sizes=(32, 32))) == 2
    assert calls == [32]


def test_drafts_are_as_small_as_the_eye_allows():
    assert [draft_size((64, 256, 1024), side) for side in (32, 64, 65, 2000)] == [64, 64, 256, 1024]
