"""The tasks as verbs: files, JSON, sheet, animation; `info` and the command that makes a picture again; faults."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from unclip.cli import main
from unclip.cli.tasks_info import command
from unclip.images import read_picture, read_settings

TASKS = {
    "variations": ["red.png", "-n", "2", "--seed", "7", "--eta", "0.5"],
    "reconstruct": ["red.png", "--seed", "3"],
    "interpolate": ["red.png", "a blue disc", "blue.png", "--frames", "3", "--seed", "2"],
    "text-diff": ["red.png", "--old", "a red disc", "--new", "a blue disc", "--theta", "0.1,0.4"],
    "img2img": ["red.png", "--prompt", "a blue disc", "--strength", "0.5", "-n", "2", "--seed", "4"],
    "probe": ["red.png", "--among", "others", "--dims", "1,3", "--seed", "5"],
}
MADE = {"variations": 2, "reconstruct": 1, "interpolate": 3, "text-diff": 2, "img2img": 2, "probe": 2}


@pytest.fixture
def run(micro_bundle, squares, tmp_path, capsys, monkeypatch):
    """Runs a verb on the micro model in a folder of pictures; gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name, position in {"red": 0, "blue": 22}.items():
        Image.fromarray(squares.sample(position, 40).image).save(f"{name}.png")
    Path("others").mkdir()
    for position in range(6):
        Image.fromarray(squares.sample(position, 32).image).save(f"others/{position}.png")

    def call(verb: str, *arguments: str, few=("--steps", "6", "--size", "32")):
        asked = [*arguments, *few, "--model", str(micro_bundle), "--device", "cpu"] if verb != "info" else arguments
        return main([verb, *asked]), *capsys.readouterr()

    return call


@pytest.mark.parametrize("verb", TASKS)
def test_a_task_writes_pictures_that_say_how_they_are_made_again(run, micro_bundle, verb):
    code, out, err = run(verb, *TASKS[verb], "--json", "-o", "first")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert len(told["paths"]) == MADE[verb]
    assert [read_settings(path) for path in told["paths"]] == told["settings"]
    assert sorted(path.name for path in Path("first").iterdir()) == [Path(path).name for path in told["paths"]]
    assert {"load", "decoder", "save"} <= set(told["seconds"])
    last = Path(told["paths"][-1])
    code, out, err = run("info", str(last), "--json")
    assert (code, err) == (0, "")
    again = shlex.split(json.loads(out)["command"])
    assert again[0] == "unclip"
    again = ["others" if word == "FOLDER" else str(micro_bundle) if word == "tiny" else word for word in again]
    assert main([*again[1:], "--out", "second", "--device", "cpu"]) == 0
    assert last.read_bytes() in [path.read_bytes() for path in Path("second").iterdir()]


def test_the_sheet_and_the_animation(run):
    code, out, _ = run("interpolate", "red.png", "blue.png", "--frames", "4", "--grid", "--webp", "-o", "out")
    assert code == 0
    assert [Path(line).name for line in out.splitlines()] == [
        *(f"00{i}-interpolate-red-0.png" for i in range(4)),
        "grid.png",
        "frames.webp",
    ]
    with Image.open("out/frames.webp") as animation, Image.open("out/003-interpolate-red-0.png") as last:
        assert (animation.n_frames, animation.size) == (4, (32, 32))
        animation.seek(3)
        assert animation.convert("RGB").tobytes() == last.tobytes()
    assert read_settings("out/frames.webp") == {
        **{key: value for key, value in read_settings("out/000-interpolate-red-0.png").items() if key != "frame"},
        "milliseconds": 150,
    }
    assert "--webp --milliseconds 150" in command(read_settings("out/frames.webp"))


def test_a_reconstruction_says_how_near_it_comes(run):
    code, out, _ = run("reconstruct", "red.png")
    assert code == 0
    assert out.splitlines()[1].startswith("PSNR ")


def test_info_tells_the_ancestors(run):
    run("variations", "red.png", "-n", "1", "-o", "first")
    code, _, _ = run("text-diff", "first/000-variations-red-0.png", "--new", "a blue disc", "--theta", "0.2", "-o", "next")
    assert code == 0
    code, out, _ = run("info", "next/000-text-diff-000-variations-red-0.png")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "task   text_diff"
    assert lines[-1].startswith("unclip text-diff 000-variations-red-0.png --old '' --new 'a blue disc' --theta 0.2")
    assert any(line.startswith("  of 000-variations-red-0.png") and "task variations" in line for line in lines)
    assert any(line.startswith("    of red.png") for line in lines)


