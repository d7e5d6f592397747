"""How much of a machine's peak a training run used: model FLOPs utilisation (2204.02311, appendix B).

    python scripts/mfu.py runs/decoder runs/prior --peak 990

Counts the FLOPs of the products and convolutions, forward and backward, of one micro step as the run's own objective makes
it, divides by its images, and multiplies by the images a second of the run's log (the median of its ticks: previews,
evaluations and saves are not in them). Attention is counted as the two products that it is, whichever kernel ran it.
Prints one JSON object a run.
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unclip.cli.console import guarded, print_json
from unclip.train.log import read_log
from unclip.train.recipe import Recipe, make_objective, read_run

COUNTED = 16  # images in the counted step: enough that what grows with the batch alone, as CLIP's loss, hardly shows


def flops_per_image(recipe: Recipe, run: Path) -> float:
    """Forward and backward, averaged over one batch of at most COUNTED images."""
    objective = make_objective(recipe, run)
    count = min(COUNTED, recipe.train.batch)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss, _ = objective.loss(objective.batch(range(count)), torch.Generator().manual_seed(0))
        loss.backward()
    return counter.get_total_flops() / count


def measure(run: Path, peak: float) -> dict[str, str | float | int | None]:
    """The run's speed and its share of `peak` (TFLOP/s)."""
    recipe = read_run(run)
    rates = [entry["images_per_second"] for entry in read_log(run) if entry["event"] == "tick"]
    flops = flops_per_image(recipe, run)
    rate = statistics.median(rates) if rates else None
    teraflops = None if rate is None else flops * rate / 1e12
    return {
        "run": run.name,
        "batch": recipe.train.batch,
        "gflop_per_image": round(flops / 1e9, 3),
        "images_per_second": rate,
        "tflops": None if teraflops is None else round(teraflops, 3),
        "mfu": None if teraflops is None else round(teraflops / peak, 4),
        "peak_tflops": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Model FLOPs utilisation of training runs.")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--peak", type=float, default=990.0, help="the machine's dense bf16 peak, TFLOP/s (an H200: 990)")
    args = parser.parse_args()
    for run in args.runs:
        print_json(measure(run, args.peak))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
