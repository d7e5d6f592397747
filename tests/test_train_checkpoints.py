"""Checkpoints that a disk refused or spoiled."""

import errno
import json
import os
import resource

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from toy_training import Toy, outcome_of, run_toy

from unclip.errors import UnclipError, WeightsError
from unclip.train import state as state_module
from unclip.train.log import read_log
from unclip.train.state import checkpoints, load_weights, read_manifest


def names(run):
    return [path.name for path in checkpoints(run)]


def test_the_newest_two_are_kept_and_those_asked_for(tmp_path):
    run_toy(tmp_path, steps=21, keep_every=6)
    assert names(tmp_path) == ["step-00000021", "step-00000018", "step-00000012", "step-00000006"]


def test_a_checkpoint_is_what_it_says(tmp_path):
    toy = Toy()
    run_toy(tmp_path, toy=toy, steps=5)
    newest = checkpoints(tmp_path)[0]
    manifest = read_manifest(newest)
    assert manifest["step"] == 5
    assert manifest["config"]["width"] == 8
    assert manifest["config"]["train"]["batch"] == 8
    assert sorted(manifest["files"]) == ["ema.safetensors", "model.safetensors", "optimizer.safetensors"]
    weights, averaged = load_file(newest / "model.safetensors"), load_file(newest / "ema.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in toy.module.state_dict().items())
    assert averaged.keys() == weights.keys()
    assert not torch.equal(averaged["stem.weight"], weights["stem.weight"])
    moments = load_file(newest / "optimizer.safetensors")
    assert {name.partition(".")[2] for name in moments} == weights.keys()
    assert float(moments["step.stem.weight"]) == 5


@pytest.mark.parametrize("ema", [True, False])
def test_weights_are_loaded_for_use(tmp_path, ema):
    run_toy(tmp_path, steps=5)
    toy = Toy()
    assert load_weights(tmp_path, toy.module, ema=ema) == 5
    saved = load_file(checkpoints(tmp_path)[0] / ("ema.safetensors" if ema else "model.safetensors"))
    assert all(torch.equal(saved[name], tensor) for name, tensor in toy.module.state_dict().items())


def flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)


SPOILS = {
    "a flipped bit": lambda folder: flip(folder / "optimizer.safetensors"),
    "a cut file": lambda folder: os.truncate(folder / "model.safetensors", 100),
    "a file gone": lambda folder: (folder / "ema.safetensors").unlink(),
    "no manifest": lambda folder: (folder / "state.json").unlink(),
    "an empty manifest": lambda folder: (folder / "state.json").write_text(""),
    "another manifest": lambda folder: (folder / "state.json").write_text("[]"),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_spoilt_checkpoint_is_passed_over_and_its_steps_are_done_again(tmp_path, spoil):
    run_toy(tmp_path / "whole", steps=12)
    run_toy(tmp_path / "run", steps=12)
    spoil(checkpoints(tmp_path / "run")[0])
    assert run_toy(tmp_path / "run", steps=12, keep=1).step == 12
    assert outcome_of(tmp_path / "run") == outcome_of(tmp_path / "whole")
    started = [entry for entry in read_log(tmp_path / "run") if entry["event"] == "start"][-1]
    assert started["step"] == 9
    assert "step-00000012" in started["passed"][0]
    assert names(tmp_path / "run") == ["step-00000012"]
    read_manifest(checkpoints(tmp_path / "run")[0])


def test_a_run_with_no_whole_checkpoint_does_not_start_from_nothing(tmp_path):
    run_toy(tmp_path, steps=6)
    for folder in checkpoints(tmp_path):
        flip(folder / "ema.safetensors")
    with pytest.raises(WeightsError, match=r"no checkpoint of .* is whole .*ema.safetensors does not have the checksum"):
        run_toy(tmp_path)
    with pytest.raises(WeightsError, match="has no whole checkpoint"):
        load_weights(tmp_path, Toy().module)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")],
    ids=["from the system", "from safetensors"],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(tmp_path, monkeypatch, error, at):
    run, constant = tmp_path / "run", {"decay": "constant"}
    run_toy(run, steps=6, **constant)
    written = 0

    def save_file(tensors, path):
        nonlocal written
        written += 1
        path.write_bytes(b"half")
        if written > at:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "save_file", save_file)
        with pytest.raises(UnclipError, match=r"cannot save step 9 .*No space left.*step-00000006 is intact") as caught:
            run_toy(run, steps=12, **constant)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(run / "checkpoints")) == ["step-00000003", "step-00000006"]
    run_toy(run, steps=12, **constant)  # there is room again
    run_toy(tmp_path / "whole", steps=12, **constant)
    ended, whole = outcome_of(run), outcome_of(tmp_path / "whole")
    assert {key: ended[key] for key in whole if key.endswith("tensors")} == {
        key: whole[key] for key in whole if key.endswith("tensors")
    }


def test_a_real_limit_of_the_system_is_one_line(tmp_path):
    toy = Toy(width=64)
    run_toy(tmp_path, toy=toy, steps=3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(step: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))

    try:
        with pytest.raises(UnclipError, match=r"cannot save step 6 .*File too large.*step-00000003 is intact"):
            run_toy(tmp_path, limit, toy=toy, steps=6, log_every=100, preview_every=0, evaluate_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000003"]


def test_a_log_that_cannot_be_written_stops_the_run_with_one_line(tmp_path):
    def spoil(step: int) -> None:
        if step == 7:
            (tmp_path / "log.jsonl").unlink()
            (tmp_path / "log.jsonl").mkdir()

    with pytest.raises(
        UnclipError, match=r"cannot write to the run's folder .*: Is a directory; its checkpoints are as they were"
    ):
        run_toy(tmp_path, spoil)
    assert names(tmp_path) == ["step-00000006", "step-00000003"]


def test_the_open_window_of_the_log_survives(tmp_path):
    run_toy(tmp_path, steps=6, log_every=4)
    window = json.loads((checkpoints(tmp_path)[1] / "state.json").read_text())["window"]
    assert {name: len(values) for name, values in window.items()} == {"loss": 3, "grad_norm": 3, "worst": 3}
