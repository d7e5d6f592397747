"""`unclip interpolate`: the way from one picture or prompt to another."""

from pathlib import Path
from typing import Literal

import typer

from unclip.cli import tasks

Noise = Literal["slerp", "fixed"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def interpolate(
    call: tasks.Call,
    ends: list[str] = typer.Argument(help="Two or more pictures or prompts."),
    frames: int = typer.Option(9, "--frames", help="Pictures on the whole way, the ends among them."),
    noise: Noise = typer.Option("slerp", "--noise", help="slerp: the ends' own, so that pictures come back; fixed: one."),
    pace: tasks.Pace = typer.Option("even", "--pace", help="Even steps of z, or, four times the work, of what CLIP sees."),
    webp: bool = typer.Option(False, "--webp", help="Also write frames.webp, an animation."),
    milliseconds: int = typer.Option(150, "--milliseconds", min=1, help="Of each frame of the animation."),
    seed: tasks.OneSeed = 0,
    size: tasks.Size = None,
    as_typed: tasks.AsTyped = False,
) -> None:
    """Paint what lies between pictures or prompts, and print the path of each frame.

    Example: unclip interpolate cat.png "a flat icon of a cactus" --frames 9 --webp -o out/
    """
    from unclip.images import read_picture, save_webp
    from unclip.tasks import interpolate

    given = [read_picture(end) if _is_picture(end) else end for end in ends]

    def ask(asked: tasks.Asked):
        how = {"frames": frames, "noise": noise, "pace": pace, "seed": seed, "size": size}
        return interpolate(asked.model, given, **how, **asked.alike)

    painted = tasks.paint(call, ask, prompts=[end for end in given if isinstance(end, str)], as_typed=as_typed)
    if not webp:
        tasks.tell(call, painted)
        return
    path = call.out / "frames.webp"
    whole = {name: value for name, value in painted.written["settings"][0].items() if name != "frame"}
    save_webp(painted.images, path, {**whole, "milliseconds": milliseconds}, milliseconds=milliseconds)
    painted.written["webp"] = str(path)
    tasks.tell(call, painted, more=[str(path)])


def _is_picture(end: str) -> bool:
    """Whether an end names a file, there or not, rather than being words."""
    path = Path(end)
    return path.suffix.lower() in tasks.SUFFIXES or (len(end) < 256 and "\0" not in end and path.is_file())
