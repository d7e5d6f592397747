"""What one step does, and what stops it."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn
from toy_training import Toy, outcome_of, run_toy

from unclip.train import log as log_module
from unclip.train.guard import TrainingDiverged
from unclip.train.log import read_log
from unclip.train.loop import step_seed
from unclip.train.state import checkpoints

GOLDEN = Path(__file__).parent / "golden" / "train_toy.txt"
QUIET = {"preview_every": 0, "evaluate_every": 0, "save_every": 0}


def ticks(run: Path) -> list[dict]:
    return [entry for entry in read_log(run) if entry["event"] == "tick"]


def weights(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run)[0] / f"{name}.safetensors")


def test_twenty_steps_are_what_they_were(tmp_path):
    run_toy(tmp_path, steps=20, log_every=1, **QUIET)
    golden = [line.split() for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    ours = [(entry["step"], entry["loss"], entry["grad_norm"], entry["lr"]) for entry in ticks(tmp_path)]
    assert ours == [pytest.approx(tuple(map(float, row)), rel=1e-5) for row in golden]


def test_a_step_takes_its_positions_once_and_in_order(tmp_path):
    class Listening(Toy):
        seen: tuple[int, ...] = ()

        def batch(self, positions):
            self.seen += tuple(positions)
            return super().batch(positions)

    toy = Listening()
    run_toy(tmp_path, toy=toy, steps=5, batch=6, accumulate=2, **QUIET)
    assert toy.seen == tuple(range(30))


def test_micro_batches_add_up_to_the_batch(tmp_path):
    for accumulate in (1, 2, 8):
        toy = Toy(random_loss=False)
        run_toy(tmp_path / str(accumulate), toy=toy, steps=8, accumulate=accumulate, log_every=1, **QUIET)
    whole = ticks(tmp_path / "1")
    for accumulate in ("2", "8"):
        for ours, theirs in zip(ticks(tmp_path / accumulate), whole, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        torch.testing.assert_close(weights(tmp_path / accumulate), weights(tmp_path / "1"), rtol=1e-3, atol=1e-5)


def test_the_layout_of_the_kernels_changes_the_speed_alone(tmp_path):
    for name, channels_last in (("last", True), ("first", False)):
        toy = Toy(random_loss=False)  # a dropout mask falls on other elements in another layout
        run_toy(tmp_path / name, toy=toy, steps=8, channels_last=channels_last, **QUIET)
    torch.testing.assert_close(weights(tmp_path / "last"), weights(tmp_path / "first"), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(weights(tmp_path / "last", "ema"), weights(tmp_path / "first", "ema"), rtol=1e-3, atol=1e-5)


def test_the_loss_is_the_same_as_by_hand(tmp_path):
    """The loop against a plain one: torch's own clipping, unfused AdamW, the average by its formula."""
    given = {"weight_decay": 0.1, "clip": 0.5, "ema": 0.7, "decay": "constant", "channels_last": False}
    run_toy(tmp_path, steps=10, log_every=1, **given, **QUIET)
    toy = Toy()
    toy.module.train()
    decayed = [parameter for name, parameter in toy.module.named_parameters() if name in ("stem.weight", "head.weight")]
    others = [parameter for name, parameter in toy.module.named_parameters() if name not in ("stem.weight", "head.weight")]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=False, foreach=False)
    average = {name: tensor.clone() for name, tensor in toy.module.state_dict().items()}
    for step, tick in enumerate(ticks(tmp_path)):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 3e-3 * min(1.0, (step + 1) / 5)
        torch.manual_seed(step_seed(0, step))
        loss, _ = toy.loss(toy.batch(range(8 * step, 8 * step + 8)), torch.Generator().manual_seed(step_seed(0, step)))
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(toy.module.parameters(), 0.5)
        optimizer.step()
        rate = min(0.7, (1 + step) / (10 + step))
        average = {name: rate * average[name] + (1 - rate) * tensor for name, tensor in toy.module.state_dict().items()}
        assert tick["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert tick["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    torch.testing.assert_close(weights(tmp_path), dict(toy.module.state_dict()), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(weights(tmp_path, "ema"), average, rtol=1e-3, atol=1e-5)


def test_two_seeds_two_runs_and_one_seed_one(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_toy(tmp_path / name, steps=4, seed=seed)
    assert outcome_of(tmp_path / "a") == outcome_of(tmp_path / "b")
    assert outcome_of(tmp_path / "a") != outcome_of(tmp_path / "c")
    assert len({step_seed(seed, step, micro) for seed in range(5) for step in range(50) for micro in range(4)}) == 1000


class Poisoned(Toy):
    """Position 37, in step 4, spoils the loss, or the gradient of the stem's bias alone."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def loss(self, batch, generator):
        loss, metrics = super().loss(batch, generator)
        if batch["positions"].eq(37).any():
            bias = self.module["stem"].bias
            # The square root has no slope at 0: its value is fine, its gradient is not.
            loss = loss * math.inf if self.what == "loss" else loss + (bias - bias.detach()).abs().sum().sqrt()
        return loss, metrics

    def batch(self, positions):
        return super().batch(positions) | {"positions": torch.tensor(list(positions))}


@pytest.mark.parametrize(("what", "first"), [("loss", "the loss"), ("gradient", "the gradient of stem.bias")])
def test_a_step_that_is_not_finite_stops_before_its_update(tmp_path, what, first):
    toy = Poisoned(what)
    with pytest.raises(TrainingDiverged, match=rf"step 4 \(positions 32 to 39\): {first} is not finite") as caught:
        run_toy(tmp_path / "bad", toy=toy)
    assert "\n" not in str(caught.value)
    report = json.loads((tmp_path / "bad" / "diverged.json").read_text())
    assert (report["step"], report["positions"], report["first"]) == (4, [32, 39], first)
    assert report["gradients"] == (["stem.bias"] if what == "gradient" else [*dict(toy.module.named_parameters())])
    assert [path.name for path in checkpoints(tmp_path / "bad")] == ["step-00000003"]
    good = Toy()
    run_toy(tmp_path / "good", toy=good, steps=4, decay="constant", **QUIET)
    torch.testing.assert_close(dict(toy.module.state_dict()), dict(good.module.state_dict()), rtol=0, atol=0)
    with pytest.raises(TrainingDiverged):
        run_toy(tmp_path / "bad", toy=Poisoned(what))  # the same command, the same end


def test_an_error_while_a_batch_is_made_ends_the_run_at_once(tmp_path):
    class Broken(Toy):
        def batch(self, positions):
            if 50 in positions:
                raise RuntimeError("shard 7 is torn")
            return super().batch(positions)

    with pytest.raises(RuntimeError, match="shard 7 is torn"):
        run_toy(tmp_path, toy=Broken())
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000006", "step-00000003"]


def test_autocast_is_on_in_the_loss_and_in_the_pictures_when_asked_for(tmp_path):
    class Listening(Toy):
        kinds: tuple[torch.dtype, ...] = ()

        def answer(self, x, kind):
            result = super().answer(x, kind)
            self.kinds += (result.dtype,)
            return result.float()

    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        toy = Listening()
        run_toy(tmp_path / precision, toy=toy, steps=2, precision=precision)
        assert set(toy.kinds) == {dtype}
        assert {tensor.dtype for tensor in weights(tmp_path / precision).values()} == {torch.float32}


def test_pictures_and_figures_come_from_the_average_and_training_goes_on_with_the_weights(tmp_path):
    class Listening(Toy):
        def preview(self, module):
            assert not torch.is_grad_enabled()
            self.drawn = module["stem"].weight.clone()

    toy = Listening()
    run_toy(tmp_path, toy=toy, steps=10)
    assert torch.equal(toy.drawn, weights(tmp_path, "ema")["stem.weight"])
    assert torch.equal(toy.module["stem"].weight, weights(tmp_path)["stem.weight"])
    assert toy.module.training
    assert not (tmp_path / "previews").exists()  # nothing was drawn


def test_compiled_training_goes_the_same_way(tmp_path):
    """The switch reaches the module and its names stay: a stand-in for the compiler, which takes minutes here."""
    toy = Toy()
    toy.module.compile = lambda: setattr(toy, "compiled", True)
    run_toy(tmp_path, toy=toy, steps=1, compile=True, **QUIET)
    assert toy.compiled
    assert weights(tmp_path).keys() == dict(toy.module.named_parameters()).keys()


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(tmp_path, monkeypatch, capsys):
    run_toy(tmp_path / "lines", steps=8, log_every=4)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("step 4/8  loss ") and "images/s" in line and "data wait" in line for line in lines)
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=140)
    monkeypatch.setattr(log_module, "Console", lambda **_: terminal)
    run_toy(tmp_path / "bar", steps=8, log_every=4)
    assert "8/8" in screen.getvalue()
    assert "images/s" in screen.getvalue()
