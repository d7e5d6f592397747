"""`unclip text-diff`: a picture changed in what one caption has and another has not."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def text_diff(
    picture: tasks.Picture,
    new: str = typer.Option(..., "--new", help="What the picture is to be."),
    old: str = typer.Option("", "--old", help="What the picture is."),
    theta: list[str] = typer.Option(["0.1,0.25,0.4"], "--theta", help="How far to go, 0 to 0.5; several with commas."),
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
    """Paint a picture changed as from one caption to another, once for each theta, and print the path of each.

    Example: unclip text-diff cat.png --old "a cat" --new "a cat in winter" --theta 0.1,0.25,0.4 -o out/
    """
    from unclip.cli.generate import tell
    from unclip.images import read_picture
    from unclip.tasks import text_diff

    image, thetas = read_picture(picture), tasks.numbers(theta, "--theta")

    def ask(asked: tasks.Asked):
        return text_diff(asked.model, image, old, new, thetas=thetas, **asked.alike)

    call = tasks.Call(out, model, device, offload, size, steps, guidance)
    written, _, seconds = tasks.paint(call, ask, sheet=sheet)
    tell(written, seconds, as_json=as_json)
