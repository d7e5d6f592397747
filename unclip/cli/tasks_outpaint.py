"""`unclip outpaint`: a picture that goes on beyond its frame."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def outpaint(
    call: tasks.Call,
    picture: tasks.Whole,
    prompt: str | None = typer.Option(
        None, "--prompt", "-p", help="What the whole is to show; without one, what CLIP sees in the picture."
    ),
    left: int = typer.Option(0, "--left", help="Pixels to add on the left."),
    right: int = typer.Option(0, "--right", help="Pixels to add on the right."),
    top: int = typer.Option(0, "--top", help="Pixels to add above."),
    bottom: int = typer.Option(0, "--bottom", help="Pixels to add below."),
    overlap: float = typer.Option(0.5, "--overlap", help="Share of each new frame that is there already, between 0 and 1."),
    n: tasks.Count = 1,
    seed: tasks.Seed = 0,
    method: tasks.Method = "auto",
    as_typed: tasks.AsTyped = False,
) -> None:
    """Paint what lies around a picture, and print the path of each larger one.

    Example: unclip outpaint cat.png --prompt "a cat on a sofa" --left 128 --right 128 -o out/
    """
    from unclip.images import read_picture
    from unclip.inpainting import Sides, outpaint

    image, sides = read_picture(picture), Sides(left, right, top, bottom)

    def ask(asked: tasks.Asked):
        return outpaint(asked.model, image, sides, prompt, overlap=overlap, n=n, seed=seed, **asked.alike)

    tasks.tell(call, tasks.paint(call, ask, method=method, prompts=[prompt], as_typed=as_typed))
