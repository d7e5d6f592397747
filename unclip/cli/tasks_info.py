"""`unclip info`: how a picture was made, of what, and the command that makes it again."""

import shlex
from pathlib import Path
from typing import Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

VERBS = {"text_diff": "text-diff", "image_to_image": "img2img"}  # where they are not called as their task
FLAGS = {"dims": "--dims", "milliseconds": "--milliseconds", "noise": "--noise", "frames": "--frames"}
FLAGS |= {name: f"--{name}" for name in ("old", "new", "theta", "strength", "eta", "seed", "size", "model", "candidates")}
FLAGS |= {name: f"--{name}" for name in ("steps", "guidance", "sampler")}
FLAGS |= {
    name: f"--{name.replace('_', '-')}" for name in ("prior_steps", "prior_guidance", "prior_sampler", "upsampler_steps")
}


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
    again = command(settings)
    if as_json:
        print_json({"settings": settings, "command": again})
        return
    rows = [(name, str(value)) for name, value in settings.items() if name != "parents"]
    print("\n".join([columns(rows), *_ancestors(settings), "", again]))


def command(settings: dict[str, Any]) -> str:
    """The command that makes a picture with these settings, one that stands for a shell to read.

    A picture of a series that goes together, as the frames of an interpolation, is made with all of it.
    """
    task = settings.get("task", "generate")
    words = ["unclip", VERBS.get(task, task)]
    if task in ("generate", "image_to_image") and "prompt" in settings:
        words += [settings["prompt"]] if task == "generate" else ["--prompt", settings["prompt"]]
    words += [given.get("file") or given.get("prompt", "PICTURE") for given in settings.get("parents", [])]
    words += ["--among", "FOLDER"] if task == "probe" else []
    words += ["-n", "1"] if task in ("variations", "image_to_image") else []
    words += ["--webp"] if "milliseconds" in settings else []
    words += [word for name, flag in FLAGS.items() if name in settings for word in (flag, str(settings[name]))]
    return shlex.join(words)


def _ancestors(settings: dict[str, Any], depth: int = 1) -> list[str]:
    """A line for each picture or prompt that it was made of, and below it those that this one was made of."""
    lines = []
    for given in settings.get("parents", []):
        own = given.get("settings", {})
        name = repr(given["prompt"]) if "prompt" in given else given.get("file", "a picture")
        told = ", ".join(f"{key} {value}" for key, value in own.items() if key != "parents")
        digest = given.get("sha256") or given.get("pixels", "")
        lines += ["  " * depth + " ".join(part for part in ("of", name, digest[:16], f"({told})" if told else "") if part)]
        lines += _ancestors(own, depth + 1)
    return lines
