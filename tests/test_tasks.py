"""Pictures as pairs (z, x_T): they come back, vary, meet half way and follow a text; on any model that has the parts."""

import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy_karlo
from PIL import Image

import unclip
from unclip import tasks, ways
from unclip.errors import ConfigError, RequestError
from unclip.images import read_settings, save_png, to_images
from unclip.pairs import pair_of
from unclip.request import Options, retracing
from unclip.rng import Rng

SIDE = 32  # px, the decoder's
FEW = Options(steps=12)


@pytest.fixture(scope="module")
def red(squares) -> Image.Image:
    return Image.fromarray(squares.sample(0, 48).image)


@pytest.fixture(scope="module")
def blue(squares) -> Image.Image:
    return Image.fromarray(squares.sample(22, 48).image)


def pixels(images) -> list[bytes]:
    return [image.tobytes() for image in images]


def apart(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


def test_principal_axes_are_the_longest_first_and_no_more_than_there_are():
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[3.0, 0, 0, 4], [0, 1, 0, 0]])
    mean, axes = tasks.principal_axes(z)
    assert axes.shape == (4, 4)
    torch.testing.assert_close(axes @ axes.T, torch.eye(4), atol=1e-5, rtol=0)
    assert abs(axes[0] @ torch.tensor([0.6, 0, 0, 0.8])).item() > 0.95
    torch.testing.assert_close(mean + (z - mean) @ axes[:2].T @ axes[:2], z, atol=1e-5, rtol=0)
    assert len(tasks.principal_axes(z[:3])[1]) == 2


def test_the_noise_that_is_given_is_what_decoding_starts_from(painter):
    z, rng = torch.ones(1, 32), Rng([5])
    own = rng.fork(0).normal((3, SIDE, SIDE))
    assert torch.equal(painter.decode(z, rng), painter.decode(z, rng, x_T=own))
    assert not torch.equal(painter.decode(z, rng), painter.decode(z, rng, x_T=painter.noise(rng)))


def test_more_steps_bring_a_picture_nearer(painter, red):
    near = [tasks.reconstruct(painter, red, size=SIDE, options=Options(steps=steps)).psnr for steps in (5, 20, 60)]
    assert near == sorted(near)
    assert near[-1] > 30


def test_a_reconstruction_is_of_its_own_z_and_noise(painter, red, blue):
    z, x_T, _ = pair_of(painter, red, options=FEW)
    assert (z.shape, x_T.shape) == ((1, 32), (1, 3, SIDE, SIDE))
    made = tasks.reconstruct(painter, red, size=SIDE, options=FEW)
    again = painter.decode(z, Rng([0]), x_T=x_T, options=retracing(FEW))
    assert pixels(to_images(again)) == pixels([made.image])
    assert made.cosine > 0.9
    other = pair_of(painter, blue, options=FEW)
    swapped = painter.decode(z, Rng([0]), x_T=other.x_T, options=retracing(FEW))
    assert apart(to_images(swapped)[0], made.image) > apart(made.image, to_images(painter.pixels(red))[0])


def test_variations_are_each_of_their_own_seed(painter, red):
    four = tasks.variations(painter, red, n=4, seed=7, size=SIDE)
    assert pixels(four)[1:3] == pixels(tasks.variations(painter, red, n=2, seed=8, size=SIDE))
    assert len(set(pixels(four))) == 4
    batched = painter.paint(painter.embed(red).expand(4, -1), range(7, 11), size=SIDE, exact=False)
    assert max(apart(one, other) for one, other in zip(four, batched, strict=True)) < 1


def test_eta_turns_a_reconstruction_into_variations(painter, red):
    back = tasks.reconstruct(painter, red, size=SIDE, options=FEW).image
    spreads = []
    for eta in (0.0, 0.3, 0.6, 1.0):
        made = tasks.variations(painter, red, n=3, seed=1, eta=eta, size=SIDE, options=FEW)
        spreads.append(np.mean([apart(image, back) for image in made]))
    assert spreads[0] == 0
    assert spreads == sorted(spreads)


