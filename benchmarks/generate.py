"""How long people wait: from the start of the process to four pictures of 256 px on disk, and where the time goes.

A round runs `unclip generate` in a fresh process, then a process that only imports torch, which nobody here can make
faster, then one that imports all of ours. What the command's own clock does not see, the start and the end of Python, is
"the rest". The FLOPs of a stage are counted while one picture is painted in this process.

    python benchmarks/generate.py [--model icons] [--rounds 3] [--quick]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from lib.measure import PRODUCT_FLOPS, FlopCounter, Result, best_of, matrix_product, print_results

from unclip.diffusion.samplers import Step
from unclip.errors import UnclipError
from unclip.pipeline import UnCLIP, load

PROMPT, PICTURES = "a flat icon of a cactus", 4


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds from process start to four pictures.")
    parser.add_argument("--model", default="icons", help="a shipped model's name, or the folder of a bundle")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    args = parser.parse_args()
    try:
        model = load(args.model, device="cpu")
        assert isinstance(model, UnCLIP), "its stages are timed by name"
    except UnclipError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None

    runs: list[dict[str, float]] = []
    contestants = {
        "whole": lambda: runs.append(painted(args.model, args.size)),
        "torch": partial(python, "import torch"),
        "import": partial(python, "import unclip.cli.generate, unclip.pipeline"),
        "limit": matrix_product(),
    }
    taken = best_of(contestants, seconds=0, least=1 if args.quick else args.rounds)
    limit = PRODUCT_FLOPS / taken["limit"]
    flops = count_stages(model, args.size)
    print_results("generate", report(taken, runs, flops, limit, args.size))


def python(code: str, *arguments: str) -> str:
    """What `code` prints in a fresh process; its complaints pass through."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def painted(model: str, size: int) -> dict[str, float]:
    """Seconds of each part of one `unclip generate`, by the command's own clock."""
    with tempfile.TemporaryDirectory() as folder:
        options = [PROMPT, "-n", str(PICTURES), "--size", str(size), "--model", model, "--device", "cpu", "--out", folder]
        answer: dict[str, Any] = json.loads(python("from unclip.cli import main; main()", "generate", *options, "--json"))
        assert sum(Path(path).is_file() for path in answer["paths"]) == PICTURES, answer["paths"]
    return answer["seconds"]


def count_stages(model: UnCLIP, size: int) -> dict[str, int]:
    """FLOPs of each sampling stage for all the pictures, which exact mode paints one by one."""
    counted: dict[str, int] = {}
    with FlopCounter() as counter:

        def note(stage: str, step: Step) -> None:
            counted[stage] = counted.get(stage, 0) + counter.get_total_flops() - sum(counted.values())

        model.generate(PROMPT, size=size, progress=note)
    return {stage: PICTURES * flops for stage, flops in counted.items()}


def report(
    taken: dict[str, float], runs: list[dict[str, float]], flops: dict[str, int], limit: float, size: int
) -> list[Result]:
    """Prints the table, and gives its rows; `limit` in FLOP/s."""
    parts = min(runs, key=lambda run: sum(run.values()))
    parts = {**parts, "the rest": max(0.0, taken["whole"] - sum(parts.values()))}
    share = sum(flops.values()) / taken["whole"] / limit
    whole = f"process start to {PICTURES} pictures of {size} px"
    results = [
        Result(whole, taken["whole"], None, "s", None, share),
        Result("import, peer: torch alone", taken["import"], taken["torch"], "s", taken["torch"] / taken["import"], None),
    ]
    for part, seconds in parts.items():
        share = flops[part] / seconds / limit if part in flops else None
        results.append(Result(part, seconds, None, "s", None, share))
    for result in results:
        beside = "" if result.peer is None else f"   torch alone {result.peer:.2f} s"
        beside += "" if result.limit_share is None else f"   {result.limit_share:.0%} of the bf16 product"
        print(f"{result.ours:8.2f} s   {result.what}{beside}")
    return results


if __name__ == "__main__":
    main()
