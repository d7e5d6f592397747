"""`unclip variations`: other pictures of what CLIP saw in one."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def variations(
    picture: tasks.Picture,
    n: tasks.Count = 4,
    seed: tasks.Seed = 0,
    eta: float | None = typer.Option(None, "--eta", help="Start from the picture's own noise and add so much, 0 to 1."),
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
    """Paint a picture's variations, and print the path of each.

    Example: unclip variations cat.png -n 4 --seed 7 --eta 0.5 -o out/
    """
    from unclip.cli.generate import tell
    from unclip.images import read_picture
    from unclip.tasks import variations

    image = read_picture(picture)

    def ask(asked: tasks.Asked):
        return variations(asked.model, image, n=n, seed=seed, eta=eta, **asked.alike)

    call = tasks.Call(out, model, device, offload, size, steps, guidance)
    written, _, seconds = tasks.paint(call, ask, sheet=sheet)
    tell(written, seconds, as_json=as_json)
