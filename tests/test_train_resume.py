"""What a run keeps and what it may change when the same command is given again."""

import os
import signal
from pathlib import Path

import pytest
import toy_training
from toy_training import Toy, outcome_of, run_toy

from unclip.errors import ConfigError, UnclipError
from unclip.files import locked
from unclip.train.state import checkpoints


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_saves_and_goes_on_exactly(tmp_path, number, code):
    run_toy(tmp_path / "whole")
    before = signal.getsignal(number)
    stopped = run_toy(tmp_path / "run", lambda step: os.kill(os.getpid(), number) if step == 7 else None)
    assert (stopped.status, stopped.step, stopped.exit_code) == ("stopped", 7, code)
    assert signal.getsignal(number) is before
    assert checkpoints(tmp_path / "run")[0].name == "step-00000007"
    assert run_toy(tmp_path / "run").status == "done"
    assert outcome_of(tmp_path / "run") == outcome_of(tmp_path / "whole")


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def impatient(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins by ignoring it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_toy(tmp_path, impatient)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_same_data_and_noise_with_other_workers(tmp_path):
    run_toy(tmp_path / "one", workers=1, prefetch=1)
    run_toy(tmp_path / "three", workers=3, prefetch=7)
    assert outcome_of(tmp_path / "one") == outcome_of(tmp_path / "three")


def test_a_finished_run_has_nothing_to_do_and_can_be_made_longer(tmp_path):
    run_toy(tmp_path, steps=6)
    before = (tmp_path / "log.jsonl").read_text()
    assert run_toy(tmp_path, steps=6).step == 6
    after = (tmp_path / "log.jsonl").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == len(before.splitlines()) + 1  # the start alone
    assert run_toy(tmp_path, steps=9, lr=1e-4, log_every=1).step == 9


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"batch": 4}, "train.batch = 8, now it is 4"), ({"seed": 5}, "train.seed = 0, now it is 5")],
)
def test_a_run_keeps_what_its_steps_are_made_of(tmp_path, changes, named):
    run_toy(tmp_path, steps=3)
    with pytest.raises(ConfigError, match=named):
        run_toy(tmp_path, **changes)


def test_a_run_keeps_its_network(tmp_path):
    run_toy(tmp_path, steps=3)
    with pytest.raises(ConfigError, match=r"table.weight is \[4, 8\] there, \[4, 6\] here"):
        run_toy(tmp_path, toy=Toy(width=6))


def test_a_run_keeps_its_recipe_but_takes_new_keys(tmp_path):
    cfg = toy_training.TrainConfig.model_validate(toy_training.CONFIG | {"steps": 2})
    toy_training.train(Toy(), cfg, tmp_path, recipe={"data": {"drop": 0.1}})
    toy_training.train(Toy(), cfg, tmp_path, recipe={"data": {"drop": 0.1, "new": 1}})
    with pytest.raises(ConfigError, match=r"data.drop = 0.1, now it is 0.5"):
        toy_training.train(Toy(), cfg, tmp_path, recipe={"data": {"drop": 0.5}})


def test_init_fills_a_new_run_only(tmp_path):
    cfg = toy_training.TrainConfig.model_validate(toy_training.CONFIG | {"steps": 0})
    toy = Toy()

    def fill() -> None:
        toy.module["stem"].weight.data.fill_(0.5)

    toy_training.train(toy, cfg, tmp_path, init=fill)
    again = Toy()
    toy_training.train(again, cfg, tmp_path, init=lambda: pytest.fail("the run was there already"))
    assert again.module["stem"].weight.eq(0.5).all()


def test_one_process_a_run_and_no_silent_second_start(tmp_path):
    run_toy(tmp_path, steps=2)
    with locked(tmp_path / ".lock"), pytest.raises(UnclipError, match="another process is training"):
        run_toy(tmp_path)
    cfg = toy_training.TrainConfig.model_validate(toy_training.CONFIG)
    with pytest.raises(ConfigError, match="already holds a run, at step-00000002"):
        toy_training.train(Toy(), cfg, tmp_path, resume=False)


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnclipError, match="cannot write to the run's folder") as caught:
        run_toy(Path(tmp_path / "file" / "run"))
    assert "\n" not in str(caught.value)
