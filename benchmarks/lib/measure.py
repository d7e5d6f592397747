"""How the benchmarks measure: rounds that interleave all contestants, the best of each, and the machine's own limit.

A machine is seldom ours alone. In a round everybody runs once, so a slow spell hits all alike, and each one's best run is
the least disturbed: ratios hold where seconds do not. The limit, a plain bf16 matrix product, is a contestant too.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

Contestant = Callable[[], object]

SIDE, PRODUCTS = 2048, 12  # matrices of 8 MB in bf16, no faster at 4096; as many products as take about half a second
PRODUCT_FLOPS = PRODUCTS * 2 * SIDE**3


@dataclass(frozen=True)
class Result:
    """One line of the final JSON: `ours` and `peer` in `unit`, `ratio` how many times better ours is."""

    what: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    limit_share: float | None  # our FLOP/s over the machine's measured bf16 product


def best_of(contestants: Mapping[str, Contestant], *, seconds: float, least: int = 2) -> dict[str, float]:
    """Seconds of each contestant's fastest run, over rounds of one run each, until `seconds` have passed.

    At least `least` rounds are run. Everybody's first call warms up and counts only if there is no other.
    """
    began = time.perf_counter()
    runs: dict[str, list[float]] = {name: [] for name in contestants}
    rounds = 0
    while rounds < least or time.perf_counter() - began < seconds:
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            runs[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: min(taken[1:] or taken) for name, taken in runs.items()}


def matrix_product() -> Contestant:
    """A contestant of PRODUCT_FLOPS: products of square bf16 matrices, taken as the most that this machine can do."""
    a, b = (torch.randn(SIDE, SIDE).bfloat16() for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=out)

    return run


class FlopCounter(FlopCounterMode):
    """Counts the FLOPs of products, convolutions and attention, two for each multiply and add: `get_total_flops()`.

    torch's own counter does not know the CPU's fused attention.
    """

    def __init__(self) -> None:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        super().__init__(display=False, custom_mapping={fused: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)})


def count_flops(run: Callable[[], object]) -> int:
    with FlopCounter() as counter:
        run()
    return counter.get_total_flops()


def print_results(name: str, results: list[Result]) -> None:
    """The last line that a benchmark prints: one JSON object."""
    rows = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(r).items()} for r in results
    ]
    print(json.dumps({"name": name, "results": rows}))
