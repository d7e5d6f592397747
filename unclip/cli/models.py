"""`unclip models`: which bundles there are, and what one holds."""

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from unclip.weights.store import Manifest

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
AS_JSON = typer.Option(False, "--json", help="Print one JSON object.")


@app.callback()
def models() -> None:
    """List the models there are and look into one."""


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


def _summary(manifest: "Manifest") -> dict[str, Any]:
    parts = {name: {"kind": p.kind, "parameters": p.parameters, "bytes": p.size} for name, p in manifest.parts.items()}
    return {"name": manifest.name, "version": manifest.version, "bytes": manifest.size, "parts": parts}


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
