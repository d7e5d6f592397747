"""What the verbs of `unclip.tasks` have in common: their options, the model they ask, and what is written where.

A verb declares what is its own; `verb` adds the options that all have, which are the fields of `Call`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    from PIL.Image import Image

    from unclip.pipeline import UnCLIP

Picture = Annotated[Path, typer.Argument(help="A picture; its middle square is what is seen.")]
Whole = Annotated[Path, typer.Argument(help="A picture of any shape.")]
Count = Annotated[int, typer.Option("-n", "--n", help="Pictures.")]
Seed = Annotated[int, typer.Option("--seed", "-s", help="Seed of the first picture; the next has seed + 1.")]
OneSeed = Annotated[int, typer.Option("--seed", "-s", help="Seed of what is drawn at random, the same for every picture.")]
Pace = Literal["even", "seen"]  # as unclip.tasks has it, which is not to be imported before it is needed
Size = Annotated[int | None, typer.Option("--size", help="Side in pixels; 256 where the model can.")]
Method = Annotated[
    Literal["auto", "trained", "repaint"],
    typer.Option(
        "--method", help="trained: by a decoder that learned to fill holes; repaint: by any; auto: as the model can."
    ),
]

AsTyped = Annotated[
    bool, typer.Option("--as-typed", help="Give prompts to the model as they are, whatever it reads in them.")
]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class Call(NamedTuple):
    """The options that every task has."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("out")
    model: Annotated[str, typer.Option("--model", "-m", help="A shipped model, a folder, or a repository of the hub.")] = (
        "icons"
    )
    steps: Annotated[
        str | None, typer.Option("--steps", help="Steps of the decoder, and of the inversion where there is one.")
    ] = None
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale of the decoder; 1 is off.")] = None
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto"
    offload: Annotated[bool, typer.Option("--offload", help="Keep one network in memory at a time, for large models.")] = (
        False
    )
    sheet: Annotated[bool, typer.Option("--grid", help="Also write grid.png, all of them in a row.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a path a line.")] = False


def verb(act: Callable[..., None]) -> Callable[..., None]:
    """A task's verb as typer reads it: its own options and then the fields of `Call`, which it is handed as one, first."""
    own, common = inspect.signature(act), inspect.signature(Call).parameters
    mine = list(own.parameters.values())[1:]

    @functools.wraps(act)
    def command(**given: Any) -> None:
        call = Call(*(given.pop(name) for name in common))
        act(call, **given)

    command.__signature__ = own.replace(parameters=[*mine, *common.values()])  # pyright: ignore[reportAttributeAccessIssue]
    return command


class Asked(NamedTuple):
    """What a verb asks `unclip.tasks` with: the model, and the keywords that all tasks take."""

    model: "UnCLIP"
    alike: dict[str, Any]


class Painted(NamedTuple):
    """What came of it."""

    images: "Sequence[Image]"
    written: dict[str, Any]  # what is where, as `generate --json` tells it
    seconds: dict[str, float]  # of each part


def paint(
    call: Call,
    ask: "Callable[[Asked], Sequence[Image]]",
    *,
    method: Method = "auto",
    prompts: Sequence[str | None] = (),
    as_typed: bool = False,
) -> Painted:
    """Loads the model, asks it, and writes the pictures and, if wanted, a sheet of them; notes what is read in `prompts`."""
    from unclip.cli.generate import Clock, tell_reading
    from unclip.cli.progress import StageProgress
    from unclip.errors import RequestError
    from unclip.images import make_folder
    from unclip.pipeline import UnCLIP, load
    from unclip.request import Options

    clock = Clock()
    folder = make_folder(call.out)
    changes = {"steps": call.steps, "guidance": call.guidance, "method": None if method == "auto" else method}
    options = Options.parse(changes | {"as_typed": as_typed or None}, where="options")
    model = load(call.model, device=call.device, offload=call.offload)
    if not isinstance(model, UnCLIP):
        raise RequestError(f"{model.name} is a GLIDE, which has no z: this task asks an unCLIP")
    read = tell_reading(model, [prompt for prompt in prompts if prompt], options)
    seconds = {"load": clock.lap()}
    with StageProgress() as progress:
        images = ask(Asked(model, {"options": options, "progress": progress}))
    clock.lap()
    written = write(images, folder, sheet=call.sheet) | read
    return Painted(images, written, seconds | progress.seconds | {"save": clock.lap()})


def tell(call: Call, painted: Painted, *, more: Sequence[str] = ()) -> None:
    """Prints the path of each picture and `more` lines, or all of it as one JSON object."""
    from unclip.cli.generate import tell

    tell(painted.written, painted.seconds, as_json=call.as_json)
    for line in () if call.as_json else more:
        print(line)


def write(images: "Sequence[Image]", folder: Path, *, sheet: bool) -> dict[str, Any]:
    """Writes each image as a PNG with its settings, and a sheet of all in a row if wanted; says what is where."""
    from unclip.images import grid, save_png

    settings = [image.info["unclip"] for image in images]
    paths = [folder / f"{i:03d}-{_stem(made)}.png" for i, made in enumerate(settings)]
    for image, path, made in zip(images, paths, settings, strict=True):
        save_png(image, path, made)
    if sheet:
        save_png(grid(images, len(images), [_caption(made) for made in settings]), folder / "grid.png")
    return {
        "paths": [str(path) for path in paths],
        "grid": str(folder / "grid.png") if sheet else None,
        "seeds": [made.get("seed", 0) for made in settings],
        "settings": settings,
    }


def _caption(made: dict[str, Any]) -> str:
    """What tells a picture of a series from the others."""
    name = next((name for name in ("theta", "dims", "frame") if name in made), "seed")
    return f"{name} {made.get(name, 0)}"


def _stem(made: dict[str, Any]) -> str:
    """The task, what the picture was made of, and its seed, as part of a file's name."""
    from unclip.cli.generate import slug

    first = made["parents"][0]
    source = Path(first["file"]).stem if "file" in first else first.get("prompt", "picture")
    return "-".join([made["task"].replace("_", "-"), slug(source), *([str(made["seed"])] if "seed" in made else [])])


def numbers(values: Sequence[str], name: str) -> list[float]:
    """The numbers of an option that takes several, given more than once or with commas; RequestError for what is none."""
    from unclip.errors import RequestError

    parts = [part for value in values for part in value.replace(",", " ").split()]
    try:
        return [float(part) for part in parts]
    except ValueError:
        raise RequestError(f"{name} {' '.join(values)}: expected numbers, with commas between them") from None
