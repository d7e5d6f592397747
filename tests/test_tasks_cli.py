"""The tasks as verbs: files, JSON, sheet, animation; `info` and the command that makes a picture again; faults."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.cli import main
from unclip.cli.tasks_info import command
from unclip.images import read_picture, read_settings, save_png

TASKS = {
    "variations": ["red.png", "-n", "2", "--seed", "7", "--eta", "0.5"],
    "reconstruct": ["red.png", "--seed", "3"],
    "interpolate": ["red.png", "a blue disc", "blue.png", "--frames", "3", "--seed", "2"],
    "text-diff": ["red.png", "--old", "a red disc", "--new", "a blue disc", "--theta", "0.1,0.4"],
    "img2img": ["red.png", "--prompt", "a blue disc", "--strength", "0.5", "-n", "2", "--seed", "4"],
    "inpaint": ["red.png", "--repaint", "mask.png", "--prompt", "a blue disc", "-n", "2", "--seed", "4", "--size", "32"],
    "outpaint": [
        "red.png",
        "-p",
        "a red bar",
        "--left",
        "8",
        "--bottom",
        "12",
        "--overlap",
        "0.25",
        "-n",
        "2",
        "--seed",
        "6",
    ],
    "probe": ["red.png", "--among", "others", "--dims", "1,3", "--seed", "5"],
}
MADE = {
    "variations": 2,
    "reconstruct": 1,
    "interpolate": 3,
    "text-diff": 2,
    "img2img": 2,
    "inpaint": 2,
    "outpaint": 2,
    "probe": 2,
}


def mask(size: tuple[int, int] = (40, 40), hole: tuple[int, int, int, int] = (4, 8, 20, 30)) -> Image.Image:
    """White in the hole, black elsewhere."""
    made = Image.new("L", size)
    made.paste(255, hole)
    return made


@pytest.fixture
def run(micro_bundle, squares, tmp_path, capsys, monkeypatch):
    """Runs a verb on the micro model in a folder of pictures; gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name, position in {"red": 0, "blue": 22}.items():
        Image.fromarray(squares.sample(position, 40).image).save(f"{name}.png")
    mask().save("mask.png")
    Path("others").mkdir()
    for position in range(6):
        Image.fromarray(squares.sample(position, 32).image).save(f"others/{position}.png")

    def call(verb: str, *arguments: str, few=("--steps", "6", "--size", "32")):
        if verb in ("inpaint", "outpaint"):  # whose pictures are as large as what is given, and whose steps are repeated
            few = ("--steps", "2")
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
    assert "--milliseconds 150 --webp" in command(read_settings("out/frames.webp"))


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


HOLE = np.s_[8:30, 4:20]  # of `mask`, rows and columns


def kept(path: str, picture: str = "red.png") -> np.ndarray:
    """(H, W) bool: where the picture at `path` has the other's pixels."""
    with Image.open(path) as made, Image.open(picture) as given:
        return (np.asarray(made) == np.asarray(given.convert("RGB"))).all(-1)


@pytest.mark.parametrize("flag", ["--repaint", "--mask", "-M"])
def test_inpainting_keeps_all_but_the_hole(run, flag):
    code, out, err = run("inpaint", "red.png", flag, "mask.png", "-p", "a blue disc", "-n", "1")
    assert (code, out, err) == (0, "out/000-inpaint-red-0.png\n", "")
    same = kept("out/000-inpaint-red-0.png")
    assert same.shape == (40, 40)
    assert not same[HOLE].all()
    same[HOLE] = True
    assert same.all()


def test_a_hole_in_the_picture_itself_is_filled_and_made_again_without_a_mask(run):
    red = read_picture("red.png").convert("RGB")
    red.putalpha(mask().point(lambda value: 255 - value))
    red.save("holed.png")
    assert run("inpaint", "holed.png", "-n", "2", "--seed", "3")[0] == 0
    same = kept("out/001-inpaint-holed-4.png")
    same[HOLE] = True
    assert same.all()
    settings = read_settings("out/001-inpaint-holed-4.png")
    assert [given["file"] for given in settings["parents"]] == ["holed.png"]
    again = "unclip inpaint holed.png --seed 4 --method repaint --model tiny --steps 2 -n 1"
    assert run("info", "out/001-inpaint-holed-4.png")[1].splitlines()[-1] == again


