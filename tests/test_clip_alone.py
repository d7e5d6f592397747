"""A CLIP by itself: any that can be opened, raw embeddings that depend on nothing beside them, one fingerprint."""

import pytest
import torch
from PIL import Image
from toy_clip import MICRO, save_clip
from transformers import CLIPImageProcessor

from unclip.clip import Clip, load_clip, look, unit
from unclip.errors import WeightsError
from unclip.images import to_tensor
from unclip.models.clip import CLIP
from unclip.tokenizer import Tokenizer
from unclip.weights.store import fingerprint


def striped(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    image.paste((200, 40, 30), (0, 0, width // 3, height))
    image.paste((20, 90, 160), (width // 2, height // 4, width, height))
    return image


def test_pictures_of_any_size_and_captions_become_raw_rows_in_fp32(tmp_path):
    clip = load_clip(save_clip(tmp_path / "micro", 1))
    z = clip.images([striped(40, 90), striped(64, 64), striped(32, 32)])
    assert (z.shape, z.dtype) == ((3, clip.width), torch.float32)
    assert (z.norm(dim=1) - 1).abs().min() > 0.05
    assert clip.texts(["a bo", "a ka"]).shape == (2, clip.width)
    assert clip.images([]).shape == clip.texts([]).shape == (0, clip.width)
    torch.testing.assert_close(unit(z).norm(dim=1), torch.ones(3))


def test_rows_do_not_depend_on_their_company(tmp_path):
    clip = load_clip(save_clip(tmp_path / "micro", 1), precision="fp32")
    pictures = [striped(32 + i % 7, 40) for i in range(140)]  # more than a batch
    torch.testing.assert_close(clip.images(pictures)[-1], clip.images(pictures[-1:])[0], atol=1e-5, rtol=1e-4)


def test_one_fingerprint_whatever_the_precision_and_another_for_other_weights(tmp_path):
    folder = save_clip(tmp_path / "micro", 1)
    one, same = load_clip(folder), load_clip(folder, precision="fp32")
    assert one.fingerprint == same.fingerprint != load_clip(save_clip(tmp_path / "other", 2)).fingerprint


def test_a_fingerprint_is_of_names_and_weights():
    state = {"a": torch.zeros(2, 3), "b": torch.ones(())}
    changes = [{"a": torch.zeros(2, 3) + 1}, {"c": torch.ones(())}]
    assert fingerprint({name: tensor.bfloat16() for name, tensor in reversed(state.items())}) == fingerprint(state)
    assert len({fingerprint(state | change) for change in changes} | {fingerprint(state)}) == 3


@pytest.mark.parametrize("size", [(64, 64), (200, 120), (90, 201), (31, 33)])
def test_it_is_shown_what_published_clips_were_shown(size):
    """To a step of brightness, that is: theirs is cut after it is resized, and on whole pixels."""
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, do_normalize=False)
    theirs = processor(striped(*size), return_tensors="pt")["pixel_values"]
    ours = (to_tensor([look(striped(*size), 32)]) + 1) / 2
    assert (ours - theirs).abs().mean() < 0.03
    if size[0] == size[1]:
        assert (ours - theirs).abs().max() < 1e-6


def test_a_clip_that_only_reads_is_refused():
    deaf = CLIP(MICRO.model_copy(update={"vision": None}))
    with pytest.raises(WeightsError, match="the prior's reads captions only"):
        Clip(deaf, Tokenizer.train(["a bo"], vocab=320, context=16), name="the prior's")


def test_a_file_that_is_no_clip_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError):
        load_clip(tmp_path / "x.safetensors")
