"""The root command: one line and exit code 2 for the caller's faults, results on stdout, nothing else there."""

import json
import os
import subprocess
import sys
import types

import pytest
import torch
import typer

from unclip.cli import VERBS, console, main
from unclip.errors import DataError
from unclip.weights import store
from unclip.weights.store import Part, save_bundle


@pytest.fixture
def verb(monkeypatch):
    """Installs a function as the verb `act`, in a module of its own."""

    def install(function):
        module = types.ModuleType("act_module")
        module.app = typer.Typer(add_completion=False, rich_markup_mode=None)
        module.app.command()(function)
        monkeypatch.setitem(sys.modules, "act_module", module)
        monkeypatch.setitem(VERBS, "act", ("act_module", "Act."))

    return install


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    shipped = tmp_path / "bundles"
    monkeypatch.setattr(store, "shipped_folder", lambda: shipped)
    part = Part(kind="prior", config={}, state={"w": torch.zeros(500)})
    about = {"name": "tiny", "version": "3", "tokenizer_json": "{}", "card": "", "provenance": {"data": "drawn by hand"}}
    return save_bundle(shipped / "tiny", {"prior": part}, **about)


def one_error(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_help_lists_every_verb_also_one_that_cannot_be_imported(capsys, monkeypatch):
    monkeypatch.setitem(VERBS, "broken", ("unclip.cli.nowhere", "Cannot be imported."))
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and text.split()[0] in out for name, (_, text) in VERBS.items())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("unclip 0.")


def test_no_verb_at_all_shows_the_help_on_stderr(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "Usage: unclip [OPTIONS] COMMAND [ARGS]...")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], "No such command 'paint'"),
        (["--colour"], "No such option: --colour"),
        (["models", "show"], "Missing argument"),
        (["models", "list", "--nope"], "No such option: --nope"),
        (["models", "show", "nobody"], "there is no model 'nobody'"),
    ],
)
def test_the_callers_faults_are_one_line_and_code_2(arguments, words, capsys):
    assert main(arguments) == 2
    assert words in one_error(capsys)


def test_an_error_of_a_verb_is_one_line_even_when_its_message_is_not(capsys, verb):
    def fail():
        raise DataError("the shard a.tar\nis torn")

    verb(fail)
    assert main(["act"]) == 2
    assert one_error(capsys) == "error: the shard a.tar is torn\n"


def test_an_interrupt_is_130(capsys, verb):
    def wait():
        raise KeyboardInterrupt

    verb(wait)
    assert main(["act"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_verbs_own_exit_code_is_kept_and_our_own_fault_is_a_traceback(verb):
    def leave():
        raise typer.Exit(3)

    verb(leave)
    assert main(["act"]) == 3

    def stumble():
        raise ZeroDivisionError

    verb(stumble)
    with pytest.raises(ZeroDivisionError):
        main(["act"])


def test_a_reader_that_leaves_is_no_fault_worth_a_word():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "import sys; from unclip.cli import main; sys.exit(main(['--help']))"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_models_list_and_show(bundle, capsys):
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out == "name  version  size    parts\ntiny  3        0.0 MB  prior\n"
    assert main(["models", "show", "tiny", "--verify"]) == 0
    out, err = capsys.readouterr()
    assert "prior  prior  500" in out
    assert "data: drawn by hand" in out
    assert err == "every file is as it was saved\n"


def test_models_as_json(bundle, capsys):
    assert main(["models", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["models"]
    assert main(["models", "show", str(bundle), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == listed | {"folder": str(bundle), "provenance": {"data": "drawn by hand"}}
    assert listed["parts"]["prior"]["parameters"] == 500


def test_a_torn_bundle_is_said_by_show(bundle, capsys):
    path = bundle / "prior" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["models", "show", "tiny", "--verify"]) == 2
    assert "torn" in one_error(capsys)


def test_progress_and_colours_stay_off_where_nobody_watches(capsys):
    with console.progress() as bars:
        bars.advance(bars.add_task("painting", total=3))
    console.stderr().print("[red]note[/red]")
    console.print_json({"prompt": "é"})
    out, err = capsys.readouterr()
    assert err == "note\n"
    assert out == '{"prompt": "é"}\n'
