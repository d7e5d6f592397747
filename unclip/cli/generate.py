"""`unclip generate`: pictures from prompts."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from PIL.Image import Image

    from unclip.glide import GLIDE
    from unclip.pipeline import UnCLIP
    from unclip.request import Options

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def generate(
    prompts: list[str] = typer.Argument(None, help="One or more prompts."),
    prompt_file: Path = typer.Option(None, "--prompt-file", "-f", help="More prompts, one a line."),
    n: int = typer.Option(1, "-n", "--n", help="Pictures a prompt."),
    seed: int = typer.Option(0, "--seed", "-s", help="Seed of each prompt's first picture; the next has seed + 1."),
    size: int = typer.Option(None, "--size", help="Side in pixels; 256 where the model can."),
    out: Path = typer.Option(Path("out"), "--out", "-o", help="Folder for the pictures."),
    model: str = typer.Option("icons", "--model", "-m", help="A shipped model, a folder, or a repository of the hub."),
    steps: str = typer.Option(None, "--steps", help="Steps of the decoder."),
    guidance: float = typer.Option(None, "--guidance", help="Guidance scale of the decoder; 1 is off."),
    prior_steps: str = typer.Option(None, "--prior-steps", help="Steps of the prior."),
    prior_guidance: float = typer.Option(None, "--prior-guidance", help="Guidance scale of the prior; 1 is off."),
    prior_sampler: str = typer.Option(None, "--prior-sampler", help="The prior's: dpm++, ddim, ddpm or analytic."),
    upsampler_steps: str = typer.Option(None, "--upsampler-steps", help="Steps of every upsampler."),
    sampler: str = typer.Option(None, "--sampler", help="The decoder's sampler: dpm++, ddim or ddpm."),
    candidates: int = typer.Option(2, "--candidates", help="Prior samples a picture; the best is painted."),
    best_of: int = typer.Option(None, "--best-of", help="Paint so many a prompt, and keep the -n that CLIP finds nearest."),
    clip: str = typer.Option(None, "--clip", help="Whose CLIP chooses for --best-of; the model's own unless given."),
    as_typed: bool = typer.Option(False, "--as-typed", help="Paint prompts as they are, whatever the model reads in them."),
    batched: bool = typer.Option(False, "--batched", help="Paint all pictures at once: faster, not byte for byte the same."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    offload: bool = typer.Option(False, "--offload", help="Keep one network in memory at a time: slower, for large models."),
    sheet: bool = typer.Option(False, "--grid", help="Also write grid.png, a contact sheet."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of a path a line."),
) -> None:
    """Paint prompts, and print the path of each picture.

    Example: unclip generate "a flat icon of a cactus" -n 4 --seed 7 --size 256 -o out/
    """
    from unclip.errors import RequestError

    prompts = gather(prompts, prompt_file)
    if n < 1:
        raise RequestError(f"-n {n}: expected at least 1")
    clock = Clock()
    from unclip.cli.progress import StageProgress
    from unclip.images import make_folder
    from unclip.pipeline import UnCLIP, load
    from unclip.request import Options

    seconds = {"import": clock.lap()}
    folder = make_folder(out)
    changes = {"steps": steps, "guidance": guidance, "sampler": sampler, "upsampler_steps": upsampler_steps}
    changes |= {"prior_steps": prior_steps, "prior_guidance": prior_guidance, "prior_sampler": prior_sampler}
    options = Options.parse(changes | {"as_typed": as_typed or None}, where="options")
    painter = load(model, device=device, offload=offload)
    seconds["load"] = clock.lap()
    read = tell_reading(painter, prompts, options)
    asked: dict[str, Any] = {"size": size, "exact": False if batched else None, "options": options}
    asked |= {"candidates": candidates} if isinstance(painter, UnCLIP) else {}
    with StageProgress() as progress:
        asked["progress"] = progress
        if best_of is None:
            images, scores = painter.generate(prompts, n=n, seed=seed, **asked), {}
        else:
            images, scores = choose(painter, clip, prompts, asked, (best_of, n, seed))
    clock.lap()
    written = write(images, folder, columns=(n if n > 1 else 4) if sheet else 0) | scores | read
    tell(written, seconds | progress.seconds | {"save": clock.lap()}, as_json=as_json)


def tell_reading(painter: "UnCLIP | GLIDE", prompts: Sequence[str], options: "Options") -> dict[str, Any]:
    """Notes which prompts are cut and, of a model that comes with words, what it reads in them; the latter for `--json`."""
    from unclip.cli.console import note
    from unclip.pipeline import UnCLIP

    for prompt in painter.cut(prompts, options) if isinstance(painter, UnCLIP) else painter.cut(prompts):
        note(f"the model reads only the beginning of this prompt: {prompt}")
    if not isinstance(painter, UnCLIP) or painter.words is None or options.as_typed:
        return {}
    readings = [painter.read(prompt, options) for prompt in prompts]
    for line in dict.fromkeys(line for reading in readings for line in reading.notes(painter.name)):
        note(line)
    return {"read": [reading.record() for reading in readings]}


def choose(
    painter: "UnCLIP | GLIDE", clip: str | None, prompts: list[str], asked: dict[str, Any], numbers: tuple[int, int, int]
) -> "tuple[list[Image], dict[str, list[float]]]":
    """The best pictures of each prompt, and their scores: `n` among so many, from a seed on.

    The model's own CLIP compares them with what the model read; another's with the prompt as it is.
    """
    from unclip.clip import load_clip
    from unclip.errors import RequestError
    from unclip.pipeline import UnCLIP
    from unclip.request import pick_size
    from unclip.rerank import best_of, draft_size

    among, n, seed = numbers
    if clip is not None:
        eyes = load_clip(clip, device=str(painter.device))
    elif isinstance(painter, UnCLIP):
        eyes = painter.eyes()
    else:
        raise RequestError(f"{painter.name} has no CLIP that sees: name a model whose CLIP is to choose, with --clip")

    def paint_of(prompt: str) -> "Callable[[list[str], list[int], int], list[Image]]":
        return lambda _, seeds, size: painter.generate([prompt] * len(seeds), **asked | {"seed": seeds, "size": size})

    own = painter if isinstance(painter, UnCLIP) and clip is None else None
    known = prompts if own is None else [own.read(prompt, asked["options"]).text for prompt in prompts]
    sizes = draft_size(painter.sizes, eyes.size), pick_size(painter.name, painter.sizes, asked["size"])
    chosen = {"among": among, "n": n, "seed": seed, "sizes": sizes}
    best = [
        one for prompt, text in zip(prompts, known, strict=True) for one in best_of(paint_of(prompt), eyes, text, **chosen)
    ]
    return [one.image for one in best], {"scores": [round(one.score, 4) for one in best]}


def tell(written: dict[str, Any], seconds: dict[str, float], *, as_json: bool) -> None:
    """Prints what `write` wrote: a path a line, or all of it as one JSON object with the seconds of each part."""
    from unclip.cli.console import print_json

    if as_json:
        print_json({**written, "seconds": seconds})
    else:
        print("\n".join([*written["paths"], *([written["grid"]] if written["grid"] else [])]))


class Clock:
    """Seconds from lap to lap."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        return passed


