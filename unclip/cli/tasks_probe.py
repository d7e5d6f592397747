"""`unclip probe`: what the principal components of z say, more and more of them."""

from pathlib import Path

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def probe(
    call: tasks.Call,
    picture: tasks.Picture,
    among: Path = typer.Option(..., "--among", help="A folder of pictures, of which z's components are taken."),
    dims: list[str] = typer.Option([], "--dims", help="How many components; several with commas. By default the paper's."),
    seed: tasks.OneSeed = 0,
    size: tasks.Size = None,
) -> None:
    """Paint a picture from ever more principal components of its z, and print the path of each.

    Example: unclip probe cat.png --among pictures/ --dims 5,10,20,40,80 -o out/
    """
    from unclip.errors import RequestError
    from unclip.images import read_picture
    from unclip.tasks import probe

    image, counts = read_picture(picture), tasks.numbers(dims, "--dims")
    if any(count != int(count) for count in counts):
        raise RequestError(f"--dims {' '.join(dims)}: expected whole numbers")
    if not among.is_dir():
        raise RequestError(f"there is no folder {among}")
    others = [read_picture(path) for path in sorted(among.iterdir()) if path.suffix.lower() in tasks.SUFFIXES]

    def ask(asked: tasks.Asked):
        wanted = [int(count) for count in counts] or None
        return probe(asked.model, image, others, dims=wanted, seed=seed, size=size, **asked.alike)

    tasks.tell(call, tasks.paint(call, ask))
