"""`unclip map`: what CLIP makes of pictures and captions, as a plane and as figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from unclip.clip import Clip
    from unclip.maps.clouds import Cloud
    from unclip.maps.gap import Gap
    from unclip.maps.plane import Plane
    from unclip.maps.rows import Rows
    from unclip.pipeline import UnCLIP

Method = Literal["pca", "gap", "umap"]
Fit = Literal["all", "pictures", "captions", "prior"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def map(
    sources: list[str] = typer.Argument(help="Indices, pools, folders, webdataset tars, pictures."),
    out: Path = typer.Option(None, "--out", "-o", help="Write the map here, as a PNG."),
    html: Path = typer.Option(None, "--html", help="Write it here, as a page to point at; below 10 MB."),
    model: str = typer.Option(
        None, "--model", "-m", help="A model: its CLIP looks, its prior's z for captions are mapped too."
    ),
    clip: str = typer.Option(
        None, "--clip", help="A CLIP alone, in a model's place: name, bundle, repository or file; icons."
    ),
    method: Method = typer.Option(
        "pca", "--method", help="Two principal components; from pictures to captions; umap, an extra."
    ),
    fit: Fit = typer.Option("all", "--fit", help="Whose plane: that of all points, or of one cloud."),
    most: int = typer.Option(4000, "--most", min=3, help="Pictures; of more, so many are taken by lot."),
    seed: int = typer.Option(0, "--seed", "-s", help="Of what is left to chance: which pictures, the prior's noise."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Map pictures and captions by CLIP's embeddings, and print how far apart they lie, before the prior and after.

    Example: unclip map data/valid-64 --model icons -o map.png --html map.html
    """
    from unclip.cli.console import note, print_json
    from unclip.clip import load_clip
    from unclip.errors import ConfigError
    from unclip.maps.clouds import clouds_of
    from unclip.maps.plane import lay
    from unclip.search.sources import first_of

    if model is not None and clip is not None:
        raise ConfigError("--model and --clip: give one, since a prior speaks of its own CLIP")
    _check_ready(method, out, html)
    painter = None if model is None else _with_prior(model, device)
    eyes = load_clip(clip or "icons", device=device) if painter is None else painter.eyes()
    rows = _gather(sources, eyes, most, seed, thumbnails=html is not None)
    if rows.faults:
        note(f"not looked at: {first_of(rows.faults)}")
    prior = None if painter is None else _predict(painter, rows.captions, seed)
    clouds = clouds_of(rows, prior)
    gaps = _gaps(rows, prior, seed)
    written = {"map": out, "page": html}
    if out is not None or html is not None:
        plane = lay(clouds, method, fit=fit, seed=seed)
        title = f"{len(rows):,} pictures by the CLIP of {eyes.name}"
        asked = {"method": method, "fit": fit, "most": most, "seed": seed, ("clip" if model is None else "model"): eyes.name}
        if out is not None:
            _write_map(out, clouds, plane, title, asked, sources)
        if html is not None:
            _write_page(html, rows, clouds, plane, title, _summary(gaps))
    if as_json:
        told = {name: gap.rounded() for name, gap in gaps.items()}
        paths = {name: None if path is None else str(path) for name, path in written.items()}
        print_json({**paths, "clip": eyes.name, "rows": len(rows), "gaps": told, "faults": rows.faults})
    else:
        print("\n".join([*_table(gaps), *(str(path) for path in written.values() if path is not None)]))


def _check_ready(method: Method, out: Path | None, html: Path | None) -> None:
    """Before minutes of work: that what draws is installed, and that there is a place to write to."""
    from unclip.images import make_folder
    from unclip.maps.chart import load_matplotlib
    from unclip.maps.plane import load_umap

    if method == "umap":
        load_umap()
    if out is not None:
        load_matplotlib()
    for path in (out, html):
        if path is not None:
            make_folder(path.parent)


def _with_prior(model: str, device: str) -> "UnCLIP":
    """The model, one part in memory at a time, since only two are wanted."""
    from unclip.errors import RequestError
    from unclip.pipeline import UnCLIP, load

    painter = load(model, device=device, offload=True)
    if not isinstance(painter, UnCLIP) or painter.prior is None:
        raise RequestError(f"{painter.name} has no prior: give its CLIP alone, with --clip {model}")
    return painter


def _gather(sources: list[str], eyes: "Clip", most: int, seed: int, *, thumbnails: bool) -> "Rows":
    from unclip.cli.console import progress
    from unclip.maps.rows import gather

    with progress() as bars:
        task = bars.add_task("looking", total=None)
        show = lambda done, total: bars.update(task, completed=done, total=total)  # noqa: E731
        return gather(sources, eyes, most=most, seed=seed, thumbnails=thumbnails, progress=show)


def _predict(painter: "UnCLIP", captions: list[str], seed: int) -> "Tensor":
    from unclip.cli.console import progress
    from unclip.maps.clouds import predict

    with progress() as bars:
        task = bars.add_task("prior", total=None)
        show = lambda done, total: bars.update(task, completed=done, total=total)  # noqa: E731
        return predict(painter, captions, seed=seed, progress=show)


def _gaps(rows: "Rows", prior: "Tensor | None", seed: int) -> "dict[str, Gap]":
    """By what lies over against the pictures; nothing where there are too few captions."""
    from unclip.maps.gap import FEWEST, first_of_each, measure

    first = first_of_each(rows.captions)
    over = {"captions": rows.text} | ({} if prior is None else {"prior": prior})
    enough = len(first) >= FEWEST
    return {name: measure(points[first], rows.z[first], seed=seed) for name, points in over.items()} if enough else {}


def _table(gaps: "dict[str, Gap]") -> list[str]:
    from unclip.cli.console import columns
    from unclip.maps.chart import LABELS

    if not gaps:
        return ["too few captions to measure a gap"]
    figures = {"distance of the means": "distance", "told apart by a plane": "separable", "cosine of true pairs": "cosine"}
    rows = [("over against the pictures", *(LABELS[name] for name in gaps))]
    for title, name in figures.items():
        told = [getattr(gap, name) for gap in gaps.values()]
        rows.append((title, *(f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" for figure in told)))
        by_chance = [getattr(gap, f"{name}_chance", 0.5) for gap in gaps.values()]
        rows.append(("  by chance", *(f"{chance:.3f}" for chance in by_chance)))
    return [f"{next(iter(gaps.values())).n:,} captions; in brackets the 95 % interval", columns(rows)]


def _summary(gaps: "dict[str, Gap]") -> str:
    """The page's one line."""
    from unclip.maps.chart import LABELS

    told = [f"{LABELS[name]} {gap.distance.value:.2f} and {gap.cosine.value:.2f}" for name, gap in gaps.items()]
    heading = "Distance of the means and cosine of true pairs, to the pictures"
    return f"{heading}: {'; '.join(told)}." if told else "Pictures, too few of them with captions to measure a gap."


def _write_map(
    out: Path, clouds: "list[Cloud]", plane: "Plane", title: str, asked: dict[str, Any], sources: list[str]
) -> None:
    from unclip.images import save_png
    from unclip.maps.chart import draw

    settings = {"task": "map", **asked, "parents": [{"file": source} for source in sources]}
    save_png(draw(clouds, plane, title=title), out, settings)


def _write_page(html: Path, rows: "Rows", clouds: "list[Cloud]", plane: "Plane", title: str, note: str) -> None:
    from unclip.errors import RequestError
    from unclip.maps.page import write_page

    try:
        write_page(html, rows, clouds, plane, title=title, note=note)
    except OSError as error:
        raise RequestError(f"cannot write {html}: {error.strerror or error}") from None
