"""A network that trains in milliseconds, and ways to kill its training.

Run as a script, this module is a process that has imported torch and used none of its threads yet, so it can fork a trainer
for each kill, at no cost but the training itself.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.train.config import TrainConfig
from unclip.train.log import read_log
from unclip.train.loop import Outcome, train

CONFIG = {"steps": 30, "batch": 8, "lr": 3e-3, "warmup": 5, "log_every": 4, "preview_every": 10, "evaluate_every": 10}
CONFIG |= {"save_every": 3, "precision": "fp32", "threads": 1}
CLOCK = {"time", "images_per_second", "data_wait", "memory_gb"}  # what two equal runs may differ in


class Toy:
    """Removes noise from 6 x 6 pictures of one colour; uses the noise generator, dropout and an embedding."""

    def __init__(self, width: int = 8, *, random_loss: bool = True):
        torch.manual_seed(0)
        self.random_loss = random_loss
        self.module = nn.ModuleDict(
            {
                "table": nn.Embedding(4, width),
                "stem": nn.Conv2d(3, width, 3, padding=1),
                "norm": nn.GroupNorm(2, width),
                "drop": nn.Dropout(0.1 if random_loss else 0.0),
                "head": nn.Conv2d(width, 3, 3, padding=1),
            }
        )

    def batch(self, positions: Sequence[int]) -> dict[str, Tensor]:
        draws = [torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(position)) for position in positions]
        return {"x": torch.stack(draws).expand(-1, 3, 6, 6), "kind": torch.tensor([position % 4 for position in positions])}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        x = batch["x"]
        noise = torch.randn(x.shape, generator=generator) if self.random_loss else torch.ones_like(x)
        error = (self.answer(x + noise, batch["kind"]) - x).float()
        return error.square().mean(), {"worst": error.detach().abs().amax()}

    def answer(self, x: Tensor, kind: Tensor) -> Tensor:
        net = self.module
        hidden = net["norm"](net["stem"](x)) + net["table"](kind)[:, :, None, None]
        return net["head"](net["drop"](torch.nn.functional.silu(hidden)))

    def preview(self, module: nn.Module) -> Image.Image:
        pixels = self.answer(torch.zeros(1, 3, 6, 6), torch.tensor([0]))[0].clamp(0, 1).mul(255).byte()
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        assert not module.training
        batch = self.batch(range(1000, 1008))
        return {"held_out": float((self.answer(batch["x"], batch["kind"]) - batch["x"]).square().mean())}


def run_toy(run: Path, on_step: Callable[[int], None] | None = None, toy: Toy | None = None, **changes: object) -> Outcome:
    cfg = TrainConfig.model_validate(CONFIG | changes)
    return train(toy or Toy(), cfg, run, recipe={"width": 8}, on_step=on_step)


def outcome_of(run: Path) -> dict[str, object]:
    """All that two equal runs have in common: the newest checkpoint's tensors, the log but its clock, the pictures."""
    newest = max((run / "checkpoints").glob("step-*"))
    files = [*newest.glob("*.safetensors"), *(run / "previews").glob("*.png")]
    log = [
        {key: entry[key] for key in entry.keys() - CLOCK}
        for entry in read_log(run)
        if entry["event"] not in ("start", "stop")
    ]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files} | {"log": log}


def fork(work: Callable[[], None]) -> int:
    """The id of a child that does `work` and leaves with 0."""
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # progress of the many
        work()
        os._exit(0)
    return child


def killed_at_random(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kills trainers from outside until `kills` have died, each run until it is through; how the runs ended."""
    rng = random.Random(seed)
    begun = time.monotonic()
    os.waitpid(fork(lambda: run_toy(folder / "unbroken", steps=20)), 0)
    duration = time.monotonic() - begun
    whole = outcome_of(folder / "unbroken")
    died = torn = runs = 0
    wrong = []
    while died < kills:
        run = folder / f"run-{runs}"
        runs += 1
        while True:
            child = fork(lambda run=run: run_toy(run, steps=20))
            time.sleep(rng.uniform(0, duration))
            if died < kills:
                os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == 0:
                break
            died += 1
            torn += any((run / "checkpoints").glob(".*"))
        if outcome_of(run) != whole:
            wrong.append(run.name)
    return {"died": died, "inside a save": torn, "wrong": wrong, "log": whole["log"]}


def dies_at_each_call(folder: Path) -> dict[str, object]:
    """A run that dies at its k-th fsync or rename, for every k, and goes on; how the runs ended."""
    quick = {"steps": 4, "save_every": 2, "preview_every": 4}
    os.waitpid(fork(lambda: run_toy(folder / "unbroken", **quick)), 0)
    whole = outcome_of(folder / "unbroken")
    wrong = []
    deaths = 0
    while True:
        run = folder / f"call-{deaths}"
        os.waitpid(fork(lambda run=run, at=deaths: _die_at(run, at, quick)), 0)
        resumed = os.waitpid(fork(lambda run=run: run_toy(run, **quick)), 0)[1] == 0
        if not resumed or outcome_of(run) != whole:
            wrong.append(run.name)
        if not (run / "died").exists():
            return {"deaths": deaths, "wrong": wrong, "left": [path.name for path in run.rglob(".*.tmp")]}
        deaths += 1


def _die_at(run: Path, at: int, changes: dict[str, int]) -> None:
    calls = 0

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*args: object) -> None:
            nonlocal calls
            calls += 1
            if calls > at:
                (run / "died").touch()
                os._exit(9)
            call(*args)

        return wrapper

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    run_toy(run, **changes)


def shared_by_ranks(folder: Path, port: int) -> None:
    """`one`: 8 steps in one process. `two`: in two. `grown`: 4 steps in one process, then 4 in two."""
    same = {"accumulate": 2, "decay": "constant", "save_every": 4}
    os.waitpid(fork(lambda: run_toy(folder / "one", **same, steps=8)), 0)
    os.waitpid(fork(lambda: run_toy(folder / "grown", **same, steps=4)), 0)
    for turn, run in enumerate(("two", "grown")):
        ranks = [
            fork(lambda run=run, rank=rank, turn=turn: _ranked(folder / run, rank, port + turn, same)) for rank in range(2)
        ]
        for child in ranks:
            os.waitpid(child, 0)


def _ranked(run: Path, rank: int, port: int, changes: dict[str, object]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    toy = Toy()
    if rank:  # a rank takes over the first one's weights, whatever its own
        nn.init.ones_(toy.module["stem"].weight)
    run_toy(run, toy=toy, **changes, steps=8)


if __name__ == "__main__":
    torch.set_num_threads(1)
    import torch._dynamo  # the first optimizer step would, in every child

    name, folder, *numbers = sys.argv[1:]
    print(json.dumps(globals()[name](Path(folder), *map(int, numbers))))
