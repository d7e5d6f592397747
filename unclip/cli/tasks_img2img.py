"""`unclip img2img`: a picture drawn anew from half way to noise."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def img2img(
    picture: tasks.Picture,
    prompt: str | None = typer.Option(None, "--prompt", "-p", help="What it becomes; without one, what CLIP sees in it."),
    strength: float = typer.Option(0.6, "--strength", help="How much of the way to noise is gone, above 0 to 1."),
    n: tasks.Count = 4,
    seed: tasks.Seed = 0,
    out: tasks.Out = tasks.OUT,
    size: tasks.Size = None,
    model: tasks.Model = "icons",
    steps: tasks.Steps = None,
    guidance: tasks.Guidance = None,
    device: tasks.Device = "auto",
    offload: tasks.Offload = False,
    sheet: tasks.Grid = False,
    as_json: tasks.AsJson = False,
) -> None:
    """Paint a picture anew from a noised start, and print the path of each.

    Example: unclip img2img sketch.png --prompt "a flat icon of a cactus" --strength 0.6 -n 4 -o out/
    """
    from unclip.cli.generate import tell
    from unclip.errors import RequestError
    from unclip.images import read_picture
    from unclip.tasks import image_to_image

    image = read_picture(picture)
    if n < 1:
        raise RequestError(f"-n {n}: expected at least 1")

    def ask(asked: tasks.Asked):
        return image_to_image(asked.model, image, prompt, strength=strength, seed=range(seed, seed + n), **asked.alike)

    call = tasks.Call(out, model, device, offload, size, steps, guidance)
    written, _, seconds = tasks.paint(call, ask, sheet=sheet)
    tell(written, seconds, as_json=as_json)
