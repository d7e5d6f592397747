"""`unclip img2img`: a picture drawn anew from half way to noise."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def img2img(
    call: tasks.Call,
    picture: tasks.Picture,
    prompt: str | None = typer.Option(None, "--prompt", "-p", help="What it becomes; without one, what CLIP sees in it."),
    strength: float = typer.Option(0.6, "--strength", help="How much of the way to noise is gone, above 0 to 1."),
    n: tasks.Count = 4,
    seed: tasks.Seed = 0,
    size: tasks.Size = None,
    as_typed: tasks.AsTyped = False,
) -> None:
    """Paint a picture anew from a noised start, and print the path of each.

    Example: unclip img2img sketch.png --prompt "a flat icon of a cactus" --strength 0.6 -n 4 -o out/
    """
    from unclip.images import read_picture
    from unclip.tasks import image_to_image

    image = read_picture(picture)

    def ask(asked: tasks.Asked):
        return image_to_image(asked.model, image, prompt, strength=strength, n=n, seed=seed, size=size, **asked.alike)

    tasks.tell(call, tasks.paint(call, ask, prompts=[prompt], as_typed=as_typed))
