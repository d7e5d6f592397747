"""Painting a part of a picture anew, and growing a picture over its edges: the edits of DALL·E 2 (GLIDE, 2112.10741).

A picture is a canvas with a hole. A frame, a square that the model can paint, is laid over hole and surroundings; what is
known in it is kept at every stage, the decoder's and the upsamplers', and what comes out goes into the hole alone, where its
colours are brought to those around (seam.py): pixels outside of the hole are those of the picture, to the byte. A hole that
is larger than a frame is filled frame by frame, each of which overlaps what is there.

Masks have one polarity: white or transparent is painted anew. What a picture shows inside of the hole has no influence.

Dimension letters: B pictures, E embedding, H and W the canvas's rows and columns. `inpaint` and `outpaint` take `n`, `seed`,
`options` and `progress` as `UnCLIP.generate` does, `options.method` says how what is known is kept. RequestError for masks
and numbers that make no sense, pictures that `check_picture` refuses, and a model without the part they need.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unclip.errors import RequestError
from unclip.images import check_picture, check_sides, from_pixels, hole_of, resize, rgb, square_crop, to_pixels
from unclip.models.clip import Text
from unclip.models.known import Known
from unclip.pipeline import UnCLIP
from unclip.provenance import parent, prompted, tell
from unclip.request import AS_SAVED, Options, Progress, seeds_of
from unclip.seam import without_seam
from unclip.seeds import mix

OVERLAP, MOST_OVERLAP = 0.5, 0.9  # of a frame's side, with what is there


class Sides(NamedTuple):
    """By how many pixels a picture grows."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


class Canvas(NamedTuple):
    """A picture, or what there is of it."""

    pixels: np.ndarray  # (H, W, 3) uint8
    hole: np.ndarray  # (H, W) bool, True where nothing is known yet


class Painter(NamedTuple):
    """What all frames of a call are painted with."""

    model: UnCLIP
    text: Text | None
    z: Tensor  # (B, E)
    seeds: Sequence[int]
    options: Options
    progress: Progress | None


