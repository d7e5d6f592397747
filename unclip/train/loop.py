"""One loop for every network: what is trained comes as an `Objective`, how long and how fast as a `TrainConfig`.

Step k of batch B takes positions k*B .. (k+1)*B - 1 of the objective's stream, in `accumulate` micro batches; micro batch m
draws its noise from a generator seeded with (seed, k, m). So a step is a pure function of the weights and its number, and a
run that was killed anywhere goes on from its checkpoint bit by bit as if nothing had happened (same machine and threads).

A run folder:

    config.yaml     the resolved config              log.jsonl     what happened, one object a line (log.py)
    checkpoints/    the newest ones (state.py)       previews/     sample grids at fixed noise, JSON beside each
    report.html     all of it to look at (report.py)
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from pydantic import Field, model_validator
from torch import Tensor

from unclip.config import Config
from unclip.device import Precision, autocast, pick_device
from unclip.errors import ConfigError
from unclip.files import replacing, write_text
from unclip.train.ema import Ema
from unclip.train.guard import GuardedUpdate, TrainingDiverged, Verdict
from unclip.train.log import Display, RunLog, Window, memory_gb
from unclip.train.objective import Objective
from unclip.train.optimizer import Decay, Schedule, make_optimizer
from unclip.train.prefetch import Prefetch
from unclip.train.report import write_report
from unclip.train.state import TrainState, checkpoints, load_newest, save_checkpoint
from unclip.train.stop import StopSignals

Batch = dict[str, Tensor]


class TrainConfig(Config):
    """How to train. Of a run that is under way, all may change but `batch` and `seed`, which say what a step is made of."""

    steps: int = Field(ge=0)
    batch: int = Field(64, ge=1, description="samples a step")
    accumulate: int = Field(1, ge=1, description="micro batches a step, one after the other; must divide `batch`")
    seed: int = Field(0, ge=0)

    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(500, ge=0, description="steps")
    decay: Decay = "cosine"
    final: float = Field(0.0, ge=0, le=1, description="the last step's rate, as a share of lr")
    cooldown: float = Field(0.2, ge=0, le=1, description="wsd: the share of the steps over which the rate falls")
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0, description="on matrices and kernels only")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0: unlimited")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the average of the weights, after its warm-up")
    ema_power: float | None = Field(None, ge=0, description="the average's exponent in power form, instead of `ema`")

    device: str = "auto"
    precision: Precision = "auto"
    channels_last: bool = True
    compile: bool = False
    threads: int = Field(0, ge=0, description="CPU threads of the network; 0: torch's choice")
    workers: int = Field(1, ge=1, description="threads that make batches")
    prefetch: int = Field(4, ge=1, description="batches made ahead")

    log_every: int = Field(50, ge=1, description="steps, as are the next three; 0: never")
    preview_every: int = Field(0, ge=0)
    evaluate_every: int = Field(0, ge=0)
    save_every: int = Field(0, ge=0)
    save_minutes: float = Field(10.0, ge=0, description="0: never by the clock")
    keep: int = Field(2, ge=1, description="checkpoints kept")
    keep_every: int = Field(0, ge=0, description="checkpoints of these steps are kept for good")

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.batch % self.accumulate:
            raise ValueError(f"batch = {self.batch} must be a multiple of accumulate = {self.accumulate}")
        return self

    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.lr, self.warmup, self.decay, self.final, self.cooldown)


@dataclass(frozen=True)
class Outcome:
    """How `train` ended: at the last step, or at `step` because of a signal, with everything saved in both cases."""

    status: Literal["done", "stopped"]
    step: int
    exit_code: int  # 0, or 128 + the signal's number, as shells have it


def train(
    objective: Objective,
    cfg: TrainConfig,
    run: str | Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    init: Callable[[], None] | None = None,
    resume: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> Outcome:
    """Trains `objective.module` in the folder `run` up to step `cfg.steps`, from its newest checkpoint if it has one.

    `recipe` is the rest of the resolved config, kept in the run's config.yaml; a run goes on only under the recipe that it
    began with. `init` fills the module's weights when the run starts at step 0 (not when it goes on). `on_step` is called
    with the number of steps done. Raises ConfigError (another batch, seed, recipe or network than the run's), WeightsError
    (no whole checkpoint left), TrainingDiverged, UnclipError (the disk is full), and whatever the objective raises.
    """
    job = Job(objective, cfg, Path(run), dict(recipe or {}))
    start = job.begin(init, resume=resume)
    jobs = ((step, micro) for step in range(start, cfg.steps) for micro in range(cfg.accumulate))
    with (
        StopSignals() as stop,
        Prefetch(job.make_batch, jobs, workers=cfg.workers, ahead=cfg.prefetch) as batches,
        job.display,
    ):
        while True:
            done = job.step >= cfg.steps
            if job.step > start or start == 0:  # what is due at the step of a checkpoint was done before it was saved
                if done or job.step % cfg.log_every == 0:
                    job.tick(batches)
                if _due(job.step, cfg.preview_every, done):
                    job.preview()
                if _due(job.step, cfg.evaluate_every, done):
                    job.evaluate()
                if done or stop.received or job.save_is_due():
                    job.save()
            if done or stop.received:
                break
            job.advance(batches)
            if on_step:
                on_step(job.step)
    if stop.received:
        job.log.write("stop", job.step, signal=stop.received.name)
    return Outcome("done" if done else "stopped", job.step, 0 if done or not stop.received else 128 + stop.received)


class Job:
    """The parts of one run of the loop, and what each line of the loop does with them."""

    def __init__(self, objective: Objective, cfg: TrainConfig, run: Path, recipe: dict[str, Any]):
        if cfg.threads:
            torch.set_num_threads(cfg.threads)
        self.objective, self.cfg, self.run = objective, cfg, run
        self.config = {**recipe, "train": cfg.model_dump(mode="json")}
        self.device = pick_device(cfg.device)
        self.format = torch.channels_last if cfg.channels_last else torch.contiguous_format
        module = objective.module.to(self.device, memory_format=self.format).train()
        optimizer = make_optimizer(module, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps, weight_decay=cfg.weight_decay)
        self.ema = Ema(module, decay=cfg.ema, power=cfg.ema_power)
        self.state = TrainState(module, optimizer, self.ema)
        self.update = GuardedUpdate(module, optimizer, clip=cfg.clip, device=self.device)
        self.generator = torch.Generator(self.device)
        self.log = RunLog(run)
        self.window = Window()
        self.schedule = cfg.schedule()
        self.verdict: Verdict | None = None  # of the step before

    @property
    def step(self) -> int:
        return self.state.step

    def begin(self, init: Callable[[], None] | None, *, resume: bool) -> int:
        """Takes up the newest checkpoint, or starts at 0; returns the step."""
        if not resume and checkpoints(self.run):
            raise ConfigError(
                f"{self.run} already holds a run at {checkpoints(self.run)[0].name}: resume it or name another"
            )
        self.run.mkdir(parents=True, exist_ok=True)
        before, passed = load_newest(self.run, self.state)
        if before is not None:
            _check_same(before, self.config, self.run)
        elif init:
            init()
            self.ema.reset()
        if self.cfg.compile:
            self.state.module.compile()
        self.log.rewind(self.step if before is not None else -1)
        self.window = Window(self.state.window)
        write_text(self.run / "config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        self.log.write("start", self.step, restart=before is not None, passed=passed, threads=torch.get_num_threads())
        self.display = Display(self.cfg.steps, self.step)
        for line in passed:
            self.display.say(f"passed over: {line}")
        self.tick_time = self.save_time = time.perf_counter()
        self.tick_step = self.step
        return self.step

    def make_batch(self, job: tuple[int, int]) -> Batch:
        """The micro batch (step, micro), ready to be sent; runs in a prefetch thread."""
        step, micro = job
        size = self.cfg.batch // self.cfg.accumulate
        first = step * self.cfg.batch + micro * size
        batch = self.objective.batch(range(first, first + size))
        return {name: tensor.pin_memory() for name, tensor in batch.items()} if self.device.type == "cuda" else batch

    def advance(self, batches: Iterator[Batch]) -> None:
        """One step: gradients of all micro batches, one update, the average."""
        cfg, step = self.cfg, self.step
        total = torch.zeros((), device=self.device)
        for micro in range(cfg.accumulate):
            batch = self._send(next(batches))
            seed = step_seed(cfg.seed, step, micro)
            torch.manual_seed(seed)  # dropout draws from the global generator
            with autocast(self.device, cfg.precision):
                loss, metrics = self.objective.loss(batch, self.generator.manual_seed(seed))
            (loss / cfg.accumulate).backward()
            total += loss.detach() / cfg.accumulate
            self.window.add(metrics)
        verdict = self.update(step, total, self.schedule(step))
        self.state.optimizer.zero_grad(set_to_none=True)
        self.window.add({"loss": total, "grad_norm": verdict.norm})
        # A CPU is asked at once. A GPU is asked about the step before, which it has finished or is about to, while this one
        # is queued: it never idles, and the guard keeps the weights as they were before the bad step in the meantime.
        self._stop_if_bad(verdict if self.device.type != "cuda" else self.verdict)
        self.verdict = verdict
        self.ema.update(step)
        self.state.step += 1
        self.display.step(self.step)

    def tick(self, batches: Prefetch[tuple[int, int], Batch]) -> None:
        """Logs the means since the last tick, and the speed (previews, evaluations and saves taken out)."""
        self._stop_if_bad(self.verdict)
        if self.step == self.tick_step:
            return
        seconds = time.perf_counter() - self.tick_time
        values = {
            "images": self.step * self.cfg.batch,
            **self.window.means(),
            "lr": self.schedule(self.step - 1),
            "images_per_second": round((self.step - self.tick_step) * self.cfg.batch / seconds, 2),
            "data_wait": round(batches.waited / seconds, 4),
            "memory_gb": round(memory_gb(), 3),
        }
        if self.device.type == "cuda":
            values["device_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
        self.display.tick(self.log.write("tick", self.step, **values))
        self.tick_step, self.tick_time, batches.waited = self.step, time.perf_counter(), 0.0

    def preview(self) -> None:
        """previews/<step>.png and .json, if the objective draws anything."""
        with self._averaged() as module:
            image = self.objective.preview(module)
            if image is None:
                return
            sha = _digest(module)
        path = self.run / "previews" / f"{self.step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            image.save(temporary, format="PNG")
        facts = {
            "step": self.step,
            "images": self.step * self.cfg.batch,
            "seed": self.cfg.seed,
            "weights": "ema",
            "sha256": sha,
        }
        write_text(path.with_suffix(".json"), json.dumps(facts) + "\n")
        self.log.write("preview", self.step, path=f"previews/{path.name}")

    def evaluate(self) -> None:
        """The objective's validation figures, into the log."""
        with self._averaged() as module:
            figures = self.objective.evaluate(module)
        if figures:
            self.log.write("evaluate", self.step, figures=figures)
            self.display.say(f"step {self.step}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    def save_is_due(self) -> bool:
        cfg = self.cfg
        if cfg.save_minutes and time.perf_counter() - self.save_time > 60 * cfg.save_minutes:
            return True
        return _due(self.step, cfg.save_every, False) or _due(self.step, cfg.keep_every, False)

    def save(self) -> None:
        """A checkpoint, and the report beside it."""
        self._stop_if_bad(self.verdict)
        with self._pause():
            self.state.window = self.window.read()
            save_checkpoint(self.run, self.state, self.config, keep=self.cfg.keep, keep_every=self.cfg.keep_every)
            write_report(self.run)
        self.save_time = time.perf_counter()

    def _stop_if_bad(self, verdict: Verdict | None) -> None:
        if verdict is None or not verdict.is_bad():
            return
        first = verdict.step * self.cfg.batch
        last = first + self.cfg.batch - 1
        found = verdict.explain()
        place = {"step": verdict.step, "positions": [first, last], "lr": self.schedule(verdict.step)}
        path = self.run / "diverged.json"
        write_text(path, json.dumps({**place, **found, "config": self.config}, indent=1) + "\n")
        self.log.write("diverged", verdict.step, first=found["first"])
        raise TrainingDiverged(
            f"step {verdict.step} (positions {first} to {last}): {found['first']} is not finite; its update was not made. "
            f"See {path}; the same command goes on from the last checkpoint, with a lower train.lr if you give one"
        )

    @contextmanager
    def _averaged(self) -> Iterator[torch.nn.Module]:
        """The module in eval mode with averaged weights, no gradients, the run's precision; its time is not training's."""
        module = self.state.module
        with self._pause(), torch.no_grad(), autocast(self.device, self.cfg.precision), self.ema.swapped():
            module.eval()
            try:
                yield module
            finally:
                module.train()

    @contextmanager
    def _pause(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.tick_time += time.perf_counter() - begun

    def _send(self, batch: Batch) -> Batch:
        """The batch on the device; pictures in the layout of the kernels."""
        return {
            name: tensor.to(
                self.device, non_blocking=True, memory_format=self.format if tensor.ndim == 4 else torch.preserve_format
            )
            for name, tensor in batch.items()
        }


def step_seed(seed: int, step: int, micro: int = 0) -> int:
    """The seed of all that is random in one micro batch but its data: 63 bits, unrelated for neighbouring steps."""
    return int(np.random.SeedSequence((seed, step, micro)).generate_state(1, np.uint64)[0]) >> 1


def _due(step: int, every: int, done: bool) -> bool:
    return every > 0 and (done or step % every == 0)


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """A run folder belongs to one config: ConfigError names the first key that is another one and may not be.

    Free are all of `train` but its batch and seed, and keys that the older config did not have.
    """
    fixed = {"train": {key: now["train"][key] for key in ("batch", "seed")}}
    for key, old, new in _differences(before, {**now, **fixed}):
        raise ConfigError(
            f"{run} was begun with {key} = {old!r}, now it is {new!r}: put it back, or name another run folder"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in before.keys() & now.keys():
        if isinstance(before[key], dict) and isinstance(now[key], dict):
            yield from _differences(before[key], now[key], f"{path}{key}.")
        elif before[key] != now[key]:
            yield f"{path}{key}", before[key], now[key]


def _digest(module: torch.nn.Module) -> str:
    """sha256 of the parameters' bytes in order: tells which weights drew a picture."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(parameter.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