def test_a_mask_of_any_mode_says_the_same(run):
    """16 bits, a palette, CMYK, transparency instead of white, and a turned camera."""
    clear = mask().point(lambda value: 255 - value)
    Image.merge("LA", (mask().point(lambda _: 90), clear)).save("clear.png")
    mask().convert("I;16").point(lambda value: value * 257).save("deep.png")
    mask().convert("P").save("palette.png")
    mask().convert("RGB").convert("CMYK").save("cmyk.tif")
    turned = Image.Exif()
    turned[0x0112] = 6
    mask().rotate(90).save("turned.png", exif=turned)
    made = {}
    for name in ("mask.png", "clear.png", "deep.png", "palette.png", "cmyk.tif", "turned.png"):
        code, out, err = run("inpaint", "red.png", "--mask", name, "-n", "1", "-o", f"{name}.out")
        assert (code, err) == (0, "")
        with Image.open(out.strip()) as picture:
            made[name] = picture.tobytes()
    assert set(made.values()) == {made["mask.png"]}


def test_a_turned_picture_is_inpainted_and_grown_upright(run):
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = read_picture("red.png").convert("RGB").crop((0, 0, 40, 30))
    upright.save("upright.png")
    upright.rotate(90, expand=True).save("turned.png", exif=turned)
    mask((40, 30), (4, 8, 20, 25)).save("low.png")
    assert run("inpaint", "turned.png", "-M", "low.png", "-n", "1", "-o", "in")[0] == 0
    assert kept("in/000-inpaint-turned-0.png", "upright.png")[:, 20:].all()
    mask((30, 40)).save("high.png")
    code, _, err = run("inpaint", "turned.png", "-M", "high.png")
    assert code == 2
    assert "the mask is 30 x 40 px" in err
    assert "the picture 40 x 30 px" in err
    assert run("outpaint", "turned.png", "--top", "6", "-o", "out")[0] == 0
    with Image.open("out/000-outpaint-turned-0.png") as grown:
        assert grown.size == (40, 36)
        assert grown.crop((0, 6, 40, 36)).tobytes() == upright.tobytes()


def test_outpainting_grows_each_side_and_keeps_the_picture(run):
    sides = ["--left", "3", "--right", "50", "--top", "5", "--bottom", "7"]
    code, out, err = run("outpaint", "red.png", *sides, "-p", "a red disc", "--grid", "-n", "2")
    assert (code, err) == (0, "")
    assert out.splitlines() == ["out/000-outpaint-red-0.png", "out/001-outpaint-red-1.png", "out/grid.png"]
    with Image.open("out/001-outpaint-red-1.png") as grown, Image.open("red.png") as picture:
        assert grown.size == (93, 52)
        assert grown.crop((3, 5, 43, 45)).tobytes() == picture.tobytes()
    assert " ".join(sides) in command(read_settings("out/001-outpaint-red-1.png"))


