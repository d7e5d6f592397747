"""`train.minutes`: the clock says when the rate begins to fall, the steps done until then say when the run ends."""

import pytest
from toy_training import run_toy

from unclip.errors import ConfigError
from unclip.train.config import TrainConfig
from unclip.train.log import read_log

TIMED = {"steps": 10**9, "decay": "wsd", "cooldown": 0.5, "minutes": 1 / 60, "warmup": 0, "log_every": 1}
TIMED |= {"preview_every": 0, "evaluate_every": 0, "save_every": 0}


def events(run, kind):
    return [entry for entry in read_log(run) if entry["event"] == kind]


def test_the_cool_down_has_its_share_of_the_steps_and_ends_the_run(tmp_path):
    outcome = run_toy(tmp_path, **TIMED)
    (cool,) = events(tmp_path, "cool_down")
    assert outcome.status == "done"
    assert outcome.step == cool["until"] == 2 * cool["step"]
    rates = {entry["step"]: entry["lr"] for entry in events(tmp_path, "tick")}
    assert rates[cool["step"]] == 3e-3
    assert rates[outcome.step] == pytest.approx(3e-3 / cool["step"])


def test_the_same_command_gives_a_finished_run_as_much_time_again(tmp_path):
    first = run_toy(tmp_path, **TIMED).step
    second = run_toy(tmp_path, **TIMED).step
    begun, ends = (events(tmp_path, "cool_down")[1][key] for key in ("step", "until"))
    assert first < begun < ends == second
    assert ends - begun == begun - first


def test_steps_end_a_run_that_has_time_left(tmp_path):
    assert run_toy(tmp_path, **{**TIMED, "steps": 7, "minutes": 60}).step == 7
    assert events(tmp_path, "cool_down") == []


def test_only_a_rate_that_can_fall_at_any_time_is_timed():
    with pytest.raises(ConfigError, match="minutes needs decay = wsd"):
        TrainConfig.parse({"steps": 10, "minutes": 5, "decay": "cosine"})
