"""The gap between pictures and captions, before the prior and after, of each split of a pool; and the maps of docs/map.md.

    python scripts/map_figures.py --model icons --pool data/valid-64 --out docs/map

Prints one JSON object. The maps are of the whole pool.
"""

import argparse
from pathlib import Path
from typing import Any

from unclip.cli.console import guarded, print_json, progress
from unclip.data.pool import Pool
from unclip.images import make_folder, save_png
from unclip.maps.chart import draw
from unclip.maps.clouds import clouds_of, predict
from unclip.maps.gap import first_of_each, measure
from unclip.maps.plane import Method, lay
from unclip.maps.rows import gather
from unclip.pipeline import UnCLIP, load

MAPS: tuple[Method, ...] = ("pca", "gap")
COLOURS = 64  # of a map's PNG, which is flat


def main() -> None:
    parser = argparse.ArgumentParser(description="The gap between pictures and captions, and maps of it.")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--pool", type=Path, default=Path("data/valid-64"))
    parser.add_argument("--out", type=Path, help="a folder for the maps")
    args = parser.parse_args()
    model, pool = load(args.model), Pool(args.pool)
    assert isinstance(model, UnCLIP), "a GLIDE has no prior"
    rows = gather([args.pool], model.eyes(), most=len(pool))
    with progress() as bars:
        task = bars.add_task("prior", total=None)
        prior = predict(model, rows.captions, progress=lambda done, total: bars.update(task, completed=done, total=total))
    splits = [sample["meta"].get("split", "all") for sample in pool.samples]
    told: dict[str, Any] = {}
    for split in (*dict.fromkeys(splits), "all"):
        inside = [row for row in first_of_each(rows.captions) if split in ("all", splits[row])]
        over = {"captions": rows.text, "prior": prior}
        told[split] = {name: measure(points[inside], rows.z[inside]).rounded() for name, points in over.items()}
    if args.out is not None:
        clouds = clouds_of(rows, prior)
        for method in MAPS:
            chart = draw(clouds, lay(clouds, method), title=f"{len(rows):,} pictures of {args.pool.name}, {method}")
            save_png(chart.quantize(COLOURS), make_folder(args.out) / f"{method}.png")
    print_json({"model": model.name, "pool": args.pool.name, "rows": len(rows), "gaps": told})


if __name__ == "__main__":
    raise SystemExit(guarded(main))
