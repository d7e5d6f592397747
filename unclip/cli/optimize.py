"""`unclip optimize`: pixels pushed up CLIP's score."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer

from unclip.cli import tasks

if TYPE_CHECKING:
    from PIL.Image import Image

    from unclip.clip import Clip
    from unclip.optimize.climb import Ascent

Basis = Literal["fourier", "pixels"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def optimize(
    prompt: str = typer.Argument(help="What CLIP is to see."),
    n: int = typer.Option(1, "-n", "--n", help="Pictures."),
    seed: int = typer.Option(0, "--seed", "-s", help="Seed of the first picture; the next has seed + 1."),
    basis: Basis = typer.Option("fourier", "--basis", help="What is moved: the picture's waves, or its pixels."),
    steps: int = typer.Option(200, "--steps", help="Steps of the ascent."),
    size: int = typer.Option(None, "--size", help="Side in pixels, 16 to 1024; that of what CLIP looks at."),
    views: int = typer.Option(8, "--views", help="Random views of the picture that CLIP looks at in each step."),
    strength: float = typer.Option(1.0, "--strength", help="How far views are shifted, scaled, turned, noised; 0: not."),
    rate: float = typer.Option(None, "--rate", help="Adam's learning rate; .1 for waves and .05 for pixels."),
    image: Path = typer.Option(None, "--image", help="A picture to start from, in place of grey noise."),
    film: Path = typer.Option(None, "--film", help="Also write the ascent here, an animated .webp."),
    milliseconds: int = typer.Option(80, "--milliseconds", min=1, help="Of each frame of the film."),
    clip: str = typer.Option("icons", "--clip", help="A shipped model's name, a bundle, a hub repository or a file."),
    out: Path = typer.Option(Path("out"), "--out", "-o", help="Folder for the pictures."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    sheet: bool = typer.Option(False, "--grid", help="Also write grid.png, all of them in a row."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of a path a line."),
) -> None:
    """Push a picture up CLIP's score for a prompt, by gradient alone, and print its path. Ctrl+C keeps it as it is then.

    Example: unclip optimize "sunset" --steps 300 --film sunset.webp -o out/
    """
    from unclip.cli.console import note
    from unclip.cli.generate import Clock, tell
    from unclip.clip import load_clip
    from unclip.errors import RequestError
    from unclip.images import make_folder, read_picture
    from unclip.optimize.climb import Ascent
    from unclip.request import seeds_of
    from unclip.rerank import rerank

    clock = Clock()
    changes = {"basis": basis, "steps": steps, "size": size, "views": views, "strength": strength, "rate": rate}
    how = Ascent.parse({name: value for name, value in changes.items() if value is not None}, where="options")
    seeds = seeds_of(seed, n)
    if film is not None and (n > 1 or film.suffix != ".webp"):
        raise RequestError(f"--film {film} of {n} pictures: expected a .webp, and one picture")
    given = None if image is None else read_picture(image)
    folder = make_folder(out)
    if film is not None:
        make_folder(film.parent)
    eyes = load_clip(clip, device=device)
    if eyes.tokenizer([prompt]).cut[0]:
        note(f"CLIP reads only the beginning of this prompt: {prompt}")
    seconds = {"load": clock.lap()}
    climbed = _climb(eyes, prompt, seeds, given, how, filming=film is not None)
    seconds["climb"] = clock.lap()
    written = tasks.write(climbed.images, folder, sheet=sheet)
    ranked = rerank(eyes, climbed.images, prompt)
    written["scores"] = [round(one.score, 4) for one in sorted(ranked, key=lambda one: one.place)]
    written["film"] = None if film is None else _write_film(climbed, film, milliseconds)
    tell(written, seconds | {"save": clock.lap()}, as_json=as_json)
    if film is not None and not as_json:
        print(film)
    if climbed.stopped:
        raise typer.Exit(130)


class Climbed(NamedTuple):
    images: "list[Image]"
    frames: "list[Image]"  # of the last one
    stopped: bool


def _climb(clip: "Clip", prompt: str, seeds: list[int], image: "Image | None", how: "Ascent", *, filming: bool) -> Climbed:
    """The pictures of some seeds; on Ctrl+C those that are done, and the one under way as it is, if it has moved at all."""
    from unclip.cli.console import progress
    from unclip.optimize.climb import optimize

    made: dict[int, Image] = {}
    frames: list[Image] = []
    step, stopped = None, False
    try:
        with progress() as bars:
            for seed in seeds:
                task = bars.add_task("climbing", total=how.steps)
                frames, step = [], None
                for step in optimize(clip, prompt, seed=seed, image=image, how=how):
                    frames += [step.image()] if filming and step.filmed else []
                    bars.update(task, completed=step.index + 1, description=f"score {step.score:.3f}")
                assert step is not None, "an ascent has a step"
                made[seed] = step.image()
    except KeyboardInterrupt:
        stopped = True
        if step is not None:
            made[step.settings["seed"]] = step.image()
        if not made:
            raise
    return Climbed([*made.values()], frames, stopped)


def _write_film(climbed: Climbed, film: Path, milliseconds: int) -> str:
    from unclip.images import save_webp

    last = climbed.images[-1]
    settings = {**last.info["unclip"], "film": film.name, "milliseconds": milliseconds}
    save_webp([*climbed.frames, last], film, settings, milliseconds=milliseconds)
    return str(film)
