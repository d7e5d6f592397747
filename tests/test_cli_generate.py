"""`unclip generate`: a path a line, or one JSON object; PNGs that say how they were made; one line and code 2 for faults."""

import json
from pathlib import Path

import pytest
from PIL import Image

from unclip.cli import main
from unclip.cli.generate import slug
from unclip.cli.progress import StageProgress
from unclip.diffusion.samplers import Step
from unclip.images import read_settings
from unclip.weights import store

RED = "a red square at the top left"


@pytest.fixture
def run(micro_bundle, tmp_path, capsys):
    """Runs `unclip generate` on the micro model, into tmp_path/out; gives the exit code, stdout and stderr."""

    def generate(*arguments: str, size: str | None = "32", model=micro_bundle, out=tmp_path / "out"):
        sized = [] if size is None else ["--size", size]
        code = main(["generate", "--model", str(model), "--out", str(out), "--device", "cpu", *sized, *arguments])
        return code, *capsys.readouterr()

    return generate


def test_a_path_a_line_and_settings_in_every_png(run, tmp_path):
    code, out, err = run(RED, "a blue disc", "-n", "2", "--seed", "7", "--candidates", "1")
    assert (code, err) == (0, "")
    paths = [Path(line) for line in out.splitlines()]
    assert [path.name for path in paths] == [
        "000-a-red-square-at-the-top-left-7.png",
        "001-a-red-square-at-the-top-left-8.png",
        "002-a-blue-disc-7.png",
        "003-a-blue-disc-8.png",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in paths]
    for path, prompt, seed in zip(paths, [RED, RED, "a blue disc", "a blue disc"], [7, 8, 7, 8], strict=True):
        expected = {"prompt": prompt, "seed": seed, "size": 32, "model": "tiny", "candidates": 1}
        assert read_settings(path) == expected
        with Image.open(path) as image:
            assert image.size == (32, 32)


def test_json_is_one_object_with_paths_seeds_settings_and_seconds(run, tmp_path):
    code, out, _ = run(RED, "-n", "2", "--seed", "3", "--json", "--steps", "2", "--grid", size="64")
    assert code == 0
    assert out.count("\n") == 1
    answer = json.loads(out)
    assert set(answer) == {"paths", "grid", "seeds", "settings", "seconds"}
    assert answer["seeds"] == [3, 4]
    assert [settings["seed"] for settings in answer["settings"]] == [3, 4]
    assert answer["settings"][0] == read_settings(answer["paths"][0])
    assert answer["settings"][0]["steps"] == "2"
    assert list(answer["seconds"]) == ["import", "load", "prior", "decoder", "to 64 px", "save"]
    assert all(seconds > 0 for seconds in answer["seconds"].values())
    assert answer["grid"] == str(tmp_path / "out" / "grid.png")
    assert Path(answer["grid"]).exists()


def test_the_contact_sheet_has_a_row_a_prompt(run):
    code, out, _ = run(RED, "a blue disc", "-n", "3", "--grid", "--candidates", "1", "--steps", "1")
    assert code == 0
    assert len(out.splitlines()) == 7
    with Image.open(out.splitlines()[-1]) as sheet:
        assert 3 * 32 < sheet.width < 4 * 38
        assert sheet.height > 2 * 32


def test_the_same_command_makes_the_same_files(run, tmp_path):
    command = (RED, "--seed", "5", "--candidates", "1")
    first = run(*command, out=tmp_path / "one")[1]
    second = run(*command, out=tmp_path / "two")[1]
    assert Path(first.strip()).read_bytes() == Path(second.strip()).read_bytes()
    batched = run(*command, "--batched", out=tmp_path / "three")
    assert batched[0] == 0


