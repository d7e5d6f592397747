"""`unclip evaluate`: a model judged by a CLIP that was trained apart."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from unclip.evaluate.painters import Painter
    from unclip.request import Options

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def evaluate(
    bundle: str = typer.Argument(help="A shipped model's name, or the folder of a bundle."),
    overrides: list[str] = typer.Argument(None, help="How it samples, where not as it was saved, as steps=12 guidance=3."),
    suite: str = typer.Option("icons", "--suite", help="What is asked: icons."),
    samples: int = typer.Option(500, "--samples", min=1, help="Prompts a split."),
    splits: str = typer.Option("", "--splits", help="Only these, with commas: train,pair,thing,scenes,scenes-held-out."),
    data: Path = typer.Option(Path("data/icons"), "--data", help="The prepared icons set."),
    judge: str | None = typer.Option(None, "--judge", help="The judge's bundle, by default the shipped one."),
    seed: int = typer.Option(0, "--seed", help="Of the prompts and of the pictures."),
    size: int | None = typer.Option(None, "--size", help="Side of the pictures, px; by default the judge's or more."),
    true_z: bool = typer.Option(False, "--true-z", help="Give the decoder the real render's z: it alone is judged."),
    batch: int = typer.Option(32, "--batch", min=1, help="Prompts painted at a time."),
    resamples: int = typer.Option(1000, "--resamples", min=1, help="Of the bootstrap behind the 95 % intervals."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Write report.json and a sheet for each split here."),
    log: Path | None = typer.Option(None, "--log", help="Append the scores to this JSONL; needs --images-seen."),
    images_seen: int | None = typer.Option(None, "--images-seen", min=0, help="How far training was, for --log."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Retrieval, counterfactual choice and distances of a model's pictures, beside what real renders score.

    Example: unclip evaluate icons --suite icons --samples 500 --data data/icons --judge runs/judge/bundle --json
    """
    from unclip.cli.console import note, print_json, progress
    from unclip.config import apply_overrides
    from unclip.errors import RequestError
    from unclip.evaluate import report, run
    from unclip.evaluate.curve import append_point
    from unclip.evaluate.judge import load_judge
    from unclip.evaluate.suite import SPLITS
    from unclip.images import make_folder
    from unclip.request import Options

    if suite != "icons":
        raise RequestError(f"there is no suite {suite!r}: the only one is icons")
    if (log is None) != (images_seen is None):
        raise RequestError("--log and --images-seen go together: give both or neither")
    if out is not None:
        make_folder(out)
    options = Options.parse(apply_overrides({}, overrides or []), where="options")
    asked = tuple(splits.split(",")) if splits else SPLITS
    settings = run.Settings(samples=samples, splits=asked, seed=seed, batch=batch, resamples=resamples)
    name = ", ".join([bundle, *(["given the true z"] if true_z else []), *(overrides or [])])
    judged_by = load_judge(judge, judged=bundle, device=device)
    with progress() as bars:
        task = bars.add_task("painting", total=None)
        result = run.evaluate(
            name,
            lambda: painter(bundle, size, judged_by.size, device, true_z=true_z, options=options),
            judged_by,
            data,
            settings,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if out is not None:
        for path in report.write(out, result.report, result.items, result.pictures, result.read_as):
            note(f"wrote {path}")
    if log is not None and images_seen is not None:
        append_point(log, result.report, images_seen)
    (print_json if as_json else _show)(result.report)


def painter(bundle: str, size: int | None, seen_at: int, device: str, *, true_z: bool, options: "Options") -> "Painter":
    """The model in `bundle`, as evaluations ask it, at `size` px or one that fits a judge that looks at `seen_at` px."""
    from unclip.errors import RequestError
    from unclip.evaluate.painters import from_prompts, from_true_z
    from unclip.pipeline import UnCLIP, load
    from unclip.rerank import draft_size

    model = load(bundle, device=device)
    if not isinstance(model, UnCLIP):
        raise RequestError(f"{bundle} is a GLIDE: the suite asks an unCLIP, with a CLIP and a prior")
    if size is None:
        size = draft_size(model.sizes, seen_at)
    return (from_true_z if true_z else from_prompts)(model, size, options)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console

    from unclip.evaluate.report import tables

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for table in tables(report):
        console.print(table)
