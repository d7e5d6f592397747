"""Draws the sheets of docs/gallery.md: each task from fixed seeds and the first held-out drawings, none picked by hand.

    python scripts/gallery.py --data data/icons --out docs/gallery

Held out are (thing, style) pairs that training never showed; the pictures are the suite's first four of them (seed 0), in
order. Each sheet has a row a picture or a way, and is drawn at 64 px.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from unclip import inpainting, tasks
from unclip.cli.console import guarded, note
from unclip.data.icons.captions import STYLE_PHRASES
from unclip.evaluate.suite import icons_suite
from unclip.images import grid, make_folder, save_png, save_webp
from unclip.pipeline import UnCLIP, load
from unclip.request import Options

ALIKE: dict[str, Any] = {"size": 64}
SEED = 7
MILLISECONDS = 150  # a frame of the animation
STYLES = sorted(STYLE_PHRASES)
LETTERING = ("a stop sign", "a 1st place medal")  # what of the icons carries letters
AMONG = 300  # training drawings whose z give the components of `probe`

Cell = tuple[Image.Image, str]
Row = list[Cell]


class Given(NamedTuple):
    model: UnCLIP
    pictures: list[Cell]  # with their captions
    among: Tensor  # z (N, E) of training drawings


def reconstruct(given: Given) -> list[Row]:
    made = [tasks.reconstruct(given.model, picture, **ALIKE) for picture, _ in given.pictures]
    told = [f"{one.psnr:.0f} dB, cosine {one.cosine:.3f}" for one in made]
    return [[real, (one.image, words)] for real, one, words in zip(given.pictures, made, told, strict=True)]


def variations(given: Given) -> list[Row]:
    def row(picture: Image.Image) -> Row:
        fresh = tasks.variations(given.model, picture, n=2, seed=SEED, **ALIKE)
        etas = (0.25, 0.5, 1.0)
        own = [tasks.variations(given.model, picture, n=1, seed=SEED, eta=eta, **ALIKE)[0] for eta in etas]
        return [
            *((image, "fresh") for image in fresh),
            *((image, f"eta {eta}") for image, eta in zip(own, etas, strict=True)),
        ]

    return [[real, *row(real[0])] for real in given.pictures]


def interpolate(given: Given) -> list[Row]:
    first, second, third, fourth = (picture for picture, _ in given.pictures)
    ways: list[list[Image.Image | str]] = [
        [first, second],
        [third, fourth],
        ["a flat icon of a cactus", "a 3d render of a tangerine"],
        [first, "a twemoji of a red heart"],
    ]
    made = [tasks.interpolate(given.model, ends, frames=7, seed=SEED, **ALIKE) for ends in ways]
    return [[(image, f"{i} of 6") for i, image in enumerate(way)] for way in made]


def mixes(given: Given) -> list[Row]:
    """Two drawings that keep their thing and change their style, two that take on lettering."""
    ways: list[list[Image.Image | str]] = []
    for i, (picture, words) in enumerate(given.pictures):
        own = next(style for style, phrases in STYLE_PHRASES.items() if words.startswith(phrases[0]))
        if i < 2:
            other = STYLES[(STYLES.index(own) + 1) % len(STYLES)]
            ways.append([picture, STYLE_PHRASES[other][0] + words.removeprefix(STYLE_PHRASES[own][0])])
        else:
            ways.append([picture, f"{STYLE_PHRASES[own][0]} {LETTERING[i % len(LETTERING)]}"])
    made = [tasks.interpolate(given.model, ends, frames=7, seed=SEED, **ALIKE) for ends in ways]
    told = [["the drawing", *[""] * 5, str(ends[1])] for ends in ways]
    return [list(zip(way, words, strict=True)) for way, words in zip(made, told, strict=True)]


def inpaint(given: Given) -> list[Row]:
    """The right half of a drawing, then its middle, as the decoder learnt it and by RePaint."""

    def row(picture: Image.Image, words: str, box: tuple[int, int, int, int]) -> Row:
        mask = Image.new("L", picture.size)
        mask.paste(255, box)
        holed = Image.composite(Image.new("RGB", picture.size, (160, 160, 160)), picture, mask)
        cells: Row = [(holed, "the hole")]
        for method in ("trained", "repaint"):
            made = inpainting.inpaint(given.model, picture, mask, words, n=2, seed=SEED, options=Options(method=method))
            cells += [(image, method) for image in made]
        return cells

    boxes = ((32, 0, 64, 64), (16, 16, 48, 48), (0, 32, 64, 64), (32, 0, 64, 64))
    return [[real, *row(*real, box)] for real, box in zip(given.pictures, boxes, strict=True)]


def outpaint(given: Given) -> list[Row]:
    """To one side, where the prompt says what is there, and all round."""

    def row(picture: Image.Image, words: str) -> Row:
        prompt = f"{words} to the left of a cactus"
        made = inpainting.outpaint(given.model, picture, inpainting.Sides(right=40), prompt, n=2, seed=SEED)
        words = f"{words} on a blue background"
        round_it = inpainting.outpaint(given.model, picture, inpainting.Sides(24, 24, 24, 24), words, seed=SEED)
        return [*((image, "... to the left of a cactus") for image in made), (round_it[0], "... on a blue background")]

    return [[real, *row(*real)] for real in given.pictures]


def text_diff(given: Given) -> list[Row]:
    """At the thetas of the default, then at those that CLIP chooses."""

    def row(picture: Image.Image, words: str) -> Row:
        new = f"{words} on a blue background"
        made = tasks.text_diff(given.model, picture, words, new, **ALIKE)
        seen = tasks.text_diff(given.model, picture, words, new, thetas=(0.05, 0.2, 0.4), pace="seen", **ALIKE)
        cells = [(image, f"theta {theta}") for image, theta in zip(made, tasks.THETAS, strict=True)]
        return cells + [(image, f"seen: {image.info['unclip']['theta']:.2f}") for image in seen]

    return [[real, *row(*real)] for real in given.pictures]


def image_to_image(given: Given) -> list[Row]:
    def row(picture: Image.Image) -> Row:
        prompt, strengths = "a flat icon of a cactus", (0.4, 0.6, 0.8, 1.0)
        made = [tasks.image_to_image(given.model, picture, prompt, strength=s, seed=SEED, **ALIKE)[0] for s in strengths]
        return [(image, f"strength {s}") for image, s in zip(made, strengths, strict=True)]

    return [[real, *row(real[0])] for real in given.pictures]


def probe(given: Given) -> list[Row]:
    def row(picture: Image.Image) -> Row:
        dims = (5, 10, 20, 40, 80, 160)
        made = tasks.probe(given.model, picture, given.among, dims=dims, seed=SEED, **ALIKE)
        return [(image, f"{count} of 256") for image, count in zip(made, dims, strict=True)]

    return [[real, *row(real[0])] for real in given.pictures]


SHEETS: tuple[Callable[[Given], list[Row]], ...] = (
    reconstruct,
    variations,
    interpolate,
    mixes,
    text_diff,
    image_to_image,
    probe,
    inpaint,
    outpaint,
)


def draw(data: Path, out: Path, model: str, only: list[str]) -> None:
    folder, painter = make_folder(out), load(model)
    assert isinstance(painter, UnCLIP), "the tasks ask an unCLIP"
    pictures = [(item.real, item.prompt) for item in icons_suite(data, samples=4, size=64, splits=["pair"])]
    among = painter.embed([item.real for item in icons_suite(data, samples=AMONG, size=64, splits=["train"])])
    for sheet in (sheet for sheet in SHEETS if not only or sheet.__name__ in only):
        rows = sheet(Given(painter, pictures, among))
        cells = [cell for row in rows for cell in row]
        path = folder / f"{sheet.__name__}.png"
        save_png(grid([image for image, _ in cells], len(rows[0]), [words for _, words in cells]), path)
        note(f"wrote {path}")
        if sheet is interpolate:
            frames = [image for image, _ in rows[0]]
            settings = {**frames[0].info["unclip"], "milliseconds": MILLISECONDS}
            del settings["frame"]
            save_webp([*frames, *frames[-2:0:-1]], folder / "interpolate.webp", settings, milliseconds=MILLISECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sheets of docs/gallery.md.")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"), help="folder of the sheets")
    parser.add_argument("--model", default="icons")
    names = [sheet.__name__ for sheet in SHEETS]
    parser.add_argument("--only", nargs="+", choices=names, default=[], help="these sheets; all by default")
    args = parser.parse_args()
    draw(args.data, args.out, args.model, args.only)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
