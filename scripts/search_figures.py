"""How often a search finds what brute force finds, by a real CLIP on real pictures: one JSON object.

    python scripts/search_figures.py --clip icons --pool data/train-64 --rows 20000 --queries 1000

The pool's first pictures become PNGs with their captions beside them, and those an index, as `unclip search index` makes it.
Asked are the captions and the pictures of the samples that follow. Brute force is one fp32 product with all rows of length
one, sorted, the lower id first among equal ones. `same` is the share of queries whose ten nearest are the same in the same
order; `same rows` leaves the order open; `tied` of those that differ do so by no more than TIE in any cosine.
`never rounded` compares with the embeddings before they were stored in fp16; `approximate` is the share of the ten nearest
that the cells of `unclip search compress` find. Intervals are Wilson's, at 95 %.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unclip.cli.console import guarded, note, print_json
from unclip.clip import BATCH, Clip, load_clip, unit
from unclip.data.pool import Pool
from unclip.errors import DataError
from unclip.search.approximate import compress, open_cells
from unclip.search.build import build
from unclip.search.layout import Index
from unclip.search.query import nearest
from unclip.search.rows import side_of
from unclip.search.sources import list_sources

K = 10
TIE = 1e-6
Z = 1.96


def main() -> None:
    parser = argparse.ArgumentParser(description="The share of queries whose ten nearest are those of brute force.")
    parser.add_argument("--clip", default="icons")
    parser.add_argument("--pool", type=Path, default=Path("data/train-64"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=1000, help="Sentences, and as many pictures.")
    args = parser.parse_args()
    pool, clip = Pool(args.pool), load_clip(args.clip)
    if len(pool) < args.rows + args.queries:
        raise DataError(f"{args.pool} has {len(pool)} samples: expected {args.rows} and {args.queries} more")
    asked = range(args.rows, args.rows + args.queries)
    queries = {
        "text": unit(clip.texts([pool.samples[row]["caption"] for row in asked])),
        "image": unit(clip.images([Image.fromarray(pool.images[row]) for row in asked])),
    }
    with tempfile.TemporaryDirectory() as folder:
        index = indexed(pool, clip, args.rows, Path(folder))
        rows = side_of(index, "image").take(torch.arange(args.rows))
        unrounded = embedded(pool, clip, args.rows)
        told = {name: figures(index, q, unit(rows), unrounded) for name, q in queries.items()}
        about = compress(index)
        cells = open_cells(index)
        for name, q in queries.items():
            told[name]["approximate"] = found(cells.nearest(q, K)[1], nearest(index, q, K)[1])
    off = float((unit(rows) - unrounded).norm(dim=1).max())
    cell_figures = {"cells": about.cells, "probes": about.probes, "recall of own rows": about.recall}
    print_json(
        {"clip": clip.name, "rows": args.rows, "k": K, "rows are off by at most": round(off, 6), **cell_figures, **told}
    )


def indexed(pool: Pool, clip: Clip, count: int, folder: Path) -> Index:
    """The index of the pool's first pictures, written as PNGs whose names sort as they do there."""
    note(f"writing {count} pictures")
    (folder / "pictures").mkdir()
    for row in range(count):
        path = folder / "pictures" / f"{row:06}.png"
        Image.fromarray(pool.images[row]).save(path, compress_level=1)
        path.with_suffix(".txt").write_text(pool.samples[row]["caption"])
    began = time.perf_counter()
    report = build(list_sources([folder / "pictures"]), folder / "index", clip)
    note(f"indexed {report.rows} pictures with captions, {report.rows / (time.perf_counter() - began):.0f} a second")
    return Index(folder / "index")


def embedded(pool: Pool, clip: Clip, count: int) -> Tensor:
    """The same pictures' embeddings (N, E) in the same batches, in fp32 as the network gives them, of length one."""
    return torch.cat([unit(clip.pixels(pool.tensor(range(row, min(row + BATCH, count))))) for row in range(0, count, BATCH)])


def figures(index: Index, q: Tensor, rows: Tensor, unrounded: Tensor) -> dict[str, Any]:
    began = time.perf_counter()
    ids = nearest(index, q, K)[1]
    seconds = time.perf_counter() - began
    truth, near = brute_force(q, rows)
    same = (ids == truth).all(dim=1)
    same_rows = (ids.sort(dim=1).values == truth.sort(dim=1).values).all(dim=1)
    close = ((q[:, None] * rows[ids]).sum(dim=2) - near).abs().amax(dim=1) <= TIE
    before = brute_force(q, unrounded)[0]
    alone = torch.stack([nearest(index, one[None], K)[1][0] for one in q])
    return {
        "queries": len(q),
        "seconds together": round(seconds, 3),
        "same": share(same),
        "same rows": share(same_rows),
        "tied": int((~same & close).sum()),
        "the same asked one by one": share((alone == ids).all(dim=1)),
        "never rounded": {
            "same": share((ids == before).all(dim=1)),
            "same rows": share((ids.sort(dim=1).values == before.sort(dim=1).values).all(dim=1)),
            "found": found(ids, before),
        },
    }


def brute_force(q: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The ids and cosines (Q, K) of one fp32 product."""
    cosines, ids = (q @ rows.T).sort(dim=1, descending=True, stable=True)
    return ids[:, :K], cosines[:, :K]


def found(ids: Tensor, truth: Tensor) -> float:
    """The share of the rows `truth` that is among `ids`."""
    return round(float((truth[:, :, None] == ids[:, None]).any(dim=2).float().mean()), 5)


def share(right: Tensor) -> dict[str, Any]:
    n, p = len(right), float(right.float().mean())
    middle, half = p + Z**2 / (2 * n), Z * (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 0.5
    low, high = ((middle + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
    return {"count": int(right.sum()), "share": round(p, 5), "interval": [round(low, 5), round(high, 5)]}


if __name__ == "__main__":
    raise SystemExit(guarded(main))
