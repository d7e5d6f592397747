"""`unclip generate`: pictures from prompts."""

from pathlib import Path

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def generate(
    prompts: list[str] = typer.Argument(None, help="One or more prompts."),
    prompt_file: Path = typer.Option(None, "--prompt-file", "-f", help="More prompts, one a line."),
    n: int = typer.Option(1, "-n", "--n", help="Pictures a prompt."),
    seed: int = typer.Option(0, "--seed", "-s", help="Seed of each prompt's first picture; the next has seed + 1."),
    size: int = typer.Option(None, "--size", help="Side in pixels; 256 where the model can."),
    out: Path = typer.Option(Path("out"), "--out", "-o", help="Folder for the pictures."),
    model: str = typer.Option("icons", "--model", "-m", help="A shipped model's name, or the folder of a bundle."),
    steps: str = typer.Option(None, "--steps", help="Steps of the decoder."),
    guidance: float = typer.Option(None, "--guidance", help="Guidance scale of the decoder; 1 is off."),
    prior_steps: str = typer.Option(None, "--prior-steps", help="Steps of the prior."),
    prior_guidance: float = typer.Option(None, "--prior-guidance", help="Guidance scale of the prior; 1 is off."),
    upsampler_steps: str = typer.Option(None, "--upsampler-steps", help="Steps of every upsampler."),
    sampler: str = typer.Option(None, "--sampler", help="The decoder's sampler: dpm++, ddim or ddpm."),
    candidates: int = typer.Option(2, "--candidates", help="Prior samples a picture; the best is painted."),
    batched: bool = typer.Option(False, "--batched", help="Paint all pictures at once: faster, not byte for byte the same."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    sheet: bool = typer.Option(False, "--grid", help="Also write grid.png, a contact sheet."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of a path a line."),
) -> None:
    """Paint prompts, and print the path of each picture.

    Example: unclip generate "a slice of pizza" -n 4 --seed 7 --size 256 -o out/
    """
    import time

    from unclip.cli.console import note, print_json
    from unclip.cli.progress import StageProgress
    from unclip.errors import RequestError
    from unclip.images import grid, make_folder, save_png

    prompts = [*(prompts or []), *(read_prompts(prompt_file) if prompt_file else [])]
    if not prompts:
        raise RequestError('no prompt: give one in quotes, as in unclip generate "a slice of pizza", or --prompt-file')
    if n < 1:
        raise RequestError(f"-n {n}: expected at least 1")
    folder = make_folder(out)
    began = time.perf_counter()

    from unclip.pipeline import Options, load

    options = Options.parse(
        {
            "steps": steps,
            "guidance": guidance,
            "prior_steps": prior_steps,
            "prior_guidance": prior_guidance,
            "upsampler_steps": upsampler_steps,
            "sampler": sampler,
        },
        where="options",
    )
    painter = load(model, device=device)
    seconds = {"load": time.perf_counter() - began}
    for prompt in painter.cut(prompts):
        note(f"the model reads only the beginning of this prompt: {prompt}")
    with StageProgress() as progress:
        images = painter.generate(
            prompts,
            n=n,
            seed=seed,
            size=size,
            options=options,
            candidates=candidates,
            exact=False if batched else None,
            progress=progress,
        )
    paths = []
    for index, image in enumerate(images):
        settings = image.info["unclip"]
        path = folder / f"{index:03d}-{slug(settings['prompt'])}-{settings['seed']}.png"
        save_png(image, path, settings)
        paths.append(path)
    if sheet:
        path = folder / "grid.png"
        captions = [f"{image.info['unclip']['prompt']} · seed {image.info['unclip']['seed']}" for image in images]
        save_png(grid(images, min(len(images), n if n > 1 else 4), captions), path)
        paths.append(path)
    if as_json:
        seconds |= progress.seconds
        settings = [image.info["unclip"] for image in images]
        print_json({"paths": [str(path) for path in paths], "images": settings, "seconds": seconds})
    else:
        print("\n".join(map(str, paths)))


def read_prompts(path: Path) -> list[str]:
    """The lines of a file, one prompt each; blank lines are passed over. RequestError when it cannot be read."""
    from unclip.errors import RequestError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RequestError(f"cannot read the prompts in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"cannot read the prompts in {path}: it is not utf-8 text") from None
    return [line.strip() for line in lines if line.strip()]


def slug(prompt: str) -> str:
    """A prompt as part of a file's name: letters and digits of any language, hyphens, at most 48 characters."""
    words = "".join(letter if letter.isalnum() else " " for letter in prompt.lower()).split()
    return "-".join(words)[:48].rstrip("-") or "empty"