def inpaint(
    model: UnCLIP,
    image: Image.Image,
    repaint: Image.Image | None,
    prompt: str | None = None,
    *,
    n: int = 4,
    seed: int = 0,
    size: int | None = None,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """`n` pictures with a part painted anew, as the prompt, which describes the whole picture, wants it.

    `repaint` is a mask of the picture's size, white or transparent where it is painted anew; None: where the picture itself
    is transparent. Without a prompt the hole is filled with what CLIP sees around it. The results have the picture's own
    width and height, or, with `size`, are its middle square at that side, whichever that is; what the hole touches there is
    in the hole. Outside of the hole they equal it.
    """
    seeds, method = seeds_of(seed, n), model.method(options)
    check_picture(image)
    canvas = Canvas(np.asarray(rgb(image)), _hole(image, repaint))
    if size is not None:
        check_sides(size, size, "the result")
        canvas = _squared(canvas, size)
    if not canvas.hole.any():
        raise RequestError(
            "the mask repaints nothing: expected white or transparent where the picture is to be painted anew"
        )
    if canvas.hole.all():
        raise RequestError("the mask repaints everything: nothing would be kept, ask for a new picture instead")
    painter = _painter(model, prompt, canvas, seeds, options, progress)
    pictures = _fill(painter, canvas, min(canvas.hole.shape), OVERLAP)
    said = prompted(model, prompt, options)
    each = [{**said, "seed": seed, "size": size, "method": method} for seed in seeds]
    parents = [image] if repaint is None else [image, repaint]
    return tell(model.name, "inpaint", pictures, each, options, [parent(one) for one in parents])


def outpaint(
    model: UnCLIP,
    image: Image.Image,
    sides: Sides,
    prompt: str | None = None,
    *,
    overlap: float = OVERLAP,
    n: int = 1,
    seed: int = 0,
    options: Options = AS_SAVED,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """`n` pictures grown on their sides, frame by frame; the picture itself stays as it is.

    A frame is as large as the picture's shorter side; `overlap` of its side, up to 0.9, lies on what is there.
    The prompt describes each frame; without one it is what CLIP sees in the picture.
    """
    seeds, method = seeds_of(seed, n), model.method(options)
    check_picture(image)
    pixels = np.asarray(rgb(image))
    whole = Canvas(pixels, np.zeros(pixels.shape[:2], bool))
    _check_growth(sides, whole.hole.shape, overlap)
    painter = _painter(model, prompt, whole, seeds, options, progress)
    pictures = _fill(painter, _grown(whole, sides), min(whole.hole.shape), overlap)
    said = prompted(model, prompt, options)
    each = [{**said, "seed": seed, **sides._asdict(), "overlap": overlap, "method": method} for seed in seeds]
    return tell(model.name, "outpaint", pictures, each, options, [parent(image)])


def frames(hole: np.ndarray, side: int, overlap: float) -> list[tuple[int, int]]:
    """The top left corners (row, column) of the frames that fill a hole (H, W), in the order in which they are painted.

    One in the middle of a hole that fits into a frame. Else those of a grid whose frames share `overlap` of their side,
    at each turn the one that fills most of those that lie on enough of what is there.
    """
    rows, columns = np.nonzero(hole)
    if max(np.ptp(rows), np.ptp(columns)) < side:
        return [(_around(rows, side, hole.shape[0]), _around(columns, side, hole.shape[1]))]
    left, corners = hole.copy(), []
    step = max(1, round((1 - overlap) * side))
    places = [_places(np.flatnonzero((~hole).any(axis)), hole.shape[1 - axis], side, step) for axis in (1, 0)]
    grid = [(y, x) for y in places[0] for x in places[1]]
    while left.any():
        filled = _within(left, grid, side)
        enough = (side * side - filled >= min(overlap, OVERLAP) * side * side) & (filled > 0)
        # Where nowhere is enough there, the frame that knows most; the first is the one nearest the picture's corner.
        best = int(np.where(enough, filled, -1).argmax()) if enough.any() else _least(filled)
        y, x = grid[best]
        left[y : y + side, x : x + side] = False
        corners.append((y, x))
    return corners


def _painter(
    model: UnCLIP, prompt: str | None, canvas: Canvas, seeds: Sequence[int], options: Options, progress: Progress | None
) -> Painter:
    """Paints what the prompt says, or what CLIP sees in the canvas, whose hole has the mean colour of the rest for it."""
    if prompt is not None:
        text, z = model.imagine([prompt] * len(seeds), seeds, options=options, progress=progress)
    else:
        seen = canvas.pixels.copy()
        seen[canvas.hole] = seen[~canvas.hole].mean(0).round()
        text, z = None, model.embed(Image.fromarray(seen)).expand(len(seeds), -1)
    return Painter(model, text, z, seeds, options, progress)


def _fill(painter: Painter, canvas: Canvas, side: int, overlap: float) -> list[Image.Image]:
    """The canvas with its hole filled, once for each seed, by frames of that side."""
    model, hole = painter.model, canvas.hole.copy()
    canvases = [canvas.pixels.copy() for _ in painter.seeds]
    size = min((size for size in model.sizes if size >= side), default=model.sizes[-1])
    for number, (top, left) in enumerate(frames(hole, side, overlap)):
        window = np.s_[top : top + side, left : left + side]
        mask = torch.from_numpy(~hole[window]).float()[None, None]
        image = from_pixels(np.stack([pixels[window] for pixels in canvases]))
        made = model.paint(
            painter.z,
            [seed if number == 0 else mix(seed, number) for seed in painter.seeds],
            text=painter.text,
            known=Known(image, mask.expand(len(canvases), 1, side, side)).at(size).to(model.device),
            size=size,
            options=painter.options,
            progress=painter.progress,
        )
        for pixels, picture in zip(canvases, made, strict=True):
            painted = to_pixels(resize(from_pixels(np.asarray(picture))[None], side))[0]
            pixels[window][hole[window]] = without_seam(painted, pixels[window], hole[window])[hole[window]]
        hole[window] = False
    return [Image.fromarray(pixels) for pixels in canvases]


def _grown(canvas: Canvas, sides: Sides) -> Canvas:
    """The canvas with a hole around it."""
    around = ((sides.top, sides.bottom), (sides.left, sides.right))
    return Canvas(np.pad(canvas.pixels, (*around, (0, 0))), np.pad(canvas.hole, around, constant_values=True))


def _hole(image: Image.Image, repaint: Image.Image | None) -> np.ndarray:
    """(H, W) bool of the upright picture; RequestError for a mask of another size, or none."""
    if repaint is None:
        if not image.has_transparency_data:
            raise RequestError("no mask, and the picture has no transparency: give one, white or transparent = repaint")
        return hole_of(image, transparent=True)
    check_picture(repaint, "the mask")
    hole = hole_of(repaint)
    upright = ImageOps.exif_transpose(image).size
    if hole.shape != upright[::-1]:
        raise RequestError(
            f"the mask is {hole.shape[1]} x {hole.shape[0]} px, but the picture {upright[0]} x {upright[1]} px: "
            "expected the same"
        )
    return hole


def _squared(canvas: Canvas, size: int) -> Canvas:
    """The middle square at another side, with all of what the hole touches in the hole."""
    square, cut = (square_crop(Image.fromarray(part)) for part in canvas)
    image = from_pixels(np.asarray(square))[None]
    mask = Known(image, 1 - torch.tensor(np.asarray(cut)).float()[None, None]).at(size).mask
    return Canvas(to_pixels(resize(image, size))[0], mask[0, 0].numpy() == 0)


def _within(hole: np.ndarray, corners: Sequence[tuple[int, int]], side: int) -> np.ndarray:
    """How much of a hole (H, W) lies in each frame, by a table of sums."""
    sums = np.pad(hole.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    top, left = np.array(corners).T
    down, right = top + side, left + side
    return sums[down, right] - sums[top, right] - sums[down, left] + sums[top, left]


def _around(marked: np.ndarray, side: int, length: int) -> int:
    """Where a frame begins that has the marked rows in its middle, as far as the canvas allows."""
    middle = (int(marked.min()) + int(marked.max()) + 1) // 2
    return min(max(middle - side // 2, 0), length - side)


def _places(known: np.ndarray, length: int, side: int, step: int) -> list[int]:
    """Where frames may begin along a canvas so long: by steps outwards from the first and the last of what is known."""
    starts = (int(known[0]), int(known[-1]) + 1 - side)
    steps = range(-(length // step) - 1, length // step + 2)
    return sorted({min(max(start + i * step, 0), length - side) for start in starts for i in steps})


def _least(filled: np.ndarray) -> int:
    return int(np.where(filled > 0, filled, filled.max() + 1).argmin())


def _check_growth(sides: Sides, shape: tuple[int, ...], overlap: float) -> None:
    told = ", ".join(f"{name} {value}" for name, value in sides._asdict().items())
    if min(sides) < 0 or not any(sides):
        raise RequestError(f"{told}: expected pixels to grow by, on one side at least, and none below 0")
    if not 0 < overlap <= MOST_OVERLAP:
        raise RequestError(f"overlap = {overlap:g}: expected more than 0 and at most {MOST_OVERLAP:g}")
    check_sides(shape[1] + sides.left + sides.right, shape[0] + sides.top + sides.bottom, "the grown picture")
