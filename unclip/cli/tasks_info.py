"""`unclip info`: how a picture was made, of what, and the command that makes it again."""

import importlib
import shlex
from pathlib import Path
from typing import Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

CALLED = {"text_diff": "text-diff", "image_to_image": "img2img"}  # the verbs that are not called as their task
SERIES = {"variations", "image_to_image", "inpaint"}  # that make several pictures unless told
PICTURE, MASK, FOLDER = "PICTURE", "MASK", "FOLDER"  # for what no settings name
UNSAID = {"task", "parents", "frame"}  # what a command says otherwise than by an option
UNSAID |= {"read", "old_read", "new_read"}  # what a model makes of a prompt by itself


@app.command()
def info(
    picture: Path = typer.Argument(help="A PNG or an animated WebP that unclip made."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Print how a picture was made: its settings, the pictures it was made of, and the command that makes it again.

    Example: unclip info out/000-variations-cat-7.png
    """
    from unclip.cli.console import columns, print_json
    from unclip.images import read_settings

    settings = read_settings(picture)
    again, remarks = command(settings), left_open(settings)
    if as_json:
        print_json({"settings": settings, "command": again, "left_open": remarks})
        return
    rows = [(name, str(value)) for name, value in settings.items() if name != "parents"]
    print("\n".join([columns(rows), *_ancestors(settings), "", again, *(f"# {remark}" for remark in remarks)]))


def command(settings: dict[str, Any]) -> str:
    """The command that makes a picture with these settings, one that stands for a shell to read.

    A picture of a series that goes together, as the frames of an interpolation, is made with all of it.
    """
    verb, (given, said) = _verb(settings), _said(settings)
    flags = _flags(verb)
    named = [(flags[name], value) for name, value in said.items() if name in flags]
    words = [word for flag, value in named for word in ([flag] if value is True else [flag, str(value)])]
    dashed = any(word.startswith("-") for word in given)  # what would be read as an option
    return shlex.join(["unclip", verb, *([*words, "--", *given] if dashed else [*given, *words])])


def left_open(settings: dict[str, Any]) -> list[str]:
    """What somebody has to know who runs the command: what stands in capitals in it, and what no option of it says."""
    verb, (given, said) = _verb(settings), _said(settings)
    flags = _flags(verb)
    remarks = [] if flags else [f"there is no verb {verb} here"]
    remarks += ["FOLDER: the pictures that gave the components"] if said.get("among") == FOLDER else []
    pictures = (*given, said.get("repaint"), said.get("image"))
    remarks += [f"{name}: a picture that came from no file" for name in (PICTURE, MASK) if name in pictures]
    return remarks + [f"no option says {name} {value}" for name, value in said.items() if name not in {*flags, *UNSAID}]


def _verb(settings: dict[str, Any]) -> str:
    task: str = settings.get("task", "generate")
    return CALLED.get(task, task)


def _said(settings: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The arguments of the command, and what its options say, by their names."""
    task, parents = settings.get("task", "generate"), settings.get("parents", [])
    given = [parent.get("file") or parent.get("prompt", PICTURE) for parent in parents]
    said = {name: value for name, value in settings.items() if value is not None}
    if task == "generate":
        given = [said.pop("prompt", "")]
    if task == "probe":
        said["among"] = FOLDER
    if task == "inpaint" and len(given) > 1:
        given, said["repaint"] = given[:1], parents[1].get("file", MASK)
    if task == "optimize" and len(given) > 1:
        given, said["image"] = given[:1], given[1]
    if task in SERIES:
        said["n"] = 1
    if "milliseconds" in said and "film" not in said:
        said["webp"] = True
    return given, said


def _flags(verb: str) -> dict[str, str]:
    """The flag of each option of a verb; none of a verb that is not there."""
    from unclip.cli import VERBS

    if verb not in VERBS:
        return {}
    options = typer.main.get_command(importlib.import_module(VERBS[verb][0]).app).params
    return {option.name: option.opts[0] for option in options if option.name and option.opts[0].startswith("-")}


def _ancestors(settings: dict[str, Any], depth: int = 1) -> list[str]:
    """A line for each picture or prompt that it was made of, and below it those that this one was made of."""
    lines = []
    for given in settings.get("parents", []):
        own = given.get("settings", {})
        name = repr(given["prompt"]) if "prompt" in given else given.get("file", "a picture")
        name += f", read as {given['read']!r}" if "read" in given else ""
        told = ", ".join(f"{key} {value}" for key, value in own.items() if key != "parents")
        digest = given.get("sha256") or given.get("pixels", "")
        lines += ["  " * depth + " ".join(part for part in ("of", name, digest[:16], f"({told})" if told else "") if part)]
        lines += _ancestors(own, depth + 1)
    return lines
