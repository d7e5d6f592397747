"""`unclip text-diff`: a picture changed in what one caption has and another has not."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def text_diff(
    call: tasks.Call,
    picture: tasks.Picture,
    new: str = typer.Option(..., "--new", help="The whole of what the picture is to be."),
    old: str = typer.Option("", "--old", help="What the picture is."),
    theta: list[str] = typer.Option(["0.05,0.15,0.3"], "--theta", help="How far to go, 0 to 0.5; several with commas."),
    pace: tasks.Pace = typer.Option(
        "even", "--pace", help="These thetas, or, four times the work, even steps of what CLIP sees, up to the last."
    ),
    size: tasks.Size = None,
    as_typed: tasks.AsTyped = False,
) -> None:
    """Paint a picture changed as from one caption to another, once for each theta, and print the path of each.

    Example: unclip text-diff cat.png --old "a cat" --new "a cat in winter" --theta 0.05,0.15,0.3 -o out/
    """
    from unclip.images import read_picture
    from unclip.tasks import text_diff

    image, thetas = read_picture(picture), tasks.numbers(theta, "--theta")

    def ask(asked: tasks.Asked):
        return text_diff(asked.model, image, old, new, thetas=thetas, pace=pace, size=size, **asked.alike)

    tasks.tell(call, tasks.paint(call, ask, prompts=[old, new], as_typed=as_typed))
