"""What training changes, as a film: the same samples at fixed noise, and on each frame how many pictures were seen.

    python scripts/training_film.py runs/decoder -o docs/training.webp
    python scripts/training_film.py out/first=82000 out/second=226000 icons=782000 -o docs/training.webp

Of a run it is the previews, which every training with `train.preview_every` leaves (train/loop.py). Of more than `--frames`
some are left out, so that the rest lie evenly on a logarithmic scale: early previews differ more than late ones. Of finished
models, each with what its decoder had seen, it is the showcase's prompts (showcase.py) with the seeds 0 to 7. The WebP has
2 MB at most.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from showcase import PROMPTS, SIZE

from unclip.cli.console import guarded, note
from unclip.errors import RequestError
from unclip.images import WHITE, grid, save_lossy
from unclip.pipeline import UnCLIP, load
from unclip.request import Options

MOST_BYTES = 2_000_000
BAND, FONT_SIZE, INDENT = 26, 18, 6  # px, of the line above each frame
SEEDS = 8  # of each prompt, of finished models
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


def frame(sheet: Image.Image, images: int) -> Image.Image:
    made = Image.new("RGB", (sheet.width, sheet.height + BAND), WHITE)
    made.paste(sheet, (0, BAND))
    said, font = f"{images:,} pictures seen", ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(made).text((INDENT, (BAND - FONT_SIZE) // 2), said, fill=(0, 0, 0), font=font)
    return made


def frames_of_run(run: Path, most: int) -> list[Image.Image]:
    found = previews(run)
    frames = []
    for place in thinned(len(found), most):
        with Image.open(found[place].path) as sheet:
            frames.append(frame(sheet, found[place].images))
    return frames


def frames_of_models(named: list[str]) -> list[Image.Image]:
    """A frame for each MODEL=IMAGES, in the order of what was seen. RequestError for what is not of that form."""
    seen = {}
    for each in named:
        name, _, images = each.rpartition("=")
        if not name or not images.isdigit():
            raise RequestError(f"{each}: expected a run's folder alone, or models, each as MODEL=IMAGES, say icons=782000")
        seen[name] = int(images)
    return [frame(painted(name), seen[name]) for name in sorted(seen, key=lambda name: seen[name])]


def painted(name: str) -> Image.Image:
    """What a model paints: a row of SEEDS a prompt."""
    model = load(name)
    assert isinstance(model, UnCLIP), "the showcase is an unCLIP's"
    typed = Options.parse({"as_typed": True}, where="options")  # as the first of them, which had no words, read prompts
    rows = []
    for prompt in PROMPTS:
        rows.append(grid(model.generate(prompt, n=SEEDS, size=SIZE, options=typed, exact=False), SEEDS))
        note(f"{name}: {prompt}")
    return grid(rows, 1, list(PROMPTS))


def main() -> None:
    parser = argparse.ArgumentParser(description="String a run's previews, or what finished models paint, into a film.")
    parser.add_argument("shown", nargs="+", help="a run's folder, or models, each as MODEL=IMAGES")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=48, help="at most, of a run")
    parser.add_argument("--milliseconds", type=int, default=250, help="a frame")
    args = parser.parse_args()
    if args.frames < 2 or args.milliseconds < 1:
        raise RequestError("a film has at least 2 --frames, of at least 1 of the --milliseconds")
    of_run = len(args.shown) == 1 and Path(args.shown[0]).is_dir()
    frames = frames_of_run(Path(args.shown[0]), args.frames) if of_run else frames_of_models(args.shown)
    shown = [args.milliseconds] * (len(frames) - 1) + [LAST * args.milliseconds]
    save_lossy(frames, args.out, limit=MOST_BYTES, milliseconds=shown)
    note(f"wrote {args.out}: {len(frames)} frames")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
