"""`unclip inpaint`: a part of a picture painted anew."""

from pathlib import Path

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def inpaint(
    call: tasks.Call,
    picture: tasks.Whole,
    repaint: Path | None = typer.Option(
        None,
        "--repaint",
        "--mask",
        "-M",
        help="A mask of the picture's size: what is white or transparent in it is painted anew, the rest kept. "
        "Without one, what is transparent in the picture.",
    ),
    prompt: str | None = typer.Option(
        None, "--prompt", "-p", help="What the whole is to show; without one, what CLIP sees in the picture."
    ),
    n: tasks.Count = 4,
    seed: tasks.Seed = 0,
    size: int | None = typer.Option(
        None,
        "--size",
        help="Side in pixels, of the picture's middle square; without it the whole picture, as large as it is.",
    ),
    method: tasks.Method = "auto",
    as_typed: tasks.AsTyped = False,
) -> None:
    """Paint a part of a picture anew, and print the path of each.

    Example: unclip inpaint cat.png --repaint mask.png --prompt "a cat with a red hat" -n 4 -o out/
    """
    from unclip.images import read_picture
    from unclip.inpainting import inpaint

    image, mask = read_picture(picture), read_picture(repaint) if repaint else None

    def ask(asked: tasks.Asked):
        return inpaint(asked.model, image, mask, prompt, n=n, seed=seed, size=size, **asked.alike)

    tasks.tell(call, tasks.paint(call, ask, method=method, prompts=[prompt], as_typed=as_typed))
