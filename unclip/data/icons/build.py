"""Making the icons set: fetch the packages, choose the drawings, render them once, write the folder that `Drawings` opens.

Rows are rendered by two processes straight into memory-mapped files under temporary names, renamed when all are done.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from unclip import files
from unclip.data.icons.drawings import FORMAT, SIZES, average_blocks, render_svg
from unclip.data.icons.packages import STYLES, WORDS, read_package
from unclip.data.icons.selection import Drawing, select
from unclip.errors import DataError

CHUNK = 64
Progress = Callable[[int, int], None]


def prepare(out: str | Path, *, packages: str | Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Makes the icons set in `out` (about 1.6 GB), or checks that it is there; returns its header (`icons.json`).

    `packages`: a folder of tarballs already fetched, else npm fetches them. `progress(done, total)` is called as drawings
    are rendered. Raises DataError when a package cannot be had or `out` cannot be written.
    """
    out = Path(out)
    header = complete_header(out)
    if header is not None:
        return header
    folder = None if packages is None else Path(packages)
    sets = {style: read_package(package, folder) for style, package in STYLES.items()}
    drawings, svgs, left_out = select(sets, read_package(WORDS, folder)["emoji-en-US.json"])
    try:
        out.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(out)
        failures = _render_all(out, svgs, progress)
        header = _header(drawings, left_out, failures)
        _write_lines(out / "drawings.jsonl", ({**d.record(), "kept": d.index not in failures} for d in drawings))
        _write_lines(out / "svg.jsonl", svgs)
        files.write_text(out / "icons.json", json.dumps(header, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"cannot write the icons set to {out}: {error.strerror or error}") from None
    return header


def complete_header(out: Path) -> dict[str, Any] | None:
    """The header of a complete icons set of this format and these packages in `out`, else None."""
    try:
        header = json.loads((out / "icons.json").read_text(encoding="utf-8"))
        counts = {len(np.load(out / f"drawings-{size}.npy", mmap_mode="r")) for size in SIZES}
        counts |= {(out / name).read_bytes().count(b"\n") for name in ("drawings.jsonl", "svg.jsonl")}
    except (OSError, ValueError):
        return None
    same = header.get("format") == FORMAT and header.get("packages") == _package_record()
    return header if same and counts == {header["drawings"]} else None


def _render_all(out: Path, svgs: list[str], progress: Progress | None) -> dict[int, str]:
    """Renders every SVG into drawings-{256,128,64}.npy; returns row -> reason for those that fail (left blank)."""
    failures: dict[int, str] = {}
    with ExitStack() as stack:
        paths = {size: stack.enter_context(files.replacing(out / f"drawings-{size}.npy")) for size in SIZES}
        for size, path in paths.items():
            open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(svgs), size, size, 4)).flush()
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            starts = range(0, len(svgs), CHUNK)
            jobs = [pool.submit(_render_rows, paths, start, svgs[start : start + CHUNK]) for start in starts]
            for done, job in enumerate(as_completed(jobs), 1):
                failures.update(job.result())
                if progress is not None:
                    progress(min(done * CHUNK, len(svgs)), len(svgs))
    return dict(sorted(failures.items()))


def _render_rows(paths: dict[int, Path], start: int, svgs: list[str]) -> dict[int, str]:
    arrays = {size: np.load(path, mmap_mode="r+") for size, path in paths.items()}
    failures = {}
    for row, svg in enumerate(svgs, start):
        try:
            pixels = render_svg(svg, 256)
        except ValueError as error:
            failures[row] = " ".join(str(error).split())[:120]
            continue
        if not pixels[..., 3].any():
            failures[row] = "an empty picture"
            continue
        for size, array in arrays.items():
            array[row] = average_blocks(pixels, 256 // size)
    for array in arrays.values():
        array.flush()
    return failures


def _header(drawings: list[Drawing], left_out: Counter[str], failures: dict[int, str]) -> dict[str, Any]:
    kept = [drawing for drawing in drawings if drawing.index not in failures]
    return {
        "format": FORMAT,
        "packages": _package_record(),
        "drawings": len(drawings),
        "kept": len(kept),
        "things": len({drawing.thing for drawing in kept}),
        "splits": dict(sorted(Counter(drawing.split for drawing in kept).items())),
        "styles": dict(sorted(Counter(drawing.style for drawing in kept).items())),
        "categories": dict(sorted(Counter(drawing.category for drawing in kept).items())),
        "left_out": dict(sorted(left_out.items())),
        "failed": {drawings[row].key: reason for row, reason in failures.items()},
    }


def _package_record() -> dict[str, dict[str, str]]:
    packages = (*STYLES.values(), WORDS)
    return {
        package.name: {"version": package.version, "licence": package.licence, "sha512": package.sha512}
        for package in packages
    }


def _write_lines(path: Path, rows: Iterable[Any]) -> None:
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
