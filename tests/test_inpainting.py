"""Edits: what is outside of the hole stays to the byte, what was inside of it does not matter, frames cover all of it."""

import numpy as np
import pytest
import torch
import toy_karlo
from conftest import scrambled
from PIL import Image

import unclip
from unclip import pipeline
from unclip.errors import ConfigError, RequestError
from unclip.images import read_picture, read_settings, resize, rgb, save_png, square_crop, to_pixels, to_tensor
from unclip.inpainting import Sides, frames, inpaint, outpaint
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.request import Options
from unclip.weights import store

PROMPT = "a red square at the top left"


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def mask_of(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Black, and white inside of (left, top, right, bottom)."""
    mask = Image.new("L", (width, height))
    mask.paste(255, box)
    return mask


def outside(picture: Image.Image, mask: Image.Image) -> np.ndarray:
    return np.asarray(picture)[np.asarray(mask) < 128]


@pytest.fixture(scope="module")
def trained(micro_bundle, tmp_path_factory) -> unclip.UnCLIP:
    """The micro model with a decoder for inpainting."""
    folder = tmp_path_factory.mktemp("bundles") / "inpainting"
    manifest = store.read_manifest(micro_bundle)
    parts = {name: store.Part(entry.kind, *store.load_part(micro_bundle, name)) for name, entry in manifest.parts.items()}
    values = dict(parts["decoder"].config)
    values["model"] = values["model"] | {"inpaint": True, "unet": values["model"]["unet"] | {"in_channels": 7}}
    torch.manual_seed(3)
    decoder = scrambled(Decoder(DecoderConfig.parse(values["model"])), 3)
    parts["decoder"] = store.Part("decoder", values, decoder.state_dict())
    tokenizer = store.read_tokenizer(micro_bundle)
    store.save_bundle(folder, parts, name="fills", version="1", tokenizer_json=tokenizer, card="# fills", provenance={})
    return pipeline.load(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("karlo")
    toy_karlo.text_to_image(scratch).save_pretrained(scratch / "karlo")
    return pipeline.load(scratch / "karlo", device="cpu", precision="fp32")


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (50, 70), (300, 90)], ids=str)
@pytest.mark.parametrize("way", ["trained", "repaint"])
def test_outside_of_the_hole_a_picture_of_any_shape_stays(trained, way, size):
    picture, mask = noise(*size), mask_of(*size, (10, 12, 31, 28))
    made = inpaint(trained, picture, mask, PROMPT, n=2, seed=5, options=Options(steps=2, method=way))
    assert [image.size for image in made] == [size, size]
    for image in made:
        assert np.array_equal(outside(image, mask), outside(picture, mask))
        assert not np.array_equal(np.asarray(image), np.asarray(picture))
    assert made[0].tobytes() != made[1].tobytes()
    again = inpaint(trained, picture, mask, PROMPT, n=1, seed=6, options=Options(steps=2, method=way))
    assert again[0].tobytes() == made[1].tobytes()


@pytest.mark.parametrize("prompt", [PROMPT, None], ids=["prompt", "none"])
@pytest.mark.parametrize("way", ["trained", "repaint"])
def test_what_was_in_the_hole_does_not_matter(trained, way, prompt):
    picture, mask = noise(48, 48), mask_of(48, 48, (7, 9, 30, 40))
    other = picture.copy()
    other.paste((255, 0, 255), (7, 9, 30, 40))
    how = Options(steps=2, method=way)
    made = [inpaint(trained, one, mask, prompt, n=1, options=how) for one in (picture, other)]
    assert made[0][0].tobytes() == made[1][0].tobytes()


def test_the_surroundings_and_the_prompt_do_matter(trained):
    mask = mask_of(32, 32, (8, 8, 24, 24))
    one = inpaint(trained, noise(32, 32), mask, PROMPT, n=1)[0]
    assert one.tobytes() != inpaint(trained, noise(32, 32), mask, "a blue disc", n=1)[0].tobytes()
    other = inpaint(trained, noise(32, 32, seed=1), mask, PROMPT, n=1)[0]
    inside = np.s_[8:24, 8:24]
    assert not np.array_equal(np.asarray(one)[inside], np.asarray(other)[inside])


def test_white_and_transparent_say_the_same(trained):
    picture, white = noise(32, 32), mask_of(32, 32, (4, 4, 20, 28))
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (4, 4, 20, 28))
    own = picture.convert("RGBA")
    own.putalpha(white.point(lambda value: 255 - value))
    opaque = white.convert("RGBA")  # as editors save it: an alpha channel that says nothing
    made = [inpaint(trained, picture, mask, PROMPT, n=1)[0].tobytes() for mask in (white, clear, opaque)]
    made.append(inpaint(trained, own, None, PROMPT, n=1)[0].tobytes())
    assert len(set(made)) == 1


def test_a_size_makes_the_middle_square_at_that_side(trained):
    picture, mask = noise(200, 100), mask_of(200, 100, (90, 20, 120, 60))
    made = inpaint(trained, picture, mask, PROMPT, n=1, size=64)[0]
    expected = to_pixels(resize(to_tensor([square_crop(picture)]), 64))[0]
    untouched = np.ones((64, 64), bool)
    untouched[20 * 64 // 100 - 1 : 60 * 64 // 100 + 2, 40 * 64 // 100 - 1 : 70 * 64 // 100 + 2] = False
    assert np.array_equal(np.asarray(made)[untouched], expected[untouched])


@pytest.mark.parametrize("size", [33, 100, 400])
def test_any_size_is_made_and_takes_in_all_that_the_hole_touches(trained, size):
    picture, mask = noise(200, 200), mask_of(200, 200, (100, 0, 101, 200))  # a line of one pixel
    (made,) = inpaint(trained, picture, mask, PROMPT, n=1, size=size, options=Options(steps=2))
    expected = to_pixels(resize(to_tensor([picture]), size))[0]
    column = np.s_[:, 100 * size // 200 : -(-101 * size // 200)]
    changed = (np.asarray(made) != expected).any(2)
    assert changed[column].mean() > 0.9
    changed[column] = False
    assert not changed.any()
    assert made.info["unclip"]["size"] == size


def test_an_upright_mask_fits_a_picture_that_says_how_it_was_held(trained, tmp_path):
    picture = noise(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by a quarter
    picture.save(tmp_path / "held.png", exif=exif)
    held = (
        unclip.images.read_picture(tmp_path / "held.png") if hasattr(unclip, "images") else Image.open(tmp_path / "held.png")
    )
    mask = mask_of(60, 40, (5, 5, 20, 20))
    made = inpaint(trained, held, mask, PROMPT, n=1)[0]
    assert np.array_equal(outside(made, mask), outside(rgb(held), mask))


@pytest.mark.parametrize("sides", [Sides(right=20), Sides(left=50, top=13), Sides(9, 8, 7, 6)], ids=str)
def test_a_grown_picture_keeps_the_picture_where_it_was(trained, sides):
    picture = noise(40, 32)
    made = outpaint(trained, picture, sides, PROMPT, n=2, seed=1, options=Options(steps=2))
    for image in made:
        assert image.size == (40 + sides.left + sides.right, 32 + sides.top + sides.bottom)
        box = (sides.left, sides.top, sides.left + 40, sides.top + 32)
        assert np.array_equal(np.asarray(image.crop(box)), np.asarray(picture))
        filled = np.asarray(image).reshape(-1, 3)
        assert (filled == 0).all(1).mean() < 0.05  # no black left from before
    assert made[0].tobytes() != made[1].tobytes()


@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("growth", [(0, 0, 0, 100), (70, 40, 33, 90), (0, 200, 0, 0)], ids=str)
def test_frames_cover_the_hole_and_lie_on_what_is_there(growth, overlap):
    top, bottom, left, right = growth
    hole = np.pad(np.zeros((64, 80), bool), ((top, bottom), (left, right)), constant_values=True)
    there = ~hole
    for y, x in frames(hole, 64, overlap):
        frame = np.s_[y : y + 64, x : x + 64]
        assert there[frame].shape == (64, 64)
        assert not there[frame].all()
        assert there[frame].mean() >= min(overlap, 0.5) - 0.02
        there[frame] = True
    assert there.all()


def test_a_hole_that_fits_is_one_frame_around_its_middle():
    hole = np.zeros((100, 300), bool)
    hole[10:30, 150:190] = True
    assert frames(hole, 100, 0.5) == [(0, 120)]
    hole[10:30, 0:190] = True
    assert len(frames(hole, 100, 0.5)) > 1


@pytest.mark.parametrize("way", ["inpaint", "outpaint"])
def test_any_decoder_can_be_asked(karlo, way):
    """A Karlo was not trained to inpaint, and knows nothing of ours."""
    picture = noise(64, 64)
    if way == "inpaint":
        mask = mask_of(64, 64, (20, 20, 50, 44))
        made = inpaint(karlo, picture, mask, "a red cap", n=1, options=Options(steps=3, prior_steps=2))[0]
        assert np.array_equal(outside(made, mask), outside(picture, mask))
    else:
        made = outpaint(karlo, picture, Sides(right=24), "a red cap", options=Options(steps=3, prior_steps=2))[0]
        assert np.array_equal(np.asarray(made)[:, :64], np.asarray(picture))
    assert made.info["unclip"]["method"] == "repaint"


def test_pictures_say_what_makes_them_again(trained, tmp_path):
    save_png(noise(40, 40), tmp_path / "in.png", {"prompt": "noise"})
    save_png(mask_of(40, 40, (3, 3, 20, 20)), tmp_path / "mask.png")
    picture, mask = read_picture(tmp_path / "in.png"), read_picture(tmp_path / "mask.png")
    (made,) = inpaint(trained, picture, mask, PROMPT, n=1, seed=4, options=Options(steps=2))
    save_png(made, tmp_path / "out.png", made.info["unclip"])
    told = read_settings(tmp_path / "out.png")
    assert {key: told[key] for key in ("task", "prompt", "seed", "method", "steps", "model")} == {
        "task": "inpaint", "prompt": PROMPT, "seed": 4, "method": "trained", "steps": 2, "model": "fills",
    }  # fmt: skip
    assert [parent["file"] for parent in told["parents"]] == ["in.png", "mask.png"]
    assert told["parents"][0]["settings"] == {"prompt": "noise"}
    (grown,) = outpaint(trained, picture, Sides(left=8), PROMPT, options=Options(steps=2))
    assert (grown.info["unclip"]["task"], grown.info["unclip"]["left"]) == ("outpaint", 8)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            {"repaint": mask_of(32, 40, (1, 1, 9, 9))},
            "the mask is 32 x 40 px, but the picture 32 x 32 px: expected the same",
        ),
        ({"repaint": Image.new("L", (32, 32))}, "the mask repaints nothing"),
        ({"repaint": Image.new("L", (32, 32), 255)}, "the mask repaints everything"),
        ({"repaint": None}, "no mask, and the picture has no transparency"),
        ({"image": noise(32, 32).convert("RGBA"), "repaint": None}, "the mask repaints nothing"),
        ({"image": noise(1, 1), "repaint": Image.new("L", (1, 1), 255)}, "1 x 1 px: expected 8 to"),
        ({"n": 0}, "n = 0: expected at least 1"),
        ({"size": 4}, "the result is 4 x 4 px: expected 8 to"),
    ],
)
def test_what_makes_no_sense_is_one_line(trained, ask, words):
    given = {"image": noise(32, 32), "repaint": mask_of(32, 32, (4, 4, 9, 9)), "prompt": PROMPT} | ask
    with pytest.raises(RequestError, match=words) as error:
        inpaint(trained, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sides", "overlap", "words"),
    [
        (Sides(), 0.5, "left 0, right 0, top 0, bottom 0: expected pixels to grow by"),
        (Sides(left=-3, right=9), 0.5, "left -3, right 9, .*: expected pixels to grow by"),
        (Sides(left=5), 1.0, r"overlap = 1: expected more than 0 and at most 0\.9"),
        (Sides(left=5), float("nan"), "overlap = nan"),
        (Sides(right=20_000), 0.5, "the grown picture is 20032 x 32 px: expected 8 to"),
    ],
)
def test_growth_that_makes_no_sense_is_one_line(trained, sides, overlap, words):
    with pytest.raises(RequestError, match=words):
        outpaint(trained, noise(32, 32), sides, PROMPT, overlap=overlap)


def test_a_decoder_that_was_not_trained_says_so(painter):
    trained = Options(method="trained")
    for ask in (
        lambda: inpaint(painter, noise(32, 32), mask_of(32, 32, (4, 4, 9, 9)), PROMPT, options=trained),
        lambda: outpaint(painter, noise(32, 32), Sides(left=8), PROMPT, options=trained),
    ):
        with pytest.raises(RequestError, match="the decoder of tiny was not trained to inpaint: take the method repaint"):
            ask()
    with pytest.raises(ConfigError, match="options: method = 'magic': input should be 'trained' or 'repaint'"):
        Options.parse({"method": "magic"}, where="options")
