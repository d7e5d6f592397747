"""`unclip data`: make the icons set, look at captioned pictures before training on them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unclip.cli import pool

if TYPE_CHECKING:
    from unclip.data.source import Source

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
AS_JSON = typer.Option(False, "--json", help="Print one JSON object.")
app.command()(pool.pool)
app.command()(pool.embed)
BAR = 30  # characters of a histogram's longest bar


@app.callback()
def data() -> None:
    """Prepare pictures with captions and inspect them."""


@app.command()
def icons(
    out: Path = typer.Option(..., "--out", help="The folder to make it in; 1.6 GB."),
    packages: Path | None = typer.Option(None, "--packages", help="A folder of npm tarballs already fetched."),
    as_json: bool = AS_JSON,
) -> None:
    """Make the icons set: 4,700 drawings of 1,200 things in four styles. Running it again checks that it is there.

    Example: unclip data icons --out data/icons
    """
    from unclip.cli.console import note, print_json, progress
    from unclip.data.icons import prepare

    with progress() as bars:
        task = bars.add_task("drawing", total=None)
        header = prepare(out, packages=packages, progress=lambda done, total: bars.update(task, completed=done, total=total))
    for key, reason in header["failed"].items():
        note(f"left blank: {key} ({reason})")
    if as_json:
        print_json({"folder": str(out), **header})
    else:
        print(f"{header['kept']:,} drawings of {header['things']:,} things in {out}")


@app.command()
def words(
    path: Path = typer.Argument(help="An icons set."),
    out: Path = typer.Option(..., "--out", help="The words.json to write, for `unclip models pack --words`."),
    packages: Path | None = typer.Option(None, "--packages", help="A folder of npm tarballs already fetched."),
) -> None:
    """List what a model knows that is trained on an icons set, and what else people call it, by WordNet and emojilib.

    Example: unclip data words data/icons --out data/words.json
    """
    from unclip.data.icons.drawings import Drawings
    from unclip.data.icons.vocabulary import make_words, to_json
    from unclip.errors import DataError
    from unclip.files import write_text

    made = make_words(Drawings(path).listing, packages=packages)
    try:
        write_text(out, to_json(made))
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from None
    print(f"{len(made['things']):,} things and what is read as them in {out}")


@app.command()
def inspect(
    path: Path = typer.Argument(help="A folder of captioned pictures, webdataset tars, or an icons set."),
    out: Path | None = typer.Option(None, "--out", help="Write a contact sheet with captions to this PNG."),
    n: int = typer.Option(48, "-n", "--n", min=1, help="Pictures on the sheet."),
    seed: int = typer.Option(0, "--seed", help="Of the order in which samples are read."),
    size: int = typer.Option(128, "--size", min=8, help="Side of a picture on the sheet, pixels."),
    scenes: float = typer.Option(0.5, "--scenes", min=0, max=1, help="Share of composed scenes, of an icons set."),
    as_json: bool = AS_JSON,
) -> None:
    """What a data set holds: histograms of captions and sizes, broken samples by name, a contact sheet.

    Example: unclip data inspect photos --out sheet.png
    """
    from unclip.cli.console import print_json
    from unclip.data.inspect import MOST_READ, contact_sheet, draw_samples, report
    from unclip.images import save_png

    source = _open(path, seed, scenes)
    samples = draw_samples(source, max(n, min(len(source), MOST_READ)), size)
    if out is not None:
        save_png(contact_sheet(samples[:n]), out)
    figures = {"path": str(path), **report(source, samples), "sheet": None if out is None else str(out)}
    if as_json:
        print_json(figures)
    else:
        print("\n".join(_lines(figures)))


def _open(path: Path, seed: int, scenes: float) -> "Source":
    from unclip.data.icons import IconStream
    from unclip.data.opening import open_source

    source = open_source(path, seed)
    return IconStream(source.drawings, seed, scenes=scenes) if isinstance(source, IconStream) else source


def _lines(figures: dict[str, Any], indent: str = "") -> Iterator[str]:
    """The figures for people: counts as bars, the rest as `name: value`."""
    for name, value in figures.items():
        label = f"{indent}{name.replace('_', ' ')}"
        if not isinstance(value, dict):
            if value is not None:
                yield f"{label}: {value}"
        elif value and all(isinstance(count, int) for count in value.values()) and "limit" not in value:
            yield f"{label}:"
            yield from _bars(value, indent + "  ")
        elif value:
            yield f"{label}:"
            yield from _lines(value, indent + "  ")


def _bars(counts: dict[str, int], indent: str) -> Iterator[str]:
    width, most = max(map(len, counts)), max(counts.values())
    for name, count in counts.items():
        bar = "█" * max(1, round(BAR * count / most)) if count else ""
        yield f"{indent}{name.ljust(width)}  {count:>7,}  {bar}".rstrip()
