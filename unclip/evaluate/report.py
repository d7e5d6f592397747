"""An evaluation as people read it: tables on a terminal, a contact sheet with verdicts, report.json beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table

from unclip import files
from unclip.errors import RequestError
from unclip.evaluate.metrics import COVER, SPHERE
from unclip.evaluate.suite import Item
from unclip.images import grid, make_folder, save_png

SHOWN, COLUMNS, SIDE = 64, 8, 160  # pictures on a sheet, per row, px
TITLES = {"top1": "right of 100", "top5": "in best 5", "choice": "right of its kind", "cosine": "cosine to its render"}
DISTANCES = {
    "frechet": "Fréchet",
    "mmd": "1000 MMD²",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
NOTES = {
    "intervals": "95 %, bootstrap over prompts; Fréchet and MMD: the resamples' spread about their own mean",
    "real": "the judge was trained on the drawings of train, as the model was; pair and thing it has not seen either",
    "top1": "right caption among up to 100: its own and others of the split; chance says how many there were",
    "choice": "the right caption among false ones of the same form (colour, count, order or object changed)",
    "cosine": "chance is the mean between real renders of two different prompts",
    "frechet": "biased upwards at small n: pictures of half of the prompts against real renders of the other half, both "
    "ways, n = half of the split's; the figure of real renders is the floor at the same n",
    "mmd": "unbiased squared MMD, RBF kernel, sigma = half of the median distance between the split's real renders",
    "precision": f"and recall by {SPHERE} nearest neighbours, density and coverage by {COVER}; halves as for frechet",
}


def tables(report: dict[str, Any]) -> list[Table]:
    """What fits a caption, by split and category, and how the pictures are distributed, by split."""
    captions = Table("split", "n", *TITLES.values(), title=f"{report['bundle']} judged by {report['judge']['name']}")
    distances = Table("split", "n", *DISTANCES.values(), title="against real renders of other prompts")
    for split, group in report["splits"].items():
        _add(captions, split, group, TITLES, ("generated", "real", "chance"))
        for category, part in group.get("categories", {}).items():
            _add(captions, f"  {category}", part, TITLES, ("generated", "real", "chance"))
        if "frechet" in group["generated"]:
            _add(distances, split, {**group, "n": group["n"] // 2}, DISTANCES, ("generated", "real"))
    return [captions, distances] if distances.row_count else [captions]


def _add(table: Table, title: str, group: dict[str, Any], figures: dict[str, str], sources: Sequence[str]) -> None:
    """A line for each source: 'generated' with its intervals under the group's title, then the others."""
    for source in sources:
        cells = [_cell(name, group[source].get(name)) for name in figures]
        head = (title, str(group["n"])) if source == sources[0] else (f"    {source}", "")
        table.add_row(*head, *cells, style=None if source == sources[0] else "dim", end_section=source == sources[-1])


def _cell(name: str, figure: dict[str, float] | float | None) -> str:
    if figure is None:
        return ""
    value, *ends = figure.values() if isinstance(figure, dict) else (figure,)
    scale, digits = {"top1": (100, 1), "top5": (100, 1), "choice": (100, 1), "mmd": (1000, 1)}.get(name, (1, 3))
    unit = " %" if name in ("top1", "top5", "choice") else ""
    span = " [{}]".format(", ".join(f"{scale * end:.{digits}f}" for end in ends)) if ends else ""
    return f"{scale * value:.{digits}f}{unit}{span}"


def sheet(items: Sequence[Item], pictures: Sequence[Image.Image], read_as: Sequence[str]) -> Image.Image:
    """The first 64 pictures in the suite's order, none picked; under each the judge's verdict and the prompt."""
    shown = range(min(SHOWN, len(items)))
    verdicts = ["right" if read_as[i] == items[i].prompt else "wrong" for i in shown]
    enlarged = [pictures[i].resize((SIDE, SIDE), Image.Resampling.BICUBIC) for i in shown]
    return grid(enlarged, COLUMNS, [f"{verdicts[i]}: {items[i].prompt}" for i in shown])


def write(
    folder: str | Path,
    report: dict[str, Any],
    items: Sequence[Item],
    pictures: Sequence[Image.Image],
    read_as: Sequence[str],
) -> list[Path]:
    """Writes report.json, with the verdict on every picture, and a sheet for each split; returns the paths."""
    folder = make_folder(folder)
    verdicts = [
        {"split": item.split, "category": item.category, "prompt": item.prompt, "read_as": caption}
        for item, caption in zip(items, read_as, strict=True)
    ]
    paths = [folder / "report.json"]
    try:
        files.write_text(paths[0], json.dumps({**report, "pictures": verdicts}, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise RequestError(f"cannot write {paths[0]}: {error.strerror or error}") from None
    for split in report["splits"]:
        rows = [i for i, item in enumerate(items) if item.split == split]
        paths.append(folder / f"sheet-{split}.png")
        picture = sheet([items[i] for i in rows], [pictures[i] for i in rows], [read_as[i] for i in rows])
        save_png(picture, paths[-1])
    return paths
