"""The rules of the house, read off the source: what imports what, how long things are, what must never be there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unclip
from unclip.cli import VERBS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "unclip"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_PYTHON = sorted(path for folder in ("unclip", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))

# Imports go down only. Neighbours on one floor do not know each other, except on the ground floor.
FLOORS = [
    {"errors", "files", "seeds", "rng", "device", "config", "tokenizer", "images", "layers", "seam"},
    {"models", "diffusion"},
    {"weights", "data", "int8"},
    {"stages"},
    {"shelf", "request", "words"},
    {"clip", "glide", "parts"},
    {"pipeline"},
    {"provenance", "pairs"},
    {"ways"},
    {"tasks", "inpainting", "search", "classify", "rerank", "optimize"},
    {"server", "train", "evaluate"},
    {"maps"},
    {"cli"},
]
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}

# Who may know what a pickle is: the reader of foreign files, which admits only the names in its own table and calls nothing
# else, and its tests, which make such files, hostile ones too, with torch and pickle themselves.
PICKLES = {"unclip/weights/foreign.py"}
PICKLES |= {f"tests/{module}.py" for module in ("foreign_files", "test_foreign", "test_foreign_damage")}

MOST_PARAMETERS = {"pipeline.py": 10, "tasks.py": 9, "inpainting.py": 9}  # 8 elsewhere; all beyond are keywords

PUBLIC = {"UnCLIP", "load", "UnclipError", "ConfigError", "DataError", "WeightsError", "RequestError"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name(path))


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module a file imports anywhere, as a dotted name; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what they import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_go_down_only(path):
    own = room(path)
    if own == "__init__":  # the public surface looks at everything
        return
    assert own in FLOOR, f"{own} has no floor: give it one here and in the README"
    for imported in imports(parse(path)):
        first, _, rest = imported.partition(".")
        other = rest.split(".")[0]
        if first != "unclip" or other == own:
            continue
        assert other in FLOOR, f"{name(path)} imports {imported}, which has no floor"
        ground = FLOOR[own] == FLOOR[other] == 0
        assert ground or FLOOR[other] < FLOOR[own], f"{name(path)} imports {imported}"


@pytest.mark.parametrize("path", ALL_PYTHON, ids=name)
def test_nothing_needs_torchvision_and_nothing_is_unpickled(path):
    tree = parse(path)
    modules = {imported.split(".")[0] for imported in imports(tree)}
    assert not modules & {"torchvision", "dill", "joblib", "shelve"}
    assert "pickle" not in modules or name(path) in PICKLES
    calls = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not calls & {"torch.load", "torch.save"} or name(path) in PICKLES - {"unclip/weights/foreign.py"}


@pytest.mark.parametrize("path", ALL_PYTHON, ids=name)
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
            given = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([argument for argument in given if argument not in ("self", "cls")])
            # A verb of the command line has as many parameters as it has options, and so has the task behind it.
            most = MOST_PARAMETERS.get(path.name, 8) if path.parent == PACKAGE and node.args.kwonlyargs else 8
            assert count <= most or path.is_relative_to(PACKAGE / "cli"), f"{node.name} has {count} parameters"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_modules_say_what_they_are_and_finish_what_they_begin(path):
    text = path.read_text(encoding="utf-8")
    tree = parse(path)
    assert ast.get_docstring(tree) or not tree.body, "a module begins with its idea"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|\bNotImplementedError\b", text)
    assert path.stem not in {"utils", "helpers", "common", "misc", "registry", "factory", "manager"}


def test_no_file_names_somebodys_machine():
    folders = ["unclip", "tests", "benchmarks", "recipes", "docs", ".github", ".ci"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if ".hypothesis" not in path.parts]
    files += [
        path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".txt"} or path.name in {"Makefile", "NOTICE"}
    ]
    texts = [
        path
        for path in files
        if path.suffix in {"", ".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json"} and path.is_file()
    ]
    assert len(texts) > 10
    machine = re.compile(r"(?<![\w.:/-])/(work|root|home|Users)/")
    named = [name(path) for path in texts if machine.search(path.read_text(encoding="utf-8"))]
    assert named == []


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_and_help_do_not_wait_for_torch():
    code = """
import sys, time, unclip
from unclip.cli import main
main(['--help'])
print('torch' in sys.modules, time.process_time())
"""
    loaded, seconds = min((run(code).splitlines()[-1].split() for _ in range(3)), key=lambda words: float(words[1]))
    assert loaded == "False"
    assert float(seconds) < 0.4


def test_opening_a_model_and_painting_do_not_wait_for_torchs_compiler():
    code = """
import sys, unclip
unclip.load('icons').generate('a cat', size=64)
print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])
"""
    assert run(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_and_helps_without_torch(verb):
    code = f"""
import importlib, sys, typer
from unclip.cli import VERBS
command = typer.main.get_command(importlib.import_module(VERBS[{verb!r}][0]).app)
leaves = getattr(command, 'commands', dict(all=command))
print([name for name, leaf in leaves.items() if 'Example: unclip {verb}' not in ' '.join(leaf.help.split())])
print('torch' in sys.modules, any('completion' in parameter.name for parameter in command.params))
"""
    assert run(code).splitlines() == ["[]", "False False"]


def test_the_public_surface_is_what_it_says():
    assert set(unclip.__all__) >= PUBLIC
    assert all(hasattr(unclip, exported) for exported in unclip.__all__)
