"""`unclip models`: which models there are and what one holds; fetching, checking and converting them; bundles of runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from unclip.weights.store import Manifest

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
MODEL = typer.Argument(help="A shipped model's name, a folder, or a repository of the hub.")
AS_JSON = typer.Option(False, "--json", help="Print one JSON object.")


@app.callback()
def models() -> None:
    """List the models there are, look into one, fetch, convert or make one."""


@app.command("list")
def list_models(as_json: bool = AS_JSON) -> None:
    """The models that come with the package, and published ones that load by name.

    Example: unclip models list
    """
    from unclip.cli.console import columns, print_json
    from unclip.weights.opening import PUBLISHED, cached
    from unclip.weights.store import read_manifest, shipped_bundles, shipped_folder

    shipped = [read_manifest(shipped_folder() / name) for name in shipped_bundles()]
    published = [{"name": name, "what": what, "cached": cached(name)} for name, what in PUBLISHED.items()]
    if as_json:
        print_json({"models": [_summary(manifest) for manifest in shipped], "published": published})
        return
    rows = [(m.name, _megabytes(m.size), "in the package", ", ".join(m.parts)) for m in shipped]
    rows += [(str(m["name"]), "", "in the cache" if m["cached"] else "to fetch", str(m["what"])) for m in published]
    print(columns([("model", "size", "where", "what"), *rows]))


@app.command()
def show(
    model: str = MODEL,
    phrase: list[str] = typer.Argument(None, help="A word or phrase: what the model reads in it."),
    words: bool = typer.Option(False, "--words", help="All that the model knows, and what it reads as it."),
    as_json: bool = AS_JSON,
) -> None:
    """What a model holds: its parts, their sizes, where it comes from, what it knows. No weights are read.

    Example: unclip models show icons --words kitty
    """
    from unclip.cli.console import columns, print_json
    from unclip.shelf import count_parameters
    from unclip.weights.opening import open_model
    from unclip.words import told

    source = open_model(model)
    known = told.words_of(source)
    if words or phrase:
        answer = told.look_up(source.name, known, " ".join(phrase)) if phrase else told.listing(source.name, known)
        print_json(answer.record) if as_json else print("\n".join(answer.lines))
        return
    parts: dict[str, dict[str, Any]] = {
        name: {"kind": part.kind, "parameters": count_parameters(part), "from": part.where}
        for name, part in source.networks.items()
    }
    if as_json:
        about = {"name": source.name, "version": source.version, "folder": source.where, "parts": parts}
        print_json(about | {"provenance": source.provenance} | ({"words": told.summary(known)} if known else {}))
        return
    print(f"{source.name} {source.version}, {source.where}")
    rows = [(name, p["kind"], f"{p['parameters']:,}", _megabytes(2 * p["parameters"])) for name, p in parts.items()]
    print(columns([("part", "kind", "parameters", "in bf16"), *rows]))
    for key, value in source.provenance.items():
        trained = isinstance(value, dict) and {"steps", "images"} <= value.keys()
        print(f"{key}: {value['steps']:,} steps, {value['images']:,} images" if trained else f"{key}: {value}")
    if known:
        print("\n".join(told.summary_lines(source.name, known)))


@app.command()
def verify(model: str = MODEL) -> None:
    """Read all of a model: a bundle's checksums, or that every tensor of a published one is there and has its shape.

    Example: unclip models verify kakaobrain/karlo-v1-alpha
    """
    from pathlib import Path as Folder

    from unclip.cli.console import note
    from unclip.shelf import read_whole
    from unclip.weights.opening import open_model
    from unclip.weights.store import MANIFEST, verify_bundle

    source = open_model(model)
    if (Folder(source.where) / MANIFEST).is_file():
        verify_bundle(source.where)
        note("every file is as it was saved")
    for name in source.networks:
        note(f"{name}: {read_whole(source, name):,} parameters, each in its place")


@app.command()
def pull(model: str = typer.Argument(help="A repository of the hub, org/name or org/name@revision.")) -> None:
    """Fetch a published model into the Hugging Face cache, and print its folder.

    Example: unclip models pull kakaobrain/karlo-v1-alpha
    """
    from unclip.weights import opening

    print(opening.pull(model))


@app.command()
def convert(
    model: str = typer.Argument(help="A model as `--model` takes it, or a file of a published one."),
    out: Path = typer.Argument(help="The folder to write; a bundle that stands there is replaced."),
    to: str = typer.Option("bundle", "--to", help="bundle, or diffusers where that layout has a place for it."),
    dtype: str = typer.Option("as-is", "--dtype", help="Of a bundle's weights: as-is, bf16, fp16 or fp32."),
    tokenizer: Path = typer.Option(None, "--tokenizer", help="A folder or file with the vocabulary, where a file has none."),
    act: str = typer.Option(None, "--act", help="gelu or quick_gelu, of a CLIP's state dict, which does not say it."),
    name: str = typer.Option(None, "--name", help="The bundle's name; the folder's if not given."),
) -> None:
    """Write a published model as a bundle of ours, or one of ours in the diffusers layout.

    Example: unclip models convert kakaobrain/karlo-v1-alpha karlo --dtype bf16
    """
    from unclip.errors import RequestError
    from unclip.weights import export, opening, source

    types = source.types()
    if dtype not in types or to not in ("bundle", "diffusers"):
        raise RequestError(f"--to {to} --dtype {dtype}: expected bundle or diffusers, and one of {', '.join(types)}")
    if act not in (None, "gelu", "quick_gelu"):
        raise RequestError(f"--act {act}: expected gelu or quick_gelu")
    one_file = Path(model).is_file()
    if not one_file and (tokenizer, act) != (None, None):
        raise RequestError(f"--tokenizer and --act are for a file: {model} says both itself")
    opened = opening.open_file(model, tokenizer, act) if one_file else opening.open_model(model)
    if to == "diffusers":
        print(export.save_pipeline(opened, out))
    else:
        print(source.save(opened, out, name=name or out.resolve().name, dtype=types[dtype]))


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
    base: Path | None = typer.Option(None, "--base", help="A bundle that gives what there is no run for, and its words."),
    words: Path | None = typer.Option(None, "--words", help="What the model knows, from `unclip data words`."),
    card: Path | None = typer.Option(None, "--card", help="The model card, a Markdown file; a name alone if not given."),
    name: str = typer.Option(None, "--name", help="The model's name; the folder's if not given."),
    version: str = typer.Option("1", "--version", help="The model's version."),
) -> None:
    """Make a bundle of the averaged weights of finished or unfinished runs.

    Example: unclip models pack icons --run runs/clip --run runs/prior --run runs/decoder --card card.md
    """
    from unclip.train import bundle
    from unclip.weights.store import read_manifest

    name = name or out.resolve().name
    text = f"# {name}\n" if card is None else _text_of(card, "model card")
    known = None if words is None else _text_of(words, "words")
    bundle.pack(runs, out, name=name, version=version, card=text, base=base, words=known)
    manifest = read_manifest(out)
    print(f"{manifest.name} {manifest.version}, {_megabytes(manifest.size)}, {', '.join(manifest.parts)}, in {out}")


@app.command("words")
def put_words(
    bundle: Path = typer.Argument(help="The folder of a bundle."),
    words: Path = typer.Argument(help="What its model knows, from `unclip data words`."),
) -> None:
    """Put words into a bundle that is there, in place of those that it had; nothing else of it changes.

    Example: unclip models words runs/icons data/words.json
    """
    from unclip.weights.store import put_words
    from unclip.words import Words

    text = _text_of(words, "words")
    known = Words.of(text, where=str(words))
    put_words(bundle, text)
    print(f"{known.count()['things']:,} things, {known.count()['other_words']:,} other words, in {bundle}")


def _text_of(path: Path, what: str) -> str:
    from unclip.errors import RequestError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the {what} {path}: {error}") from None


def _summary(manifest: "Manifest") -> dict[str, Any]:
    parts = {name: {"kind": p.kind, "parameters": p.parameters, "bytes": p.size} for name, p in manifest.parts.items()}
    return {"name": manifest.name, "version": manifest.version, "bytes": manifest.size, "parts": parts}


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
