"""`unclip optimize`: files, JSON, the film, the command that makes a picture again, Ctrl+C, and one line for each fault."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy_clip import MICRO, WORDS, save_clip

from unclip.cli import main
from unclip.images import read_settings
from unclip.models.clip import CLIP
from unclip.tokenizer import Tokenizer
from unclip.weights.store import Part, save_bundle

PROMPT = "two green stars"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "micro", 3)


@pytest.fixture
def run(clip, tmp_path, capsys, monkeypatch):
    """Runs the verb in an empty folder; gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str):
        return main(["optimize", *arguments, "--clip", str(clip), "--device", "cpu"]), *capsys.readouterr()

    return call


def again(picture: str, clip: Path, *options: str) -> int:
    """Runs the command that `unclip info` says; the exit code."""
    return main([str(clip) if word == "micro" else word for word in told(picture)[1:]] + ["--device", "cpu", *options])


def told(picture: str) -> list[str]:
    from unclip.cli.tasks_info import command, left_open

    settings = read_settings(picture)
    assert left_open(settings) == []
    return shlex.split(command(settings))


def test_pictures_say_how_they_are_made_again(run, clip, capsys):
    Image.new("RGB", (50, 40), "red").save("red.png")
    options = [
        "-n",
        "2",
        "--seed",
        "7",
        "--steps",
        "5",
        "--views",
        "3",
        "--strength",
        "0.5",
        "--rate",
        "0.1",
        "--size",
        "24",
    ]
    code, out, err = run(PROMPT, *options, "--basis", "pixels", "--image", "red.png", "--grid", "--json", "-o", "first")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made["paths"] == [f"first/00{i}-optimize-two-green-stars-{7 + i}.png" for i in range(2)]
    assert [read_settings(path) for path in made["paths"]] == made["settings"]
    assert made["seeds"] == [7, 8]
    assert len(made["scores"]) == 2
    assert Path(made["grid"]).exists()
    assert made["film"] is None
    assert again(made["paths"][1], clip, "-o", "second") == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == Path(made["paths"][1]).read_bytes()
    assert main(["info", made["paths"][1]]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"  of '{PROMPT}'" in said
    assert any(line.startswith("  of red.png ") for line in said)


def test_a_film_shows_the_ascent_and_is_made_again(run, clip, capsys):
    code, out, _ = run(PROMPT, "--steps", "12", "--views", "2", "--film", "films/stars.webp")
    assert code == 0
    picture, film = out.splitlines()
    with Image.open(film) as frames, Image.open(picture) as last:
        assert frames.n_frames == 4  # after steps 1, 6 and 11, and the last
        frames.seek(3)
        assert frames.convert("RGB").tobytes() == last.tobytes()
    first = Path(film).read_bytes()
    assert told(film)[-4:] == ["--film", "stars.webp", "--milliseconds", "80"]
    assert again(film, clip) == 0
    assert Path("stars.webp").read_bytes() == first


def interrupt_once_it_climbs(main_thread: int, hopeless: float) -> None:
    """Ctrl+C, as soon as the verb has a step to keep."""
    while time.monotonic() < hopeless:
        frame = sys._current_frames().get(main_thread)
        while frame is not None and frame.f_code.co_name != "_climb":
            frame = frame.f_back
        if frame is not None and frame.f_locals.get("step") is not None:
            break
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_the_picture_as_it_is_then(run, clip, capsys):
    """Of an ascent that would last for hours; what is kept is the ascent of as many steps."""
    stop = threading.Thread(target=interrupt_once_it_climbs, args=(threading.get_ident(), time.monotonic() + 60))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins by ignoring it
    stop.start()
    code, out, err = run(PROMPT, "--steps", "10000000", "--views", "1")
    stop.join()
    signal.signal(signal.SIGINT, before)
    assert code == 130
    assert err.splitlines()[-1] == "interrupted"
    kept = out.strip()
    assert 1 <= read_settings(kept)["steps"] < 10000000
    assert again(kept, clip, "-o", "again") == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == Path(kept).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "the prompt is empty"),
        ([PROMPT, "--steps", "0"], "options: steps = 0: input should be greater than or equal to 1"),
        ([PROMPT, "--size", "8"], "options: size = 8: input should be greater than or equal to 16"),
        ([PROMPT, "--size", "5000"], "options: size = 5000: input should be less than or equal to 1024"),
        ([PROMPT, "-n", "0"], "n = 0: expected at least 1"),
        ([PROMPT, "--film", "a.gif"], "--film a.gif"),
        ([PROMPT, "--film", "a.webp", "-n", "2"], "expected a .webp, and one picture"),
        ([PROMPT, "--image", "none.png"], "cannot read none.png"),
        ([PROMPT, "-o", "taken"], "cannot write in the folder taken"),
    ],
)
def test_a_fault_is_one_line(run, arguments, said):
    Path("taken").write_text("a file")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not list(Path().rglob("*.png"))


def test_a_clip_that_only_reads_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = MICRO.model_copy(update={"vision": None})
    torch.manual_seed(0)
    part = Part("clip", {"model": config.model_dump(mode="json")}, CLIP(config).state_dict())
    words = Tokenizer.train(WORDS, vocab=320, context=16).to_json()
    save_bundle(tmp_path / "blind", {"clip": part}, tokenizer_json=words, name="blind", version="1", card="", provenance={})
    assert main(["optimize", PROMPT, "--clip", "./blind", "--device", "cpu"]) == 2
    assert capsys.readouterr().err == "error: blind reads captions only: give a CLIP with an image encoder\n"