def test_prompts_come_from_a_file_too(run, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffone red square\n\n  two  \r\n红色\n", encoding="utf-8")
    code, out, _ = run(
        "zero", "--prompt-file", str(file), "--candidates", "1", "--steps", "1", "--prior-steps", "1", "--json"
    )
    assert code == 0
    assert [settings["prompt"] for settings in json.loads(out)["settings"]] == ["zero", "one red square", "two", "红色"]


def test_a_prompt_that_is_cut_is_said_and_painted(run):
    long = "a red square " * 50
    code, out, err = run(long, "--candidates", "1", "--steps", "1", "--prior-steps", "1")
    assert code == 0
    assert err == f"the model reads only the beginning of this prompt: {long}\n"
    assert read_settings(out.strip())["prompt"] == long


@pytest.mark.parametrize("prompt", ["", "\n\n", "日本🍕", "../../etc/passwd", "a\0b", "x" * 400], ids=range(6))
def test_any_prompt_makes_a_file_in_the_folder(run, tmp_path, prompt):
    code, out, _ = run(prompt, "--candidates", "1", "--steps", "1", "--prior-steps", "1")
    assert code == 0
    (line,) = out.splitlines()
    assert Path(line).parent == tmp_path / "out"
    assert read_settings(line)["prompt"] == prompt


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A Slice of Pizza!", "a-slice-of-pizza"),
        ("", "empty"),
        ("...", "empty"),
        ("a/b\\c", "a-b-c"),
        ("日本 猫", "日本-猫"),
    ],
)
def test_slugs_are_safe_names(prompt, expected):
    assert slug(prompt) == expected
    assert len(slug("word " * 99)) <= 48


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ([RED], {"model": "nobody"}, "there is no model 'nobody'"),
        ([RED, "-n", "0"], {}, "-n 0: expected at least 1"),
        ([RED, "-n", "two"], {}, "Invalid value for '-n'"),
        ([], {}, "no prompt: give one in quotes"),
        (["--prompt-file", "missing.txt"], {}, "cannot read the prompts in missing.txt: No such file"),
        ([RED], {"size": "100"}, "tiny cannot make 100 px: it makes 32, 64, 256"),
        ([RED, "--candidates", "0"], {}, "candidates = 0"),
        ([RED, "--sampler", "euler"], {}, "options: sampler = 'euler'"),
        ([RED, "--guidance", "-1"], {}, "options: guidance = -1"),
        ([RED, "--steps", "0"], {}, "cannot keep 0 of 1000 timesteps"),
        ([RED, "--steps", "many"], {}, "unknown spacing 'many'"),
        ([RED, "--device", "tpu"], {}, "the device 'tpu' is not there"),
        (["caf\udce9"], {}, "is not text"),
    ],
)
def test_a_fault_is_one_line_and_code_2(run, arguments, options, words):
    code, out, err = run(*arguments, **options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err.encode("utf-8", "backslashreplace").decode()


def test_a_folder_that_cannot_be_written_is_said_before_the_model_is_loaded(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(RED, out=tmp_path / "file" / "out", model="nobody")
    assert code == 2
    assert err == f"error: cannot write in the folder {tmp_path}/file/out: Not a directory\n"


def test_a_prompt_file_that_is_no_text_is_one_line(run, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\xff")
    code, _, err = run("--prompt-file", str(tmp_path / "photo.png"))
    assert (code, err.count("\n")) == (2, 1)
    assert "it is not utf-8 text" in err


@pytest.mark.parametrize("damage", ["truncated", "foreign", "gone", "config"])
def test_a_damaged_bundle_is_one_line(run, micro_bundle, tmp_path, damage):
    copy = tmp_path / "copy"
    for path in micro_bundle.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(micro_bundle)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    weights, config = copy / "decoder" / "model.safetensors", copy / "decoder" / store.CONFIG
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "foreign":
        weights.write_bytes(b"\x80\x04" * (weights.stat().st_size // 2))
    elif damage == "gone":
        weights.unlink()
    else:
        config.write_bytes(config.read_bytes().replace(b'"fold": 2', b'"fold": 0'))
    code, out, err = run(RED, model=copy)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert "decoder" in err


def test_stages_are_timed_and_silent_off_a_terminal(capsys):
    with StageProgress() as progress:
        for stage in ("prior", "prior", "decoder"):
            progress(stage, Step(0, 2, x=None, x0=None))
    assert list(progress.seconds) == ["prior", "decoder"]
    assert capsys.readouterr() == ("", "")


def test_the_best_of_many_are_the_pictures_of_their_seeds(run, tmp_path):
    code, out, _ = run(RED, "--best-of", "5", "-n", "2", "--seed", "3", "--candidates", "1", "--json", size="64")
    assert code == 0
    best = json.loads(out)
    assert best["scores"] == sorted(best["scores"], reverse=True)
    assert len(set(best["seeds"])) == 2
    assert set(best["seeds"]) <= set(range(3, 8))
    alone = run(RED, "--seed", str(best["seeds"][0]), "--candidates", "1", size="64", out=tmp_path / "alone")[1]
    assert Path(alone.strip()).read_bytes() == Path(best["paths"][0]).read_bytes()


@pytest.mark.parametrize(("given", "said"), [("0", "the best 1 of 0"), ("3", "the best 4 of 3")])
def test_fewer_painted_than_kept_is_one_line(run, given, said):
    code, out, err = run(RED, "-n", "4" if given == "3" else "1", "--best-of", given)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said} pictures: expected from 1")
