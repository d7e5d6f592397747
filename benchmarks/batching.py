"""What continuous batching is worth to a server: eight requests at once, of mixed steps and guidance, and one by one.

Together, each request is painted by a thread of its own and the networks' calls are put into one where they fit
(unclip/server/batching.py). One by one, the same requests go through the same model without it, as the command line paints
them. What a network's call costs by its rows, which is why a call has as many as it has, is printed with --rows.

    python benchmarks/batching.py [--model icons] [--size 256] [--together 2 4 8] [--rounds 3] [--quick] [--rows]
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from lib.measure import Contestant, Result, best_of, print_results
from PIL import Image

from unclip.device import autocast
from unclip.errors import UnclipError
from unclip.models.clip import Text
from unclip.pipeline import UnCLIP, load
from unclip.server.batching import Batcher
from unclip.server.jobs import JobRequest
from unclip.server.painting import ModelPainter, options_of

PROMPTS = ("a flat icon of a cactus", "a 3d render of a red apple", "two cats", "a noto emoji of a rocket")
STEPS, GUIDANCE = (12, 16, 20, 24), (1.5, 2.0, 3.0)
REQUESTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="Eight requests together and one by one.")
    parser.add_argument("--model", default="icons", help="a shipped model's name, or the folder of a bundle")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--together", type=int, nargs="*", default=[2, 4, 8], help="requests that are painted at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, all together")
    parser.add_argument("--rows", action="store_true", help="also what a call costs by its rows")
    args = parser.parse_args()
    try:
        alone, shared = (load(args.model, device="cpu") for _ in range(2))
        assert isinstance(alone, UnCLIP), "its stages are timed by name"
        assert isinstance(shared, UnCLIP), "its stages are timed by name"
    except UnclipError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    if args.rows:
        print_rows(alone)
    batcher = Batcher(lambda: running(shared))
    painter = ModelPainter.of(shared, batcher)
    requests = [request(i, args.size) for i in range(REQUESTS)]
    widths = [REQUESTS] if args.quick else args.together
    contestants: dict[str, Contestant] = {"one by one": lambda: [paint_alone(alone, asked) for asked in requests]}
    contestants |= {f"{width} at a time": together(painter, requests, width) for width in widths}
    taken = best_of(contestants, seconds=0, least=1 if args.quick else args.rounds)
    print(f"{batcher.asked / batcher.calls:.2f} calls answered by each of the {batcher.calls} that were made")
    batcher.close()
    print_results("batching", report(taken, args.size))


def request(number: int, size: int) -> JobRequest:
    """One of many that have little in common."""
    return JobRequest(
        task="generate",
        prompt=PROMPTS[number % len(PROMPTS)],
        n=1,
        seed=number,
        size=size,  # pyright: ignore[reportArgumentType]  # pydantic refuses another
        steps=STEPS[number % len(STEPS)],
        guidance=GUIDANCE[number % len(GUIDANCE)],
    )


@contextmanager
def running(model: UnCLIP) -> Iterator[None]:
    with torch.inference_mode(), autocast(model.device):
        yield


def paint_alone(model: UnCLIP, asked: JobRequest) -> Image.Image:
    assert asked.prompt is not None
    assert asked.seed is not None
    return model.generate(asked.prompt, seed=asked.seed, size=asked.size, options=options_of(asked))[0]


def together(painter: ModelPainter, requests: Sequence[JobRequest], width: int) -> Contestant:
    never = threading.Event()

    def paint(asked: JobRequest) -> Image.Image:
        return painter.paint(asked, 0, [], lambda *_: None, never).image

    def run() -> list[Image.Image]:
        with ThreadPoolExecutor(width) as pool:
            return list(pool.map(paint, requests))

    return run


def report(taken: dict[str, float], size: int) -> list[Result]:
    alone = taken.pop("one by one")
    print(f"{alone:8.2f} s   one by one")
    results = []
    for name, seconds in taken.items():
        print(f"{seconds:8.2f} s   {name}   {alone / seconds:.2f} times as fast")
        what = f"{REQUESTS} requests of mixed steps, {size} px, {name}; peer: one by one"
        results.append(Result(what, seconds, alone, "s", alone / seconds, None))
    return results


def print_rows(model: UnCLIP) -> None:
    """Milliseconds a row of a network call, by its rows."""
    counts = (1, 2, 4, 8, 16, 32)
    print(f"{'ms a row':12s}" + "".join(f"{count:8d}" for count in counts))
    assert model.prior is not None
    assert model.decoder is not None
    text = model.encode_text([PROMPTS[0]])
    prior, decoder = model.prior, model.decoder
    embed, side = decoder.cfg.embed, decoder.cfg.unet.image_size

    def ask_prior(rows: int, t: torch.Tensor) -> object:
        return prior.module(torch.randn(rows, embed), t, text.rows(rows))

    def ask_decoder(rows: int, t: torch.Tensor) -> object:
        return decoder.module(torch.randn(rows, 3, side, side), t, torch.randn(rows, embed), Text(*text.rows(rows)))

    asks: dict[str, Callable[[int, torch.Tensor], object]] = {"prior": ask_prior, "decoder": ask_decoder}
    for stage in model.upsamplers[:2]:
        high = stage.cfg.high
        asks[f"to {high} px"] = lambda rows, t, stage=stage, high=high: stage.module(
            torch.randn(rows, 3, high, high), t, torch.randn(rows, 3, high, high)
        )
    with torch.inference_mode(), autocast(model.device):
        for name, ask in asks.items():
            print(f"{name:12s}" + "".join(f"{1000 * best_call(ask, rows) / rows:8.2f}" for rows in counts))


def best_call(ask: Callable[[int, torch.Tensor], object], rows: int) -> float:
    t, best = torch.full((rows,), 500), float("inf")
    for _ in range(4):
        start = time.perf_counter()
        ask(rows, t)
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