def test_interpolation_begins_and_ends_with_the_pictures(painter, red, blue):
    way = tasks.interpolate(painter, [red, blue], frames=5, size=SIDE, options=FEW)
    ends = [tasks.reconstruct(painter, image, size=SIDE, options=FEW).image for image in (red, blue)]
    assert apart(way[0], ends[0]) < 0.1
    assert apart(way[-1], ends[1]) < 0.1
    assert len(set(pixels(way))) == 5
    z = painter.embed([red, blue])
    fixed = tasks.interpolate(painter, [red, blue], frames=3, noise="fixed", seed=4, size=SIDE)
    halfway = ways.slerp(z[0], z[1], 0.5)[None]
    assert pixels(fixed[1:2]) == pixels(painter.paint(halfway, [4], size=SIDE))


def test_the_pace_that_is_seen_takes_frames_of_the_way_that_z_goes(painter, red, blue):
    stages = []
    given = {"noise": "fixed", "pace": "seen", "seed": 4}
    told = {"progress": lambda stage, step: stages.append(stage), **given}
    way = tasks.interpolate(painter, [red, blue], frames=4, size=SIDE, **told)
    assert list(dict.fromkeys(stages)) == ["pace"]  # what was looked at is what was asked for: nothing is painted twice
    z, fine = torch.cat([painter.embed(red), painter.embed(blue)]), ways.fine_places(2, 4)
    looked = painter.paint(ways.along(z, fine), [4] * len(fine), size=SIDE)
    places = ways.paced(fine, painter.embed(looked), z, 4)
    assert pixels(way) == [looked[fine.index(place)].tobytes() for place in places]
    assert way[0].info["unclip"]["pace"] == "seen"
    large = tasks.interpolate(painter, [red, blue], frames=4, size=2 * SIDE, **told)
    assert list(dict.fromkeys(stages)) == ["pace", "decoder", "to 64 px"]
    assert pixels(large) == pixels(painter.paint(ways.along(z, places), [4] * 4, size=2 * SIDE))


def test_frames_are_chosen_as_large_as_clip_looks_at_them():
    def sees(side: int | None, *sizes: int):
        vision = None if side is None else SimpleNamespace(image_size=side)
        return SimpleNamespace(sizes=sizes, clip=SimpleNamespace(cfg=SimpleNamespace(vision=vision)))

    ours, karlo = sees(64, 32, 64, 256, 1024), sees(224, 64, 256)
    assert [ways.glance_side(ours, size) for size in ours.sizes] == [32, 64, 64, 64]
    assert [ways.glance_side(karlo, size) for size in karlo.sizes] == [64, 256]
    assert ways.glance_side(sees(32, 64, 256), 256) == 64
    assert ways.glance_side(sees(None, 64, 256), 256) == 256


def test_who_has_the_pairs_inverts_no_more(painter, red, blue):
    few = {"size": SIDE, "options": FEW}
    ends, stages = [red, "a blue disc", blue], []
    pairs = [pair_of(painter, end, seed=2 + i, options=FEW) for i, end in enumerate(ends)]
    told = {"progress": lambda stage, step: stages.append(stage), **few}
    words, varied = ("a red disc", "a blue disc"), {"n": 1, "seed": 3, "eta": 0.5}
    made = [
        *(tasks.frame(painter, pairs, number, frames=4, seed=2, **told) for number in range(4)),
        *tasks.interpolate(painter, pairs, frames=4, seed=2, **told),
        *tasks.text_diff(painter, pairs[0], *words, **told),
        *tasks.variations(painter, pairs[0], **varied, **told),
    ]
    assert set(stages) == {"decoder"}
    whole = tasks.interpolate(painter, ends, frames=4, seed=2, **few)
    expected = [
        *whole,
        *whole,
        *tasks.text_diff(painter, red, *words, **few),
        *tasks.variations(painter, red, **varied, **few),
    ]
    assert pixels(made) == pixels(expected)
    assert [image.info for image in made] == [image.info for image in expected]


def test_pictures_and_prompts_meet(painter, red):
    way = tasks.interpolate(painter, ["a blue disc", red, "a red bar"], frames=3, seed=2, size=SIDE, options=FEW)
    assert apart(way[1], tasks.reconstruct(painter, red, size=SIDE, options=FEW).image) < 0.1
    words = tasks.interpolate(painter, ["a blue disc", "a red bar"], frames=2, seed=2, size=SIDE)
    z = painter.imagine(["a blue disc"], [2])[1]
    assert pixels(words[:1]) == pixels(painter.paint(z, [2], x_T=painter.noise(Rng([2])), size=SIDE))
    assert [given.get("prompt") for given in way[0].info["unclip"]["parents"]] == ["a blue disc", None, "a red bar"]


