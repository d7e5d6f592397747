"""A training run as small as it can travel: its averaged weights in bf16, its config, log, report and previews.

    python scripts/slim_run.py runs/decoder back/decoder

The copy is a run still: `unclip models pack`, `unclip data embed --clip` and `unclip train --init` take it. Only to go on
training bit by bit needs the checkpoint that stays behind.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unclip.cli.console import guarded
from unclip.errors import WeightsError
from unclip.train.state import CHECKPOINTS, STATE, checkpoints, read_manifest

BESIDE = ("config.yaml", "tokenizer.json", "log.jsonl", "report.html", "finished.yaml")
WEIGHTS = "ema.safetensors"


def slim(run: Path, out: Path) -> Path:
    """Copies the newest checkpoint of `run`; WeightsError when it has none that is whole."""
    if not checkpoints(run):
        raise WeightsError(f"{run} has no checkpoint")
    newest = checkpoints(run)[0]
    manifest = read_manifest(newest)
    folder = out / CHECKPOINTS / newest.name
    shutil.rmtree(out, ignore_errors=True)
    folder.mkdir(parents=True)
    state = {name: _small(tensor) for name, tensor in load_file(newest / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS)
    content = (folder / WEIGHTS).read_bytes()
    held = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / STATE).write_text(json.dumps({**manifest, "files": {WEIGHTS: held}}, indent=1) + "\n", encoding="utf-8")
    for name in BESIDE:
        if (run / name).exists():
            shutil.copy2(run / name, out / name)
    if (run / "previews").exists():
        shutil.copytree(run / "previews", out / "previews")
    return out


def _small(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def main() -> None:
    parser = argparse.ArgumentParser(description="Copy a training run without what only its continuation needs.")
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    slim(args.run, args.out)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
