"""A run's previews as a film: the same samples at fixed noise, and on each frame how many pictures the network had seen.

    python scripts/training_film.py runs/decoder -o docs/training.webp

Every training run with `train.preview_every` leaves them (train/loop.py). Of more than `--frames` some are left out, so that
the rest lie evenly on a logarithmic scale: early previews differ more than late ones. The WebP has at most 2 MB.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unclip.cli.console import guarded, note
from unclip.errors import RequestError
from unclip.images import WHITE, save_lossy

MOST_BYTES = 2_000_000
BAND, FONT_SIZE, INDENT = 26, 18, 6  # px, of the line above each frame
LAST = 8  # times as long as any other is the last frame shown


class Preview(NamedTuple):
    images: int  # seen by then
    path: Path


def previews(run: Path) -> list[Preview]:
    """The previews of a run, oldest first; RequestError when it has none."""
    found = []
    for path in (run / "previews").glob("*.png"):
        try:
            found.append(Preview(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["images"], path))
        except (OSError, ValueError, KeyError):
            raise RequestError(f"{path} has no {path.stem}.json beside it that says how many pictures were seen") from None
    if not found:
        raise RequestError(f"{run} has no previews: train with train.preview_every")
    return sorted(found)


def thinned(count: int, most: int) -> list[int]:
    """At most `most`, 2 or more, of `count` places: the first, the last, evenly on a logarithmic scale; all if they fit."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) - 1 for place in np.geomspace(1, count, most)})


def frame(preview: Preview) -> Image.Image:
    with Image.open(preview.path) as sheet:
        made = Image.new("RGB", (sheet.width, sheet.height + BAND), WHITE)
        made.paste(sheet, (0, BAND))
    said, font = f"{preview.images:,} pictures seen", ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(made).text((INDENT, (BAND - FONT_SIZE) // 2), said, fill=(0, 0, 0), font=font)
    return made


def film(run: Path, out: Path, most: int, milliseconds: int) -> int:
    """Writes it, and says how many frames it has."""
    found = previews(run)
    frames = [frame(found[place]) for place in thinned(len(found), most)]
    save_lossy(frames, out, limit=MOST_BYTES, milliseconds=[milliseconds] * (len(frames) - 1) + [LAST * milliseconds])
    return len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description="String a run's previews into an animated WebP.")
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=48, help="at most")
    parser.add_argument("--milliseconds", type=int, default=250, help="a frame")
    args = parser.parse_args()
    if args.frames < 2 or args.milliseconds < 1:
        raise RequestError("a film has at least 2 --frames, of at least 1 of the --milliseconds")
    note(f"wrote {args.out}: {film(args.run, args.out, args.frames, args.milliseconds)} frames")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
