"""`unclip models`: which bundles there are, what one holds, how large networks are; and making a bundle of runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from unclip.weights.store import Manifest

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
AS_JSON = typer.Option(False, "--json", help="Print one JSON object.")


@app.callback()
def models() -> None:
    """List the models there are, look into one, make one."""


@app.command("list")
def list_models(as_json: bool = AS_JSON) -> None:
    """The models that come with the package: name, version, size, parts.

    Example: unclip models list
    """
    from unclip.cli.console import columns, print_json
    from unclip.weights.store import read_manifest, shipped_bundles, shipped_folder

    manifests = [read_manifest(shipped_folder() / name) for name in shipped_bundles()]
    if as_json:
        print_json({"models": [_summary(manifest) for manifest in manifests]})
    elif manifests:
        rows = [(m.name, m.version, _megabytes(m.size), ", ".join(m.parts)) for m in manifests]
        print(columns([("name", "version", "size", "parts"), *rows]))


@app.command()
def show(
    model: str = typer.Argument(help="A shipped model's name, or the folder of a bundle."),
    verify: bool = typer.Option(False, "--verify", help="Read every byte and compare the checksums."),
    as_json: bool = AS_JSON,
) -> None:
    """What a model holds: its parts, their sizes, where it comes from.

    Example: unclip models show icons --verify
    """
    from unclip.cli.console import columns, note, print_json
    from unclip.weights.store import find_bundle, read_manifest, verify_bundle

    folder = find_bundle(model)
    manifest = read_manifest(folder)
    if verify:
        verify_bundle(folder)
        note("every file is as it was saved")
    if as_json:
        print_json(_summary(manifest) | {"folder": str(folder), "provenance": manifest.provenance})
        return
    print(f"{manifest.name} {manifest.version}, {_megabytes(manifest.size)}, {folder}")
    rows = [(name, part.kind, f"{part.parameters:,}", _megabytes(part.size)) for name, part in manifest.parts.items()]
    print(columns([("part", "kind", "parameters", "size"), *rows]))
    for key, value in manifest.provenance.items():
        print(f"{key}: {value}")


@app.command()
def sizes(as_json: bool = AS_JSON) -> None:
    """How many parameters each network has at each size, beside the paper's own.

    Example: unclip models sizes
    """
    from unclip.cli.console import columns, print_json
    from unclip.models.sizes import EXPLAINED, SIZES, table

    rows = table()
    if as_json:
        print_json({"sizes": [row._asdict() | {"deviation": row.deviation} for row in rows]})
        return
    lines: list[tuple[str, ...]] = [("part", *SIZES, "in the paper", "")]
    for row in rows:
        counts = (f"{row.parameters[size]:,}" if size in row.parameters else "-" for size in SIZES)
        beside = ("-", "") if row.paper is None else (f"{row.paper:,.0f}", f"{row.deviation:+.0%}")
        lines.append((row.part, *counts, *beside))
    print(columns(lines))
    for part, reason in EXPLAINED.items():
        print(f"{part}: {reason}")


@app.command()
def pack(
    out: Path = typer.Argument(help="The bundle's folder; a bundle that stands there is replaced."),
    runs: list[Path] = typer.Option(..., "--run", help="A training run; give one for each part, a CLIP's among them."),
    card: Path | None = typer.Option(None, "--card", help="The model card, a Markdown file; a name alone if not given."),
    name: str = typer.Option(None, "--name", help="The model's name; the folder's if not given."),
    version: str = typer.Option("1", "--version", help="The model's version."),
) -> None:
    """Make a bundle of the averaged weights of finished or unfinished runs.

    Example: unclip models pack icons --run runs/clip --run runs/prior --run runs/decoder --card card.md
    """
    from unclip.errors import RequestError
    from unclip.train import bundle
    from unclip.weights.store import read_manifest

    name = name or out.resolve().name
    try:
        text = f"# {name}\n" if card is None else card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the model card {card}: {error}") from None
    bundle.pack(runs, out, name=name, version=version, card=text)
    manifest = read_manifest(out)
    print(f"{manifest.name} {manifest.version}, {_megabytes(manifest.size)}, {', '.join(manifest.parts)}, in {out}")


def _summary(manifest: "Manifest") -> dict[str, Any]:
    parts = {name: {"kind": p.kind, "parameters": p.parameters, "bytes": p.size} for name, p in manifest.parts.items()}
    return {"name": manifest.name, "version": manifest.version, "bytes": manifest.size, "parts": parts}


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
