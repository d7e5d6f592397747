"""`unclip variations`: other pictures of what CLIP saw in one."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def variations(
    call: tasks.Call,
    picture: tasks.Picture,
    n: tasks.Count = 4,
    seed: tasks.Seed = 0,
    eta: float | None = typer.Option(None, "--eta", help="Start from the picture's own noise and add so much, 0 to 1."),
    size: tasks.Size = None,
) -> None:
    """Paint a picture's variations, and print the path of each.

    Example: unclip variations cat.png -n 4 --seed 7 --eta 0.5 -o out/
    """
    from unclip.images import read_picture
    from unclip.tasks import variations

    image = read_picture(picture)

    def ask(asked: tasks.Asked):
        return variations(asked.model, image, n=n, seed=seed, eta=eta, size=size, **asked.alike)

    tasks.tell(call, tasks.paint(call, ask))