def test_info_of_a_generated_picture(run, micro_bundle):
    run("generate", "a red disc", "--seed", "3", "-o", "out", few=["--steps", "2", "--size", "32"])
    code, out, _ = run("info", "out/000-a-red-disc-3.png")
    assert code == 0
    assert out.splitlines()[-1] == "unclip generate 'a red disc' --seed 3 --size 32 --model tiny --candidates 2 --steps 2"


def save_odd_pictures() -> None:
    picture = read_picture("red.png").convert("RGB")
    Image.new("RGB", (1, 1)).save("dot.png")
    Image.new("L", (30_000, 8)).save("wide.png")
    picture.save("moving.gif", save_all=True, append_images=[picture.rotate(90)])
    Path("words.png").write_text("no picture")
    Path("torn.png").write_bytes(Path("red.png").read_bytes()[:100])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["variations", "dot.png"], "dot.png is 1 x 1 px: expected 8 to 16384 px a side"),
        (["variations", "wide.png"], "wide.png is 30000 x 8 px"),
        (["variations", "moving.gif"], "moving.gif has 2 frames: give a picture that stands still"),
        (["reconstruct", "words.png"], "cannot read words.png: it is not a whole picture"),
        (["reconstruct", "torn.png"], "cannot read torn.png"),
        (["reconstruct", "missing.png"], "cannot read missing.png: No such file"),
        (["interpolate", "red.png", "missing.jpg"], "cannot read missing.jpg: No such file"),
        (["interpolate", "red.png"], "two or more"),
        (["interpolate", "red.png", "red.png"], "ends 1 and 2 are the same"),
        (["interpolate", "red.png", "blue.png", "--noise", "loud"], "'loud' is not one of"),
        (["variations", "red.png", "--eta", "2"], "eta = 2: expected 0 to 1"),
        (["variations", "red.png", "-n", "0"], "n = 0: expected at least 1"),
        (["img2img", "red.png", "-n", "0"], "-n 0: expected at least 1"),
        (["img2img", "red.png", "--strength", "0"], "strength = 0"),
        (["text-diff", "red.png", "--new", "a", "--theta", "0.6"], "theta = 0.6: expected 0 to 0.5"),
        (["text-diff", "red.png", "--new", "a", "--theta", "much"], "--theta much: expected numbers"),
        (["text-diff", "red.png"], "Missing option '--new'"),
        (["probe", "red.png", "--among", "nowhere"], "there is no folder nowhere"),
        (["probe", "red.png", "--among", "others", "--dims", "1.5"], "--dims 1.5: expected whole numbers"),
        (["probe", "red.png", "--among", "others", "--dims", "6"], "6 pictures give components from 0 to 5"),
        (["info", "blue.png"], "blue.png carries no settings"),
        (["info", "moving.gif"], "it is not a whole PNG"),
    ],
)
def test_a_fault_is_one_line_code_2_and_no_picture(run, arguments, words):
    save_odd_pictures()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not Path("out").exists() or list(Path("out").iterdir()) == []


def test_pictures_of_every_mode_are_read_as_they_look(run):
    """16 bits, a palette, CMYK and a turned camera are no faults."""
    upright = read_picture("red.png").convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.rotate(90).save("turned.png", exif=turned)
    upright.convert("P").save("palette.png")
    upright.convert("CMYK").save("cmyk.tif")
    upright.convert("L").convert("I;16").point(lambda value: value * 257).save("deep.png")
    codes = {
        name: run("variations", name, "-n", "1", "-o", name + ".out")[0] for name in ("palette.png", "cmyk.tif", "deep.png")
    }
    assert set(codes.values()) == {0}
    made = [run("variations", name, "-n", "1", "-o", f"{name}.out", "--json")[1] for name in ("red.png", "turned.png")]
    one, other = (Path(json.loads(out)["paths"][0]) for out in made)
    with Image.open(one) as first, Image.open(other) as second:
        assert first.tobytes() == second.tobytes()