def save_odd_pictures() -> None:
    picture = read_picture("red.png").convert("RGB")
    mask((32, 40)).save("narrow.png")
    Image.new("L", (40, 40)).save("black.png")
    Image.new("L", (40, 40), 255).save("white.png")
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
        (["variations", "red.png", "--eta", "-0.1"], "eta = -0.1: expected 0 to 1"),
        (["variations", "red.png", "--eta", "2"], "eta = 2: expected 0 to 1"),
        (["variations", "red.png", "-n", "0"], "n = 0: expected at least 1"),
        (["img2img", "red.png", "-n", "0"], "n = 0: expected at least 1"),
        (["img2img", "red.png", "--strength", "0"], "strength = 0"),
        (["img2img", "red.png", "--strength", "1.1"], "strength = 1.1: expected more than 0 to 1"),
        (["text-diff", "red.png", "--new", "a", "--theta", "-0.1"], "theta = -0.1: expected 0 to 0.5"),
        (["text-diff", "red.png", "--new", "a", "--theta", "0.6"], "theta = 0.6: expected 0 to 0.5"),
        (["text-diff", "red.png", "--new", "a", "--theta", "0.3", "--pace", "seen"], "thetas = 0.3: pace seen expects two"),
        (["text-diff", "red.png", "--new", "a", "--theta", "much"], "--theta much: expected numbers"),
        (["text-diff", "red.png"], "Missing option '--new'"),
        (["probe", "red.png", "--among", "nowhere"], "there is no folder nowhere"),
        (["probe", "red.png", "--among", "others", "--dims", "1.5"], "--dims 1.5: expected whole numbers"),
        (["probe", "red.png", "--among", "others", "--dims", "6"], "6 pictures give components from 0 to 5"),
        (["inpaint", "red.png"], "no mask, and the picture has no transparency"),
        (["inpaint", "red.png", "-M", "narrow.png"], "the mask is 32 x 40 px"),
        (["inpaint", "red.png", "-M", "black.png"], "the mask repaints nothing"),
        (["inpaint", "red.png", "-M", "white.png"], "the mask repaints everything"),
        (["inpaint", "red.png", "-M", "dot.png"], "dot.png is 1 x 1 px"),
        (["inpaint", "red.png", "-M", "moving.gif"], "moving.gif has 2 frames"),
        (["inpaint", "red.png", "-M", "words.png"], "cannot read words.png: it is not a whole picture"),
        (["inpaint", "red.png", "-M", "missing.png"], "cannot read missing.png: No such file"),
        (["inpaint", "wide.png", "-M", "mask.png"], "wide.png is 30000 x 8 px"),
        (["inpaint", "red.png", "-M", "mask.png", "-n", "0"], "n = 0: expected at least 1"),
        (["inpaint", "red.png", "-M", "mask.png", "--size", "7"], "the result is 7 x 7 px: expected 8 to 16384 px a side"),
        (["inpaint", "red.png", "-M", "mask.png", "--method", "magic"], "'magic' is not one of"),
        (["inpaint", "red.png", "-M", "mask.png", "--method", "trained"], "the decoder of tiny was not trained to inpaint"),
        (["outpaint", "dot.png", "--left", "8"], "dot.png is 1 x 1 px"),
        (["outpaint", "wide.png", "--left", "8"], "wide.png is 30000 x 8 px"),
        (["outpaint", "moving.gif", "--left", "8"], "moving.gif has 2 frames"),
        (["outpaint", "words.png", "--left", "8"], "cannot read words.png"),
        (["outpaint", "red.png"], "left 0, right 0, top 0, bottom 0: expected pixels to grow by"),
        (["outpaint", "red.png", "--left", "8", "--top", "-1"], "left 8, right 0, top -1, bottom 0: expected"),
        (["outpaint", "red.png", "--left", "8", "--overlap", "0"], "overlap = 0: expected more than 0 and at most 0.9"),
        (["outpaint", "red.png", "--left", "8", "--overlap", "1"], "overlap = 1: expected"),
        (["outpaint", "red.png", "--left", "8", "--overlap", "nan"], "overlap = nan: expected"),
        (["outpaint", "red.png", "--left", "16345"], "the grown picture is 16385 x 40 px: expected 8 to 16384"),
        (["outpaint", "red.png", "--bottom", "1000000000000"], "the grown picture is 40 x 1000000000040 px"),
        (["outpaint", "red.png", "--left", "8", "-n", "0"], "n = 0: expected at least 1"),
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


def test_every_task_shows_the_options_that_all_have_and_its_own(capsys):
    for verb in TASKS:
        assert main([verb, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(
            flag in shown for flag in ("--out", "--model", "--steps", "--guidance", "--device", "--offload", "--grid")
        )
        assert all(word in shown for word in TASKS[verb] if word.startswith("--"))
    assert main(["inpaint", "--help"]) == 0
    assert "white or transparent" in " ".join(capsys.readouterr().out.split())


def test_a_shell_completes_the_options_of_a_task(monkeypatch, capsys):
    asked = {"unclip inpaint --re": "--repaint", "unclip outpaint --ov": "--overlap", "unclip probe --off": "--offload"}
    asked |= {"unclip inpaint --method tr": "trained", "unclip out": "outpaint"}
    for line, word in asked.items():
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        monkeypatch.setenv("_UNCLIP_COMPLETE", "complete_bash")
        with pytest.raises(SystemExit):
            main([])
        assert capsys.readouterr().out.split() == [word]


def test_info_says_what_its_command_leaves_open(run, tmp_path):
    def ends(**settings) -> tuple[str, list[str]]:
        settings = {"seed": 1, "model": "tiny"} | settings
        save_png(Image.new("RGB", (8, 8)), "made.png", settings)
        lines = run("info", "made.png")[1].splitlines()
        remarks = [line for line in lines if line.startswith("# ")]
        return lines[-1 - len(remarks)], remarks

    file, pixels = {"file": "red.png", "sha256": "0"}, {"pixels": "0"}
    assert ends(task="probe", dims=3, among=6, parents=[file]) == (
        "unclip probe red.png --seed 1 --model tiny --dims 3 --among FOLDER",
        ["# FOLDER: the pictures that gave the components"],
    )
    assert ends(task="inpaint", parents=[pixels, pixels]) == (
        "unclip inpaint PICTURE --seed 1 --model tiny --repaint MASK -n 1",
        ["# PICTURE: a picture that came from no file", "# MASK: a picture that came from no file"],
    )
    assert ends(prompt="-5 degrees", threshold="dynamic") == (
        "unclip generate --seed 1 --model tiny -- '-5 degrees'",
        ["# no option says threshold dynamic"],
    )
    assert ends(task="paintover", parents=[file]) == (
        "unclip paintover red.png",
        ["# there is no verb paintover here", "# no option says seed 1", "# no option says model tiny"],
    )
