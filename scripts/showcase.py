"""Draws docs/showcase.webp and writes docs/showcase.md: twelve prompts, each with seeds 0 to 15, none picked.

    python scripts/showcase.py --out docs

The first four prompts are the README's. The others were written down before any picture of them was looked at, and stay:
what fails is shown with the rest.
"""

import argparse
import shlex
from pathlib import Path

from PIL import Image

from unclip.cli.console import guarded, note
from unclip.files import write_text
from unclip.images import grid, make_folder, save_lossy
from unclip.pipeline import UnCLIP, load

SIZE, SEEDS, SHEET_BYTES = 64, 16, 1_000_000
PROMPTS = {  # and what each asks for
    "a 3d render of a tangerine": "a thing in Fluent's style",
    "a flat icon of a cactus": "a thing in Fluent's flat style",
    "a noto emoji of a red apple": "a thing in Noto's style",
    "a twemoji of a red heart": "a thing in Twemoji's style",
    "a teapot": "a thing, no style said",
    "a flat icon of a cat": "a thing in a style that training did not show it in",
    "a 3d render of an owl on a blue background": "a coloured ground",
    "a noto emoji of a mushroom on a yellow to pink gradient background": "a gradient",
    "a twemoji of three bananas": "a count",
    "a flat icon of a blue chair": "a colour",
    "a 3d render of a guitar and a candle": "two things",
    "a noto emoji of a fox above a bicycle": "a position",
}
PAGE = """# Showcase: seeds 0 to {last}, none picked

Written by `python scripts/showcase.py`, with {model}, at {size} px. The first four prompts are the README's; the others
were written down before any picture of them was looked at. Each has a row, and a row has the seeds 0 to {last} from left to
right, failures included: how often each kind succeeds is in the [card](model-card.md). Painted in batches, so that a picture
may differ from that of its command by up to 2/255, and saved with losses.

![twelve prompts, sixteen seeds each](showcase.webp)

| row | asks for | command |
|---|---|---|
{rows}
"""


def command(prompt: str) -> str:
    """What paints a row again."""
    words = ["unclip", "generate", prompt, "-n", SEEDS, "--seed", 0, "--size", SIZE, "--out", "out"]
    return shlex.join(map(str, words))


def page(model: str) -> str:
    rows = [f"| {row} | {asked} | `{command(prompt)}` |" for row, (prompt, asked) in enumerate(PROMPTS.items(), start=1)]
    return PAGE.format(last=SEEDS - 1, model=model, size=SIZE, rows="\n".join(rows))


def draw(model: UnCLIP) -> Image.Image:
    rows = []
    for prompt in PROMPTS:
        rows.append(grid(model.generate(prompt, n=SEEDS, size=SIZE, exact=False), SEEDS))
        note(f"{len(rows)} of {len(PROMPTS)}: {prompt}")
    return grid(rows, 1, list(PROMPTS))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw docs/showcase.webp and write docs/showcase.md.")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--model", default="icons")
    args = parser.parse_args()
    folder, model = make_folder(args.out), load(args.model)
    assert isinstance(model, UnCLIP), "the showcase is an unCLIP's"
    save_lossy([draw(model)], folder / "showcase.webp", limit=SHEET_BYTES)
    write_text(folder / "showcase.md", page(f"`{model.name}`, version {model.source.version}"))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
