"""Pixels survive, one resize is Pillow's, sheets keep captions off the pictures, PNGs say how they were made."""

import errno

import numpy as np
import pytest
import torch
from PIL import Image

from unclip import images
from unclip.errors import RequestError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_byte_survives_the_round_trip_exactly():
    pixels = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    assert np.array_equal(images.to_pixels(images.from_pixels(pixels)), pixels)


def test_black_and_white_are_the_ends_and_beyond_is_clipped():
    x = images.from_pixels(np.array([[[0, 255, 0]]], dtype=np.uint8))
    assert x.flatten().tolist() == [-1.0, 1.0, -1.0]
    assert images.to_pixels(3 * x).flatten().tolist() == [0, 255, 0]


def test_values_go_to_the_nearest_byte():
    x = torch.tensor([99.4, 99.6, 100.4]).reshape(3, 1, 1) / 127.5 - 1
    assert images.to_pixels(x).flatten().tolist() == [99, 100, 100]


def test_batches_keep_order_and_orientation():
    batch = [Image.fromarray(noise(5, 7, seed)) for seed in range(3)]
    x = images.to_tensor(batch)
    assert x.shape == (3, 3, 5, 7)
    assert x.dtype == torch.float32
    assert [image.tobytes() for image in images.to_images(x)] == [image.tobytes() for image in batch]


def test_transparency_is_laid_over_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert [images.rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_sixteen_bit_grey_and_palette_and_orientation_are_read_as_they_look():
    grey = Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16))
    assert np.asarray(images.rgb(grey))[0, :, 0].tolist() == [0, 128, 255]
    red = Image.new("RGB", (2, 1), (255, 0, 0)).convert("P")
    assert images.rgb(red).getpixel((0, 0)) == (255, 0, 0)
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[0x0112] = 6
    assert images.rgb(turned).size == (2, 4)


@pytest.mark.parametrize("size", [16, 100])
def test_resize_is_pillows_bicubic(size):
    image = Image.fromarray(64 + noise(64, 64) // 2)  # away from the ends: Pillow clips to bytes between the two directions
    ours = images.to_pixels(images.resize(images.to_tensor([image]), size))[0].astype(int)
    theirs = np.asarray(images.resize_image(image, size)).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - theirs).mean() < 0.3


def test_resize_keeps_dtype_and_range():
    x = torch.sign(images.from_pixels(noise(8, 8))[None]).bfloat16()
    y = images.resize(x, (24, 16))
    assert y.shape == (1, 3, 24, 16)
    assert y.dtype == torch.bfloat16
    assert y.abs().max() <= 1


@pytest.mark.parametrize(("side", "size"), [(90, 32), (60, 64), (8, 50)])
def test_shrinking_bytes_is_pillows_bicubic_within_one_step(side, size):
    soft = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = Image.fromarray(soft).resize((side, side), Image.Resampling.BICUBIC)
    made = images.shrink(image, size)
    assert (made.shape, made.dtype, made.flags.c_contiguous) == ((size, size, 3), np.uint8, True)
    assert abs(made - np.asarray(images.resize_image(image, size)).astype(int)).max() <= 1
    assert (images.shrink(image, side) == np.asarray(image)).all()


def test_square_crop_takes_the_middle():
    pixels = noise(4, 10)
    assert np.array_equal(np.asarray(images.square_crop(Image.fromarray(pixels))), pixels[:, 3:7])


