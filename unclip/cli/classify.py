"""`unclip classify`: labels that CLIP was never taught."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from unclip.classify import Classifier
    from unclip.search.sources import Listing

app = typer.Typer(add_completion=False, rich_markup_mode=None)
BATCH = 128


@app.command()
def classify(
    sources: list[str] = typer.Argument(help="Pictures, folders of them, webdataset tars."),
    labels: str = typer.Option("", "--labels", help="What to choose among, with commas."),
    labels_file: Path = typer.Option(None, "--labels-file", help="More of them, one a line."),
    template: list[str] = typer.Option(None, "--template", help="A sentence with {} for the label; may be repeated."),
    top: int = typer.Option(1, "--top", min=1, help="So many labels a picture."),
    clip: str = typer.Option("icons", "--clip", help="A shipped model's name, a bundle, a hub repository or a file."),
    out: Path = typer.Option(None, "--csv", help="Write the answers here, a line a picture and label."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say of each picture which label fits it best, and how surely among those given.

    Example: unclip classify photos --labels cat,dog,tree --template "a photo of a {}" --top 2
    """
    from unclip import files
    from unclip.classify import TEMPLATES, Classifier
    from unclip.cli.console import note, print_json, progress
    from unclip.cli.generate import read_prompts
    from unclip.clip import load_clip
    from unclip.errors import DataError, RequestError
    from unclip.search.sources import first_of, list_sources

    named = [*filter(None, map(str.strip, labels.split(","))), *(read_prompts(labels_file) if labels_file else [])]
    listing = list_sources(sources)
    classifier = Classifier(load_clip(clip, device=device), named, template or TEMPLATES)
    answers: list[dict[str, Any]] = []
    with progress() as bars:
        for path, best in bars.track(_answers(listing, classifier, top), total=len(listing.entries), description="looking"):
            answers.append({"path": path, "labels": [{"label": label, "probability": round(p, 4)} for label, p in best]})
    if listing.faults:
        note(f"not looked at: {first_of(listing.faults)}")
    if not answers:
        raise DataError(f"none of the {len(listing.entries)} files is a picture that can be read")
    if out is not None:
        try:
            files.write_text(out, _table(answers))
        except OSError as error:
            raise RequestError(f"cannot write {out}: {error.strerror or error}") from None
    if as_json:
        print_json({"clip": classifier.clip.name, "answers": answers, "faults": listing.faults})
    else:
        print("\n".join(f"{answer['path']}\t{_told(answer)}" for answer in answers))


def _answers(listing: "Listing", classifier: "Classifier", top: int) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Each picture that can be read, with its best labels; what cannot be joins the listing's faults."""
    import numpy as np

    from unclip.data.faults import Broken
    from unclip.data.pictures import square
    from unclip.images import from_pixels

    def answered(waiting: list[tuple[str, Any]]) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        z = classifier.clip.pixels(from_pixels(np.stack([pixels for _, pixels in waiting])))
        yield from zip((path for path, _ in waiting), classifier.best(z, top), strict=True)

    waiting: list[tuple[str, Any]] = []
    for entry in listing.entries:
        try:
            if entry.kind == "video":
                raise Broken(entry.path, "a video: index it, and ask the index")
            size = classifier.clip.size
            pixels, _ = square(entry.content.read(), size, name=entry.path, crop="center", seed=0, position=0)
            waiting.append((entry.path, pixels))
        except Broken as broken:
            name, reason = broken.args
            listing.faults[name] = reason
        except OSError as error:
            listing.faults[entry.path] = error.strerror or str(error)
        if len(waiting) == BATCH:
            yield from answered(waiting)
            waiting = []
    if waiting:
        yield from answered(waiting)


def _told(answer: dict[str, Any]) -> str:
    return ", ".join(f"{one['label']} {one['probability']:.2f}" for one in answer["labels"])


def _table(answers: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "rank", "label", "probability"])
    for answer in answers:
        for rank, one in enumerate(answer["labels"], 1):
            writer.writerow([answer["path"], rank, one["label"], one["probability"]])
    return text.getvalue()
