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
from unclip.models.prior import SIZES, Prior
from unclip.weights import store
from unclip.weights.opening import PUBLISHED
from unclip.weights.store import Part, save_bundle

MICRO = SIZES["micro"]
COUNT = sum(parameter.numel() for parameter in Prior(MICRO).parameters())


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
    network = Prior(MICRO)
    network.set_statistics(torch.zeros(32), torch.ones(32))
    part = Part(kind="prior", config={"model": MICRO.model_dump(mode="json")}, state=network.state_dict())
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


def test_models_list_says_what_is_shipped_and_what_can_be_fetched(bundle, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "models--kakaobrain--karlo-v1-alpha" / "snapshots").mkdir(parents=True)
    assert main(["models", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["model", "size", "where", "what"], ["tiny", "0.1", "MB", "in", "the", "package", "prior"]]
    where = {line[0]: " ".join(line[1:4]) for line in lines[2:]}
    assert where.keys() == PUBLISHED.keys()
    assert where.pop("kakaobrain/karlo-v1-alpha") == "in the cache"
    assert all(words.startswith("to fetch") for words in where.values())


def test_models_show_and_verify(bundle, capsys):
    assert main(["models", "show", "tiny"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"tiny 3, {bundle}"
    assert f"prior  prior  {COUNT:,}" in out
    assert "data: drawn by hand" in out
    assert err == ""
    assert main(["models", "verify", "tiny"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"every file is as it was saved\nprior: {COUNT:,} parameters, each in its place\n")


def test_models_as_json(bundle, capsys):
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {model["name"] for model in listed["published"]} == PUBLISHED.keys()
    assert listed["models"][0].items() >= {"name": "tiny", "version": "3"}.items()
    assert main(["models", "show", str(bundle), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    part = {"kind": "prior", "parameters": COUNT, "from": str(bundle / "prior")}
    about = {"name": "tiny", "version": "3", "folder": str(bundle), "provenance": {"data": "drawn by hand"}}
    assert shown == about | {"parts": {"prior": part}}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "the file is torn"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "sha256"),
        (lambda path: (path.parent / "config.json").write_text("{}\n"), "torn"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_a_damaged_bundle_is_not_verified(bundle, capsys, damage, words):
    damage(bundle / "prior" / "model.safetensors")
    assert main(["models", "verify", "tiny"]) == 2
    assert words in one_error(capsys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "painter"}, "of the unknown kind 'painter', expected clip, prior"),
        ({"config": {}}, "config.json: the key model is missing"),
        ({"config": {"model": {}}}, "config.json: model: the key embed is missing"),
    ],
)
def test_a_part_that_cannot_be_is_one_line_when_it_is_shown(bundle, capsys, change, words):
    part = Part(**{"kind": "prior", "config": {}, "state": {"w": torch.zeros(1)}} | change)
    about = {"name": "tiny", "version": "3", "tokenizer_json": "{}", "card": "", "provenance": {}}
    save_bundle(bundle, {"prior": part}, **about)
    assert main(["models", "show", "tiny"]) == 2
    assert words in one_error(capsys)


def test_progress_and_colours_stay_off_where_nobody_watches(capsys):
    with console.progress() as bars:
        bars.advance(bars.add_task("painting", total=3))
    console.stderr().print("[red]note[/red]")
    console.print_json({"prompt": "é"})
    out, err = capsys.readouterr()
    assert err == "note\n"
    assert out == '{"prompt": "é"}\n'
