"""Products of bytes: exact where they can be, near where they cannot, and the same whatever a picture's company."""

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from toy_clip import save_clip
from toy_search import fill

from unclip import int8
from unclip.cli import main
from unclip.clip import INT8_BATCH, Clip, load_clip, unit
from unclip.errors import ConfigError
from unclip.models.clip import CLIP, CLIPConfig, TextConfig, VisionConfig

needed = pytest.mark.skipif(not int8.available(), reason="this processor does not multiply bytes")


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def clip_of(act: str, *, layers: int = 4) -> CLIP:
    vision = VisionConfig(image_size=64, patch=16, width=64, layers=layers, heads=2)
    text = TextConfig(context=16, vocab=320, width=32, layers=1, heads=1)
    torch.manual_seed(5)
    return CLIP(CLIPConfig(embed=48, vision=vision, text=text, act=act)).eval()  # pyright: ignore[reportArgumentType]


def test_rounding_is_by_each_row_and_no_further_off_than_half_a_step():
    x = drawn(0, 7, 50) * torch.logspace(-6, 6, 7)[:, None]
    x[3] = 0
    whole, steps = int8.rounded_(x.clone())
    back = (whole.float() - int8.ZERO) * steps
    assert ((back - x).abs() <= 0.5001 * steps).all()
    assert whole.amin() == 1
    assert (whole[3] == int8.ZERO).all()


@needed
def test_whole_numbers_come_out_exactly():
    q, codes = (
        torch.randint(-int8.MOST, int8.MOST + 1, (n, 96), generator=torch.Generator().manual_seed(n)) for n in (5, 9)
    )
    steps = torch.logspace(-2, 2, 9)
    made = int8.multiply((q + int8.ZERO).to(torch.uint8), int8.pack(codes.to(torch.int8)), steps)
    torch.testing.assert_close(made, (q @ codes.T).float() * steps)


@needed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_layer_in_bytes_is_near_the_one_that_it_was(dtype):
    linear = nn.Linear(96, 40)
    x = drawn(1, 3, 5, 96)
    expected = 3 * linear(0.5 * x).detach()
    made = int8.Int8Linear(linear.weight, linear.bias, before=0.5, after=3.0, dtype=dtype)(x)
    assert (made.dtype, made.shape) == (dtype, (3, 5, 40))
    assert apart(made.float(), expected) < 0.02


@needed
def test_patches_in_bytes_are_near_the_convolution():
    conv = nn.Conv2d(3, 24, 8, stride=8, bias=False).to(memory_format=torch.channels_last)
    x = drawn(2, 2, 3, 16, 40)
    assert apart(int8.Int8Patches(conv)(x), conv(x).detach()) < 0.02


@needed
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_in_bytes_sees_what_it_saw(act, dtype):
    network, x = clip_of(act), drawn(3, 6, 3, 64, 64).clamp(-1, 1)
    assert network.vision is not None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        before = network.encode_image(x).float()
        if dtype == torch.bfloat16:
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.to(torch.bfloat16)
        int8.to_int8(network.vision)
        after = network.encode_image(x).float()
    assert F.cosine_similarity(before, after).min() > 0.998
    assert F.cosine_similarity(after[:1], after[1:]).max() < 0.99


@needed
def test_a_clip_in_bytes_is_the_same_clip_and_its_rows_have_no_company(tmp_path):
    folder = save_clip(tmp_path / "micro", 1)
    plain, clip = load_clip(folder, precision="fp32"), load_clip(folder, precision="fp32").use_int8()
    assert (clip.use_int8().int8, plain.int8) == (True, False)  # asked twice, it is done once
    assert clip.fingerprint == plain.fingerprint
    x = drawn(4, INT8_BATCH + 3, 3, 32, 32).clamp(-1, 1)
    z = clip.pixels(x)
    torch.testing.assert_close(z[-1:], clip.pixels(x[-1:]), atol=1e-5, rtol=1e-4)
    assert F.cosine_similarity(z, plain.pixels(x)).min() > 0.998
    assert torch.equal(clip.texts(["a cat"]), plain.texts(["a cat"]))


@needed
def test_an_index_says_that_it_was_made_in_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_clip(tmp_path / "clip", 1)
    fill(tmp_path / "p", range(5))
    rows = {}
    for name, more in (("bytes", ["--int8"]), ("plain", [])):
        assert main(["search", "index", "p", "-o", name, "--clip", "clip", "--device", "cpu", *more]) == 0
        manifest = json.loads((tmp_path / name / "unclip-index.json").read_text(encoding="utf-8"))
        assert manifest["options"] == {"every": 0.0, **({"int8": True} if more else {})}
        rows[name] = manifest["rows"]
    assert rows == {"bytes": 5, "plain": 5}
    fill(tmp_path / "p", range(6))
    for more, options in (([], {"every": 0.0, "int8": True}), (["--no-int8"], {"every": 0.0})):
        assert main(["search", "index", "-o", "bytes", "--clip", "clip", "--device", "cpu", *more]) == 0
        manifest = json.loads((tmp_path / "bytes" / "unclip-index.json").read_text(encoding="utf-8"))
        assert (manifest["options"], manifest["rows"]) == (options, 6)
    (tmp_path / "bytes" / "unclip-index.json").write_text("torn", encoding="utf-8")
    assert main(["search", "index", "p", "-o", "bytes", "--clip", "clip", "--device", "cpu"]) == 2
    assert main(["search", "index", "p", "-o", "bytes", "--clip", "clip", "--device", "cpu", "--again"]) == 0


def test_where_it_cannot_be_had_it_is_refused_in_a_line(tmp_path, monkeypatch):
    clip = load_clip(save_clip(tmp_path / "micro", 1))
    with monkeypatch.context() as patched:
        patched.setattr(int8, "available", lambda: False)
        with pytest.raises(ConfigError, match="needs a processor that multiplies bytes"):
            clip.use_int8()
    assert not clip.int8
    away = Clip(clip_of("gelu").to("meta"), clip.tokenizer, name="away", device="meta")
    monkeypatch.setattr(Clip, "fingerprint", "none")
    with pytest.raises(ConfigError, match="int8 is for CPUs, but the network is on meta"):
        away.use_int8()


@needed
def test_what_pictures_say_to_each_other_survives(tmp_path):
    """Nearest neighbours among soft pictures, by z in bytes and in fp32."""
    folder = save_clip(tmp_path / "micro", 1)
    coarse = torch.randint(0, 256, (60, 4, 4, 3), generator=torch.Generator().manual_seed(6), dtype=torch.uint8).numpy()
    pictures = [Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC) for one in coarse]
    nearest = []
    for clip in (load_clip(folder, precision="fp32"), load_clip(folder, precision="fp32").use_int8()):
        z = unit(clip.images(pictures))
        nearest.append((z @ z.T).fill_diagonal_(-1).argmax(dim=1))
    assert (nearest[0] == nearest[1]).float().mean() > 0.8