def test_text_diff_turns_z_to_the_new_words_and_no_other_way(painter, red):
    asked = []
    moved = tasks.text_diff(
        painter,
        red,
        "a red disc",
        "a blue disc",
        thetas=(0, 0.2, 0.5),
        size=SIDE,
        options=FEW,
        progress=lambda stage, step: asked.append(stage),
    )
    assert apart(moved[0], tasks.reconstruct(painter, red, size=SIDE, options=FEW).image) < 0.1
    assert apart(moved[2], moved[0]) > apart(moved[1], moved[0]) > 0
    assert list(dict.fromkeys(asked)) == ["inversion", "decoder"]
    assert moved[1].info["unclip"]["theta"] == 0.2


def test_the_decoder_reads_what_text_diff_is_to_make(painter, red):
    z, x_T, _ = pair_of(painter, red, options=FEW)
    texts = painter.encode_text(["a red disc", "a blue disc"])
    old, new = F.normalize(texts.pooled)
    moved = ways.slerp(z[0], z.norm() * F.normalize(new - old, dim=0), 0.3)[None]
    told = {"x_T": x_T, "size": SIDE, "options": tasks.pushed(FEW, 0.3)}
    expected = painter.paint(moved, [0], text=texts.select(slice(1, 2)), **told)
    made = tasks.text_diff(painter, red, "a red disc", "a blue disc", thetas=(0.3,), size=SIDE, options=FEW)
    assert pixels(made) == pixels(expected) != pixels(painter.paint(moved, [0], **told))


def test_the_further_text_diff_goes_the_more_it_is_guided(painter, red):
    words, given = ("a red disc", "a blue disc"), {"size": SIDE, "options": FEW}
    assert [tasks.pushed(FEW, theta).guidance for theta in (0, 0.25, 0.5)] == [1, 1.5, 2]
    assert tasks.pushed(Options(guidance=2.0), 0.25).guidance == 2
    (own,) = tasks.text_diff(painter, red, *words, thetas=(0.25,), **given)
    (same,) = tasks.text_diff(painter, red, *words, thetas=(0.25,), size=SIDE, options=Options(steps=12, guidance=1.5))
    (none,) = tasks.text_diff(painter, red, *words, thetas=(0.25,), size=SIDE, options=Options(steps=12, guidance=1.0))
    assert pixels([own]) == pixels([same]) != pixels([none])
    assert "guidance" not in own.info["unclip"]


def test_text_diff_goes_at_the_pace_that_is_seen(painter, red):
    stages = []
    given = {"thetas": (0.1, 0.2, 0.5), "options": FEW, "progress": lambda stage, step: stages.append(stage)}
    words = ("a red disc", "a blue disc")
    seen = tasks.text_diff(painter, red, *words, pace="seen", size=SIDE, **given)
    assert list(dict.fromkeys(stages)) == ["inversion", "pace"]  # what was looked at is what was asked for
    thetas = [image.info["unclip"]["theta"] for image in seen]
    assert thetas[0] == 0.1 < thetas[1] < thetas[2] <= 0.5
    again = given | {"thetas": thetas}
    assert pixels(seen) == pixels(tasks.text_diff(painter, red, *words, size=SIDE, **again))
    fine = ways.fine_thetas((0.1, 0.2, 0.5))
    looked = tasks.text_diff(painter, red, *words, size=SIDE, **given | {"thetas": fine})
    change = F.normalize(painter.embed(looked)) - F.normalize(painter.embed(red))
    old, new = F.normalize(painter.encode_text(words).pooled)
    assert thetas == [fine[i] for i in ways.risen(F.cosine_similarity(change, (new - old)[None]), 3)]
    stages.clear()
    large = tasks.text_diff(painter, red, *words, pace="seen", size=2 * SIDE, **given)
    assert list(dict.fromkeys(stages)) == ["inversion", "pace", "decoder", "to 64 px"]
    assert pixels(large) == pixels(tasks.text_diff(painter, red, *words, size=2 * SIDE, **again))


