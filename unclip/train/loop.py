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
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from unclip.device import autocast, pick_device
from unclip.errors import ConfigError, UnclipError
from unclip.files import locked, replacing, write_text
from unclip.train.config import TrainConfig, check_same
from unclip.train.ema import Ema
from unclip.train.guard import GuardedUpdate, TrainingDiverged, Verdict
from unclip.train.log import Display, RunLog, Window, memory_gb
from unclip.train.objective import Objective
from unclip.train.optimizer import make_optimizer
from unclip.train.prefetch import Prefetch
from unclip.train.ranks import Ranks
from unclip.train.report import write_report
from unclip.train.state import TrainState, checkpoints, load_newest, named_tensors, save_checkpoint
from unclip.train.stop import StopSignals

Batch = dict[str, Tensor]


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

    With `cfg.minutes` the clock may end it sooner: how many steps that is, is found out once, and logged.

    `recipe` is the rest of the resolved config, kept in the run's config.yaml; a run goes on only under the recipe that it
    began with. `init` fills the module's weights when the run starts at step 0 (not when it goes on). `on_step` is called
    with the number of steps done. Raises ConfigError (another batch, seed, recipe or network than the run's), WeightsError
    (no whole checkpoint left), TrainingDiverged, UnclipError (the disk is full, the run is in use), and whatever the
    objective raises.
    """
    run = Path(run)
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks())
        if ranks.first:
            stack.enter_context(_claimed(run))
        job = Job(objective, cfg, run, dict(recipe or {}), ranks)
        resumed = job.begin(init, resume=resume)
        stop = stack.enter_context(StopSignals())
        batches = stack.enter_context(job.prefetch())
        stack.enter_context(job.display)
        while True:
            stopped, save, cool = ranks.any(stop.received is not None, job.save_is_due(), job.cooling_is_due())
            if cool:
                job.cool_down()
            done = job.step >= job.schedule.steps
            if job.step != resumed:  # what is due at a checkpoint's step was done before it was saved
                if done or job.step % cfg.log_every == 0:
                    job.tick(batches)
                if _due(job.step, cfg.preview_every, done):
                    job.preview()
                if _due(job.step, cfg.evaluate_every, done):
                    job.evaluate()
                if done or stopped or save:
                    job.save()
            if done or stopped:
                break
            job.advance(batches)
            if on_step:
                on_step(job.step)
        if done:
            return Outcome("done", job.step, 0)
        number = stop.received or signal.SIGTERM  # another rank's, if not ours
        job.write("stop", signal=number.name)
        return Outcome("stopped", job.step, 128 + number)


class Job:
    """The parts of one run of the loop, and what each line of the loop does with them."""

    def __init__(self, objective: Objective, cfg: TrainConfig, run: Path, recipe: dict[str, Any], ranks: Ranks):
        if cfg.accumulate % ranks.world:
            raise ConfigError(
                f"{ranks.world} processes cannot share train.accumulate = {cfg.accumulate} evenly: use a multiple"
            )
        if cfg.threads:
            torch.set_num_threads(cfg.threads)
        self.objective, self.cfg, self.run, self.ranks = objective, cfg, run, ranks
        self.config = {**recipe, "train": cfg.model_dump(mode="json")}
        self.device = pick_device(cfg.device)
        self.layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
        self.module = objective.module.train()
        self.module.to(self.device, memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        optimizer = make_optimizer(self.module, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps, weight_decay=cfg.weight_decay)
        self.ema = Ema(self.module, decay=cfg.ema, power=cfg.ema_power)
        self.state = TrainState(self.module, optimizer, self.ema)
        self.update = GuardedUpdate(self.module, optimizer, clip=cfg.clip, device=self.device)
        self.verdict: Verdict | None = None  # of the step before
        self.generator = torch.Generator(self.device)
        self.schedule = cfg.schedule()
        self.log = RunLog(run)
        self.window = Window()

    @property
    def step(self) -> int:
        return self.state.step

    def begin(self, init: Callable[[], None] | None, *, resume: bool) -> int | None:
        """Takes up the newest checkpoint and returns its step; None: there is none, the run is new."""
        held = checkpoints(self.run)
        if held and not resume:
            raise ConfigError(f"{self.run} already holds a run, at {held[0].name}: resume it, or name another folder")
        before, passed = load_newest(self.run, self.state)
        if before is not None:
            check_same(before, self.config, self.run)
        else:
            if init:
                init()
            self.ranks.share(named_tensors(self.module).values())
            self.ema.reset()
        if self.cfg.compile:
            self.module.compile()
        self.window = Window(self.state.window)
        if self.ranks.first:
            with _on_disk(self.run):
                self.log.rewind(self.step if before is not None else -1)
                write_text(self.run / "config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        threads, world = torch.get_num_threads(), self.ranks.world
        self.write("start", restart=before is not None, passed=passed, threads=threads, ranks=world, device=str(self.device))
        self.display = Display(self.cfg.steps, self.step, quiet=not self.ranks.first)
        for line in passed:
            self.display.say(f"passed over: {line}")
        self.tick_time = self.save_time = self.begun = time.perf_counter()
        self.tick_step = self.first_step = self.step
        return None if before is None else self.step

    def prefetch(self) -> Prefetch[tuple[int, int], Batch]:
        """This rank's micro batches from here to the last step."""
        micros = self.ranks.micro_batches(self.cfg.accumulate)
        jobs = ((step, micro) for step in range(self.step, self.cfg.steps) for micro in micros)
        return Prefetch(self._make_batch, jobs, workers=self.cfg.workers, ahead=self.cfg.prefetch)

    def advance(self, batches: Iterator[Batch]) -> None:
        """One step: the gradients of all micro batches, one update, the average."""
        cfg, step = self.cfg, self.step
        total = torch.zeros((), device=self.device)
        for micro in self.ranks.micro_batches(cfg.accumulate):
            batch = self._send(next(batches))
            seed = step_seed(cfg.seed, step, micro)
            torch.manual_seed(seed)  # dropout draws from the global generator
            with autocast(self.device, cfg.precision):
                loss, metrics = self.objective.loss(batch, self.generator.manual_seed(seed))
            (loss / cfg.accumulate).backward()
            total += loss.detach() / cfg.accumulate
            self.window.add(metrics)
        self.ranks.add_up([total, *(p.grad for p in self.module.parameters() if p.grad is not None)])
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
        means = self.window.means()
        seconds = time.perf_counter() - self.tick_time  # after the means, which wait for the device
        values = {
            "images": self.step * self.cfg.batch,
            **means,
            "lr": self.schedule(self.step - 1),
            "ema_gap": self.ema.gap(),
            "images_per_second": round((self.step - self.tick_step) * self.cfg.batch / seconds, 2),
            "data_wait": round(batches.waited / seconds, 4),
            "memory_gb": round(memory_gb(), 3),
        }
        if self.device.type == "cuda":
            values["device_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
        self.display.tick(self.write("tick", **values))
        self.tick_step, self.tick_time, batches.waited = self.step, time.perf_counter(), 0.0

    def preview(self) -> None:
        """previews/<step>.png and .json, if the objective draws anything."""
        if not self.ranks.first:
            return
        with self._averaged() as module:
            image = self.objective.preview(module)
            if image is None:
                return
            sha = _digest(module)
        path = self.run / "previews" / f"{self.step:06d}.png"
        facts = {"step": self.step, "images": self.step * self.cfg.batch, "seed": self.cfg.seed, "ema_sha256": sha}
        with _on_disk(self.run):
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as temporary:
                image.save(temporary, format="PNG")
            write_text(path.with_suffix(".json"), json.dumps(facts) + "\n")
        self.write("preview", path=f"previews/{path.name}")

    def evaluate(self) -> None:
        """The objective's validation figures, into the log."""
        if not self.ranks.first:
            return
        with self._averaged() as module:
            figures = self.objective.evaluate(module)
        if figures:
            self.write("evaluate", figures=figures)
            self.display.say(f"step {self.step}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))

    def cooling_is_due(self) -> bool:
        """Whether the time is up in which the rate stays high, and the end not yet known."""
        cfg = self.cfg
        seconds = 60 * cfg.minutes * (1 - cfg.cooldown)
        return bool(seconds) and self.schedule.steps == cfg.steps and time.perf_counter() - self.begun > seconds

    def cool_down(self) -> None:
        """Ends the run with a cool-down that takes its share of `minutes`, as the steps since this start took theirs."""
        cfg = self.cfg
        steps = self.step + max(1, round((self.step - self.first_step) * cfg.cooldown / (1 - cfg.cooldown)))
        if steps < cfg.steps:
            self.schedule = replace(self.schedule, steps=steps, cooldown=1 - self.step / steps)
            self.write("cool_down", until=steps)
            self.display.say(f"the rate falls until step {steps:,}, the last")

    def save_is_due(self) -> bool:
        cfg = self.cfg
        if cfg.save_minutes and time.perf_counter() - self.save_time > 60 * cfg.save_minutes:
            return True
        return self.step > 0 and (_due(self.step, cfg.save_every) or _due(self.step, cfg.keep_every))

    def save(self) -> None:
        """A checkpoint, and the report beside it."""
        self._stop_if_bad(self.verdict)
        if self.ranks.first:
            with self._pause(), _on_disk(self.run):
                self.state.window = self.window.read()
                save_checkpoint(self.run, self.state, self.config, keep=self.cfg.keep, keep_every=self.cfg.keep_every)
                write_report(self.run)
        self.save_time = time.perf_counter()

    def write(self, event: str, **values: Any) -> dict[str, Any]:
        """A line of the log, at this step; returns it."""
        if not self.ranks.first:
            return {"event": event, "step": self.step, **values}
        with _on_disk(self.run):
            return self.log.write(event, self.step, **values)

    def _make_batch(self, job: tuple[int, int]) -> Batch:
        """The micro batch (step, micro), ready to be sent; runs in a prefetch thread."""
        step, micro = job
        size = self.cfg.batch // self.cfg.accumulate
        first = step * self.cfg.batch + micro * size
        batch = self.objective.batch(range(first, first + size))
        return {name: tensor.pin_memory() for name, tensor in batch.items()} if self.device.type == "cuda" else batch

    def _send(self, batch: Batch) -> Batch:
        """The batch on the device; pictures in the layout of the kernels."""
        layouts = {name: self.layout if _is_picture(t) else torch.preserve_format for name, t in batch.items()}
        return {name: t.to(self.device, non_blocking=True, memory_format=layouts[name]) for name, t in batch.items()}

    def _stop_if_bad(self, verdict: Verdict | None) -> None:
        if verdict is None or not verdict.is_bad():
            return
        first = verdict.step * self.cfg.batch
        last = first + self.cfg.batch - 1
        found = verdict.explain()
        path = self.run / "diverged.json"
        if self.ranks.first:
            place = {"step": verdict.step, "positions": [first, last], "lr": self.schedule(verdict.step)}
            write_text(path, json.dumps({**place, **found, "config": self.config}, indent=1) + "\n")
            self.log.write("diverged", verdict.step, first=found["first"])
        raise TrainingDiverged(
            f"step {verdict.step} (positions {first} to {last}): {found['first']} is not finite; its update was not made. "
            f"See {path}; the same command goes on from the last checkpoint, with a lower train.lr if you give one"
        )

    @contextmanager
    def _averaged(self) -> Iterator[nn.Module]:
        """The module in eval mode with averaged weights, no gradients, the run's precision; its time is not training's."""
        # Sampling has shapes of its own, each of which would be compiled for longer than it runs.
        eager = torch.compiler.set_stance("force_eager") if self.cfg.compile else nullcontext()
        with self._pause(), torch.no_grad(), autocast(self.device, self.cfg.precision), self.ema.swapped(), eager:
            self.module.eval()
            try:
                yield self.module
            finally:
                self.module.train()

    @contextmanager
    def _pause(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.tick_time += time.perf_counter() - begun


def step_seed(seed: int, step: int, micro: int = 0) -> int:
    """The seed of all that is random in one micro batch but its data: 63 bits, unrelated for neighbouring steps."""
    return int(np.random.SeedSequence((seed, step, micro)).generate_state(1, np.uint64)[0]) >> 1


@contextmanager
def _claimed(run: Path) -> Iterator[None]:
    """Makes the run's folder and holds it: two processes in one would undo each other's work."""
    with ExitStack() as stack:
        try:
            with _on_disk(run):
                run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(run / ".lock"))
        except BlockingIOError:
            raise UnclipError(f"another process is training in {run}: wait for it, or name another folder") from None
        yield


@contextmanager
def _on_disk(run: Path) -> Iterator[None]:
    """Says in one line what the disk refuses; the checkpoints are whole whatever it was."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise UnclipError(
            f"cannot write to the run's folder {run}: {error.strerror}; its checkpoints are as they were"
        ) from None


def _is_picture(tensor: Tensor) -> bool:
    """Whether it is (B, C, H, W) for convolutions; bytes come as (B, H, W, C), which is that layout already."""
    return tensor.ndim == 4 and tensor.is_floating_point()


def _due(step: int, every: int, done: bool = False) -> bool:
    return every > 0 and (done or step % every == 0)


def _digest(module: nn.Module) -> str:
    """sha256 of the parameters' bytes in order: tells which weights drew a picture."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