def write(images: "Sequence[Image]", folder: Path, *, columns: int) -> dict[str, Any]:
    """Writes each image as a PNG with its settings, and a contact sheet if `columns` is not 0; says what is where."""
    from unclip.images import grid, save_png

    settings = [image.info["unclip"] for image in images]
    paths = [folder / f"{i:03d}-{slug(made['prompt'])}-{made['seed']}.png" for i, made in enumerate(settings)]
    for image, path, made in zip(images, paths, settings, strict=True):
        save_png(image, path, made)
    sheet = folder / "grid.png"
    if columns:
        save_png(grid(images, columns, [f"{made['prompt']} · seed {made['seed']}" for made in settings]), sheet)
    return {
        "paths": [str(path) for path in paths],
        "grid": str(sheet) if columns else None,
        "seeds": [made["seed"] for made in settings],
        "settings": settings,
    }


def gather(given: list[str] | None, path: Path | None) -> list[str]:
    """The prompts of the command line, then those of a file, one a line; RequestError when there is none."""
    from unclip.errors import RequestError

    prompts = [*(given or []), *(read_prompts(path) if path else [])]
    if not prompts:
        raise RequestError('no prompt: give one in quotes, as in unclip generate "a red apple", or --prompt-file')
    return prompts


def read_prompts(path: Path) -> list[str]:
    """The lines of a file, one prompt each; blank lines are passed over. RequestError when it cannot be read."""
    from unclip.errors import RequestError

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise RequestError(f"cannot read the prompts in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"cannot read the prompts in {path}: it is not utf-8 text") from None
    return [line.strip() for line in lines if line.strip()]


def slug(prompt: str) -> str:
    """A prompt as part of a file's name: letters and digits of any language, hyphens, at most 48 characters."""
    words = "".join(letter if letter.isalnum() else " " for letter in prompt.lower()).split()
    return "-".join(words)[:48].rstrip("-") or "empty"
