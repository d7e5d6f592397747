"""`unclip search`: an index of pictures and videos by CLIP's embeddings, and what is asked of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from unclip.cli.search_query import query

if TYPE_CHECKING:
    from unclip.search.build import Report

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
AS_JSON = typer.Option(False, "--json", help="Print one JSON object.")
NAMED = 20  # broken files that are named one by one


@app.callback()
def search() -> None:
    """Find pictures, and the moments of videos, by what CLIP sees in them.

    Example: unclip search index photos films -o photos.index
    """


@app.command()
def index(
    sources: list[str] = typer.Argument(None, help="Folders, pictures, videos, webdataset tars; as before without any."),
    out: Path = typer.Option(..., "--out", "-o", help="The index, a folder; one that is there is brought up to date."),
    clip: str = typer.Option("icons", "--clip", help="A shipped model's name, a bundle, a hub repository or a file."),
    every: float = typer.Option(
        None, "--every", min=0, help="Seconds between the frames of a video; 0, as at first, for its key frames."
    ),
    again: bool = typer.Option(False, "--again", help="Embed everything anew."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    int8: bool = typer.Option(
        None,
        "--int8/--no-int8",
        help="Multiply bytes: on CPUs that can, 1.5 times as fast, a little off; else as before.",
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Embed pictures and videos, and print the path of the index. The same command goes on where it was stopped.

    Example: unclip search index photos films -o photos.index
    """
    import time

    from unclip.cli.console import note, print_json, progress
    from unclip.clip import load_clip
    from unclip.errors import ConfigError
    from unclip.search.build import build
    from unclip.search.layout import read_manifest
    from unclip.search.sources import list_sources

    manifest = read_manifest(out) if out.is_dir() and not (again and sources) else None
    if not sources:
        if manifest is None:
            raise ConfigError(f"nothing to index: name folders or files, since {out} is no index that knows its own")
        sources = list(manifest.sources)
    listing = list_sources(sources)
    network = load_clip(clip, device=device)
    if int8 or (int8 is None and manifest is not None and manifest.options.get("int8")):
        network.use_int8()
    began = time.perf_counter()
    with progress() as bars:
        task = bars.add_task("indexing")

        def show(done: int, total: int) -> None:
            speed = bars.tasks[0].speed
            told = "indexing" if speed is None else f"indexing, {speed:,.0f} a second"
            bars.update(task, completed=done, total=total, description=told)

        report = build(listing, out, network, every=every, again=again, progress=show)
    for name, reason in list(report.faults.items())[:NAMED]:
        note(f"broken: {name}: {reason}")
    if len(report.faults) > NAMED:
        note(f"broken: {len(report.faults) - NAMED} more, all of them with --json")
    note(_summary(report, time.perf_counter() - began))
    if as_json:
        print_json({"index": str(out), **vars(report)})
    else:
        print(out)


app.command()(query)


@app.command()
def twins(
    index: Path = typer.Argument(help="An index."),
    above: float = typer.Option(0.97, "--above", min=-1, max=1, help="The cosine from which two are near-duplicates."),
    as_json: bool = AS_JSON,
) -> None:
    """Print the groups of near-duplicates in an index, the cosine of each to the first of its group beside it.

    Example: unclip search twins photos.index --above 0.97
    """
    from unclip.cli.console import note, print_json, progress
    from unclip.search.layout import Index
    from unclip.search.twins import Twin, find_twins

    opened = Index(index)
    with progress() as bars:
        task = bars.add_task("comparing")
        groups = find_twins(opened, above, progress=lambda done, total: bars.update(task, completed=done, total=total))

    def told(twin: Twin) -> dict[str, Any]:
        return {"path": twin.row["image_path"], "time": twin.row.get("time"), "cosine": round(twin.cosine, 4)}

    if as_json:
        print_json({"index": str(index), "above": above, "groups": [[told(twin) for twin in group] for group in groups]})
    else:
        print("\n\n".join("\n".join(_line(**told(twin)) for twin in group) for group in groups), end="\n" if groups else "")
    note(f"{len(groups):,} groups of near-duplicates among {len(opened):,} rows")


@app.command()
def compress(
    index: Path = typer.Argument(help="An index."),
    among: Literal["image", "text"] = typer.Option("image", "--among", help="The embeddings of pictures, or of captions."),
    as_json: bool = AS_JSON,
) -> None:
    """Prepare an index past a million rows for approximate search, and print what share of the nearest that finds.

    Do so again after the index has been brought up to date, which drops it.

    Example: unclip search compress photos.index
    """
    from unclip.cli.console import print_json, progress
    from unclip.search import approximate
    from unclip.search.layout import Index

    with progress() as bars:
        task = bars.add_task("compressing")
        about = approximate.compress(
            Index(index), among=among, progress=lambda done, total: bars.update(task, completed=done, total=total)
        )
    if as_json:
        print_json({"index": str(index), "among": among, **about.model_dump(exclude={"format", "digest"})})
    else:
        print(
            f"{100 * about.recall:.1f} % of the {approximate.NEIGHBOURS} nearest, in {about.probes} of {about.cells:,} cells"
        )


def _summary(report: "Report", seconds: float) -> str:
    embedded = report.added + report.changed
    counts = {"new": report.added, "changed": report.changed, "deleted": report.deleted, "kept": report.kept}
    counts |= {"broken": len(report.faults), "passed over": report.passed_over}
    told = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    speed = f", {embedded / seconds:,.0f} a second" if embedded else ""
    return f"{report.rows:,} rows: {told} in {seconds:.1f} s{speed}"


def _line(path: str | None, time: float | None, cosine: float) -> str:
    from unclip.search.video import clock

    moment = "" if time is None else f" {clock(time)}"
    return f"{cosine:.4f}  {path or '(no path)'}{moment}"