def test_strength_says_how_far_a_picture_is_noised(painter, red):
    started = []
    for strength in (0.1, 0.5, 1.0):
        x_t, how = painter.noised(painter.pixels(red), Rng([3]), strength=strength, options=Options(steps=10))
        started.append((len(how.steps), x_t))
    assert [count for count, _ in started] == [1, 5, 10]
    assert apart(to_images(started[0][1])[0], to_images(painter.pixels(red))[0]) < 40
    torch.testing.assert_close(started[2][1], painter.noise(Rng([3])), atol=1e-3, rtol=0)
    steps = []
    made = tasks.image_to_image(
        painter,
        red,
        "a blue disc",
        strength=0.5,
        n=2,
        seed=8,
        size=SIDE,
        options=Options(steps=10),
        progress=lambda stage, step: steps.append(stage),
    )
    assert steps.count("decoder") == 2 * 5
    alone = tasks.image_to_image(painter, red, "a blue disc", strength=0.5, seed=9, size=SIDE, options=Options(steps=10))
    assert pixels(alone) == pixels(made[1:])
    assert pixels(tasks.image_to_image(painter, red, strength=0.5, seed=9, size=SIDE)) != pixels(made[1:])


def test_with_all_components_the_probe_is_the_picture_itself(painter, red, squares):
    among = [Image.fromarray(squares.sample(i, 32).image) for i in range(1, 12)]
    whole = tasks.probe(painter, red, [*among, red], dims=[0, 3, 11], seed=6, size=SIDE)
    assert apart(whole[-1], painter.paint(painter.embed(red), [6], size=SIDE)[0]) < 0.5
    assert len(set(pixels(whole))) == 3
    assert [image.info["unclip"]["dims"] for image in whole] == [0, 3, 11]
    z = torch.cat([painter.embed(image) for image in [*among, red]])
    assert pixels(tasks.probe(painter, red, z, dims=[0, 3, 11], seed=6, size=SIDE)) == pixels(whole)
    with pytest.raises(RequestError, match=r"dims = \[12\]: 12 pictures give components from 0 to 11"):
        tasks.probe(painter, red, [*among, red], dims=[12])
    with pytest.raises(RequestError, match="0 pictures give components from 0 to 0"):
        tasks.probe(painter, red, [])


def test_a_picture_knows_its_parents_and_theirs(painter, red, tmp_path):
    (child,) = tasks.variations(painter, red, n=1, seed=5, eta=0.5, size=SIDE, options=FEW)
    own = {"task": "variations", "seed": 5, "eta": 0.5, "size": SIDE, "model": "tiny", "steps": 12}
    first = {"pixels": hashlib.sha256(red.tobytes()).hexdigest()}
    assert child.info["unclip"] == {**own, "parents": [first]}
    save_png(child, tmp_path / "child.png", child.info["unclip"])
    opened = unclip.images.read_picture(tmp_path / "child.png")
    (grandchild,) = tasks.variations(painter, opened, n=1, size=SIDE)
    digest = hashlib.sha256((tmp_path / "child.png").read_bytes()).hexdigest()
    told = {"file": "child.png", "sha256": digest, "settings": read_settings(tmp_path / "child.png")}
    assert grandchild.info["unclip"]["parents"] == [told]


def test_what_cancels_is_not_held_up(painter, red):
    def stop(stage, step):
        if stage == "inversion" and step.index == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tasks.variations(painter, red, eta=0.5, progress=stop)


