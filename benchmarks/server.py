"""Whether `unclip serve` holds what is asked of it: a real process on loopback, its targets and what was seen.

The numbers are of the catalogue of tests that the server was built against. The stub paints by arithmetic, so that what is
measured is the server; what ends a picture early is also tried with a real model.

    python benchmarks/server.py [--only 5,6] [--model icons] [--quick]
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from lib import attacks, deaths, doors, escapes, leaving, slow, speed
from lib.bench import Bench, Row
from lib.measure import Result, print_results

TESTS = {
    "4a": attacks.bad_pictures,
    "4b": attacks.odd_pictures,
    "5": speed.overhead,
    "6": speed.overload,
    "7": speed.soak,
    "8": leaving.leaving,
    "9": deaths.workers,
    "10": deaths.servers,
    "12": slow.slow_clients,
    "13": doors.keys,
    "14": escapes.escapes,
    "15": doors.browsers,
}
WITH_MODEL = {"8": leaving.leaving, "9": deaths.model_workers}


def main() -> None:
    parser = argparse.ArgumentParser(description="Target against seen, of a served server.")
    parser.add_argument("--only", help="numbers of tests, as 5,6; 4 is 4a and 4b")
    parser.add_argument("--model", default="stub", help="a shipped model's name, or a bundle: tests 8 and 9")
    parser.add_argument("--quick", action="store_true", help="few of everything: does it run?")
    args = parser.parse_args()
    tests = TESTS if args.model == "stub" else WITH_MODEL
    chosen = [name for name in tests if args.only is None or {name, name.rstrip("ab")} & set(args.only.split(","))]
    if not chosen:
        print(f"--only {args.only}: expected some of {', '.join(tests)}", file=sys.stderr)
        raise SystemExit(2)
    rows: list[Row] = []
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="unclip-bench-") as folder:
            found = asyncio.run(tests[name](Bench(Path(folder), args.model, args.quick)))
        for row in found:
            print(line(row), flush=True)
        rows += found
    print(f"{sum(row.ok for row in rows)} of {len(rows)} as they should be")
    print_results("server", [result(row, args.model) for row in rows])


def line(row: Row) -> str:
    """The row as the table has it."""
    target, seen = (f"{value:.4g} {row.unit}".rstrip() for value in (row.target, row.seen))
    return f"{row.test:4s}{'ok' if row.ok else 'MISSED':8s}{seen:>12s}  at most {target:10s}{row.what}"


def result(row: Row, model: str) -> Result:
    ratio = row.target / row.seen if row.target > 0 and row.seen > 0 else None
    return Result(f"test {row.test}, {model}: {row.what}; peer: the target", row.seen, row.target, row.unit, ratio, None)


if __name__ == "__main__":
    main()
