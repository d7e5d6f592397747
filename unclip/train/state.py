"""Checkpoints: all that a run needs to go on as if it had never stopped.

    checkpoints/step-00001234/
        model.safetensors      the weights, and the module's persistent buffers
        ema.safetensors        the same with averaged weights: what a bundle is made from
        optimizer.safetensors  `exp_avg.<weight>`, `exp_avg_sq.<weight>`, `step.<weight>`
        state.json             step, config, the log's open window, and every file's size and sha256; written last

The folder is written under another name and renamed, so one that is there is whole; the checksums find what a disk did to
it later. Random state needs no room: every generator is seeded from (seed, step).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unclip.errors import ConfigError, UnclipError, WeightsError
from unclip.files import remove_folder, remove_leftovers, replacing_folder
from unclip.train.ema import Ema

CHECKPOINTS, STATE = "checkpoints", "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class TrainState:
    """What changes while a run goes on. `step` counts the updates done; `window` is the log's since its last tick."""

    module: nn.Module
    optimizer: torch.optim.AdamW
    ema: Ema
    step: int = 0
    window: dict[str, list[float]] = field(default_factory=dict)


def checkpoints(run: str | Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((Path(run) / CHECKPOINTS).glob("step-*"), reverse=True)


def save_checkpoint(run: Path, state: TrainState, config: Mapping[str, Any], *, keep: int = 2, keep_every: int = 0) -> Path:
    """Saves `state`, then removes all but the newest `keep` (and those whose step is a multiple of `keep_every`).

    Raises UnclipError when the disk refuses; the checkpoints that were there stay as they were.
    """
    folder = run / CHECKPOINTS / f"step-{state.step:08d}"
    try:
        remove_leftovers(folder.parent) if folder.parent.exists() else folder.parent.mkdir(parents=True)
        with replacing_folder(folder) as temporary:
            _write(temporary, state, config)
    except (OSError, SafetensorError) as error:
        held = [path for path in checkpoints(run) if path != folder]
        rest = f"{held[0].name} is intact" if held else "there is no earlier one"
        advice = f"{rest}; make room and run the same command again"
        raise UnclipError(f"cannot save step {state.step} to {folder.parent}: {_reason(error)}; {advice}") from None
    held = [path for path in checkpoints(run) if _step_of(path) <= state.step]  # any later one was passed over as torn
    for path in checkpoints(run):
        if path not in held[:keep] and not (path in held and keep_every and _step_of(path) % keep_every == 0):
            remove_folder(path)
    return folder


def load_newest(run: Path, state: TrainState) -> tuple[dict[str, Any] | None, list[str]]:
    """Fills `state` from the newest checkpoint that is whole.

    Returns the config it was saved with (None when the run has no checkpoint) and a line for each one passed over. Raises
    WeightsError when there are checkpoints and none is whole, ConfigError when the network has another shape.
    """
    passed: list[str] = []
    for folder in checkpoints(run):
        try:
            manifest = read_manifest(folder)
        except WeightsError as error:
            passed.append(str(error))
            continue
        _fill(folder, state)
        state.step = manifest["step"]
        state.window = manifest["window"]
        return manifest["config"], passed
    if passed:
        raise WeightsError(f"no checkpoint of {run} is whole ({passed[0]}): remove {run / CHECKPOINTS} to start from step 0")
    return None, []


def read_manifest(folder: Path) -> dict[str, Any]:
    """The state.json of a checkpoint, after every file was checked against it; WeightsError says what is wrong."""
    try:
        manifest = json.loads((folder / STATE).read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            if _digest(folder / name) != expected:
                raise WeightsError(f"{folder / name} does not have the checksum it was saved with")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder} is not a whole checkpoint: {_reason(error)}") from None
    return manifest


def load_weights(
    run: str | Path,
    module: nn.Module,
    *,
    ema: bool = True,
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state,
) -> int:
    """Fills `module` with the averaged (or raw) weights of a run's newest whole checkpoint; returns its step.

    `adapt` makes them fit where the network is another one.
    """
    faults = []
    for folder in checkpoints(run):
        try:
            manifest = read_manifest(folder)
        except WeightsError as error:
            faults.append(str(error))
            continue
        state = adapt(load_file(folder / ("ema.safetensors" if ema else "model.safetensors")))
        _copy(state, named_tensors(module), folder)
        return manifest["step"]
    raise WeightsError(f"{run} has no whole checkpoint" + (f": {faults[0]}" if faults else ""))


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; what two names share comes once, under the first."""
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            named[name] = tensor
    return named


def _write(folder: Path, state: TrainState, config: Mapping[str, Any]) -> None:
    save_file(_packed(named_tensors(state.module)), folder / "model.safetensors")
    with state.ema.swapped():
        save_file(_packed(named_tensors(state.module)), folder / "ema.safetensors")
    save_file(_packed(_moments(state)), folder / "optimizer.safetensors")
    manifest = {
        "format": 1,
        "step": state.step,
        "config": config,
        "window": state.window,
        "torch": torch.__version__,
        "files": {path.name: _digest(path) for path in sorted(folder.iterdir())},
    }
    (folder / STATE).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _moments(state: TrainState) -> dict[str, Tensor]:
    """AdamW's state by weight; a weight that never had a gradient has none."""
    moments = {}
    for name, parameter in state.module.named_parameters():
        for kind, tensor in state.optimizer.state.get(parameter, {}).items():
            moments[f"{kind}.{name}"] = tensor
    return moments


def _fill(folder: Path, state: TrainState) -> None:
    named = named_tensors(state.module)
    _copy(load_file(folder / "model.safetensors"), named, folder)
    with state.ema.swapped():
        averaged = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
        saved = load_file(folder / "ema.safetensors")
        _copy({name: saved[name] for name in averaged}, averaged, folder)
    moments = load_file(folder / "optimizer.safetensors")
    for name, parameter in state.module.named_parameters():
        if f"step.{name}" in moments:
            # zeros_like keeps a kernel's channels_last strides, which the fused update takes for granted.
            held = {kind: torch.zeros_like(parameter) for kind in MOMENTS[:2]}
            held["step"] = torch.zeros((), device=parameter.device)
            for kind, tensor in held.items():
                tensor.copy_(moments[f"{kind}.{name}"])
            state.optimizer.state[parameter] = held


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor], folder: Path) -> None:
    """Copies into the tensors in place, so that their strides and whoever holds them stay."""
    for name in sorted(source.keys() ^ target.keys()):
        raise ConfigError(
            f"{folder} was saved by another network: {name} is only in {'it' if name in source else 'this one'}"
        )
    for name, tensor in target.items():
        if tensor.shape != source[name].shape:
            shapes = f"{list(source[name].shape)} there, {list(tensor.shape)} here"
            raise ConfigError(f"{folder} was saved by another network: {name} is {shapes}; train it in another run folder")
        tensor.copy_(source[name])


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