BAD = {
    "eta": (lambda m, a, b: tasks.variations(m, a, eta=1.5), "eta = 1.5: expected 0 to 1"),
    "eta nan": (lambda m, a, b: tasks.variations(m, a, eta=math.nan), "eta = nan"),
    "eta twice": (lambda m, a, b: tasks.variations(m, a, eta=0.5, options=Options(eta=0.1)), "eta is given twice"),
    "eta of another": (lambda m, a, b: tasks.variations(m, a, options=Options(eta=0.5)), "take the sampler ddim"),
    "n": (lambda m, a, b: tasks.variations(m, a, n=0), "n = 0"),
    "size": (lambda m, a, b: tasks.reconstruct(m, a, size=100), "tiny cannot make 100 px"),
    "theta": (lambda m, a, b: tasks.text_diff(m, a, "a", "b", thetas=[0.6]), "theta = 0.6: expected 0 to 0.5"),
    "same words": (lambda m, a, b: tasks.text_diff(m, a, "a disc", "a disc"), "are the same to tiny"),
    "strength 0": (lambda m, a, b: tasks.image_to_image(m, a, strength=0), "strength = 0: expected more than 0 to 1"),
    "strength": (lambda m, a, b: tasks.image_to_image(m, a, strength=1.1), "strength = 1.1"),
    "one end": (lambda m, a, b: tasks.interpolate(m, [a]), "two or more"),
    "letters": (lambda m, a, b: tasks.interpolate(m, "ab"), "two or more"),
    "frames": (lambda m, a, b: tasks.interpolate(m, [a, b], frames=1), "frames = 1: expected at least 2"),
    "noise": (lambda m, a, b: tasks.interpolate(m, [a, b], noise="loud"), "noise = 'loud'"),
    "pace": (lambda m, a, b: tasks.interpolate(m, [a, b], pace="fast"), "pace = 'fast': expected even or seen"),
    "pace of thetas": (lambda m, a, b: tasks.text_diff(m, a, "a", "b", pace="fast"), "pace = 'fast': expected even or seen"),
    "one theta": (
        lambda m, a, b: tasks.text_diff(m, a, "a", "b", thetas=[0.3], pace="seen"),
        "thetas = 0.3: pace seen expects",
    ),
    "fall": (
        lambda m, a, b: tasks.text_diff(m, a, "a", "b", thetas=(0.3, 0.1), pace="seen"),
        "thetas = 0.3, 0.1: pace seen",
    ),
    "same ends": (lambda m, a, b: tasks.interpolate(m, [b, a, a]), "ends 2 and 3 are the same to tiny"),
    "tiny": (lambda m, a, b: pair_of(m, Image.new("RGB", (1, 1))), "1 x 1 px: expected 8 to"),
    "frame": (lambda m, a, b: tasks.frame(m, [a, b], 9), "frame 9: expected 0 to 8"),
    "frame of one": (lambda m, a, b: tasks.frame(m, [a], 0), "two or more"),
    "no picture": (lambda m, a, b: tasks.image_to_image(m, a, n=0), "n = 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_line_before_anything_is_painted(painter, red, blue, name):
    call, words = BAD[name]
    with pytest.raises((RequestError, ConfigError), match=words) as error:
        call(painter, red, blue)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def karlo(tmp_path_factory) -> dict[str, unclip.UnCLIP]:
    """Karlo's two layouts: with a prior and no eyes, with eyes and no prior."""
    hub = tmp_path_factory.mktemp("hub")
    made = {"prompts": toy_karlo.text_to_image(hub / "words"), "pictures": toy_karlo.variations(hub / "more words")}
    folders = {name: toy_karlo.save(pipe, hub / name) for name, pipe in made.items()}
    return {name: unclip.load(folder, device="cpu", precision="fp32") for name, folder in folders.items()}


def test_every_task_runs_on_a_karlo_that_sees(karlo, red, blue):
    model, few = karlo["pictures"], Options(steps=6, upsampler_steps=2)
    made = [
        *tasks.variations(model, red, n=2, options=few),
        *tasks.variations(model, red, n=1, eta=1.0, options=few),
        *tasks.interpolate(model, [red, blue], frames=3, options=few),
        *tasks.text_diff(model, red, "the red cat", "a map", thetas=[0.2], options=few),
        *tasks.image_to_image(model, red, strength=0.5, options=few),
        *tasks.probe(model, red, [red, blue, red.rotate(90)], dims=[1, 2], options=few),
        tasks.reconstruct(model, red, options=few).image,
    ]
    assert {image.size for image in made} == {(64, 64)}
    assert len(made) == 11
    assert all(np.asarray(image).std() > 0 for image in made)


def test_a_karlo_without_eyes_goes_between_prompts_alone(karlo, red):
    model, few = karlo["prompts"], Options(steps=4, prior_steps=2, upsampler_steps=2)
    assert len(tasks.interpolate(model, ["the red cat", "a map"], frames=3, options=few)) == 3
    assert len(tasks.image_to_image(model, red, "the red cat", options=few)) == 1
    for call in (tasks.variations, tasks.reconstruct, tasks.image_to_image):
        with pytest.raises(RequestError, match="reads captions only"):
            call(model, red)
    with pytest.raises(RequestError, match="has no prior"):
        tasks.interpolate(karlo["pictures"], [red, "the red cat"])