def test_a_grid_shows_each_picture_untouched_and_captions_below():
    batch = [Image.fromarray(noise(48, 48, seed)) for seed in range(5)]
    plain = images.grid(batch, columns=3)
    sheet = images.grid(batch, columns=3, captions=["a cat", "b", "", "a very long caption about many things " * 4, "e"])
    assert plain.size[0] == sheet.size[0] == 3 * 54 + 6
    assert plain.size[1] == 2 * 54 + 6
    assert sheet.size[1] > plain.size[1]
    for found in (plain, sheet):
        row = (found.height - 6) // 2
        for i, image in enumerate(batch):
            box = (6 + i % 3 * 54, 6 + i // 3 * row)
            assert found.crop((*box, box[0] + 48, box[1] + 48)).tobytes() == image.tobytes()
    written = np.asarray(sheet.crop((6, 6 + 48, 54, (sheet.height - 6) // 2)))
    assert written.min() < 100
    nothing = np.asarray(sheet.crop((114, 6 + 48, 162, (sheet.height - 6) // 2)))
    assert nothing.min() == 255


def test_a_grid_of_fewer_pictures_than_columns_is_as_wide_as_they_are():
    assert images.grid([Image.new("RGB", (10, 10))], columns=4).size == (22, 22)


def test_a_png_carries_its_settings_and_its_pixels(tmp_path):
    settings = {"prompt": "eine Tüte 🥨\nnew line", "seed": 7, "scale": 4.5, "model": "icons"}
    image = Image.fromarray(noise(9, 9))
    images.save_png(image, tmp_path / "a.png", settings)
    assert images.read_settings(tmp_path / "a.png") == settings
    with Image.open(tmp_path / "a.png") as found:
        assert found.tobytes() == image.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_png_without_settings_a_foreign_file_and_none_are_told_apart(tmp_path):
    images.save_png(Image.new("RGB", (2, 2)), tmp_path / "bare.png")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "torn.png").write_bytes((tmp_path / "bare.png").read_bytes()[:40])
    for name, words in [
        ("bare", "carries no settings"),
        ("text", "not a whole PNG"),
        ("torn", "not a whole PNG"),
        ("none", "No such"),
    ]:
        with pytest.raises(RequestError, match=words):
            images.read_settings(tmp_path / f"{name}.png")


def test_a_lossy_picture_is_as_good_as_its_limit_lets_it(tmp_path):
    image = Image.fromarray(noise(96, 96))

    def error(limit: int) -> float:
        images.save_lossy([image], tmp_path / "a.webp", limit=limit)
        assert (tmp_path / "a.webp").stat().st_size <= limit
        with Image.open(tmp_path / "a.webp") as found:
            return float(np.abs(np.asarray(found.convert("RGB"), float) - np.asarray(image, float)).mean())

    best = error(1_000_000)
    size = (tmp_path / "a.webp").stat().st_size
    assert error(size) == best < error(size - 1)
    kept = (tmp_path / "a.webp").read_bytes()
    with pytest.raises(RequestError, match="bytes at the lowest quality, more than 100"):
        images.save_lossy([image], tmp_path / "a.webp", limit=100)
    assert (tmp_path / "a.webp").read_bytes() == kept
    with pytest.raises(RequestError, match="cannot write"):
        images.save_lossy([image], tmp_path / "none" / "a.webp", limit=1_000_000)


def test_a_lossy_animation_shows_each_frame_for_its_time(tmp_path):
    frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "green", "blue")]
    images.save_lossy(frames, tmp_path / "a.webp", limit=100_000, milliseconds=[100, 100, 700])
    with Image.open(tmp_path / "a.webp", formats=("WEBP",)) as film:
        assert (getattr(film, "n_frames"), film.info["loop"]) == (3, 0)  # noqa: B009  # which plain pictures lack
        shown = []
        for place, frame in enumerate(frames):
            film.seek(place)
            film.load()
            shown.append(film.info["duration"])
            assert np.abs(np.asarray(film.convert("RGB"), float) - np.asarray(frame, float)).mean() < 4
    assert shown == [100, 100, 700]


def test_a_full_disk_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.save_png(Image.new("RGB", (2, 2), "red"), path)

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RequestError, match="No space left on device"):
        images.save_png(Image.new("RGB", (2, 2), "blue"), path)
    with Image.open(path) as found:
        assert found.getpixel((0, 0)) == (255, 0, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_an_output_folder_is_made_or_refused_in_one_line(tmp_path):
    assert images.make_folder(tmp_path / "new" / "deep").is_dir()
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RequestError, match="cannot write in the folder") as error:
            images.make_folder(path)
        assert "\n" not in str(error.value)
    with pytest.raises(RequestError, match="cannot write"):
        images.save_png(Image.new("RGB", (2, 2)), tmp_path / "nowhere" / "a.png")
