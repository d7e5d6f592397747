"""`unclip reconstruct`: a picture from its own z and x_T."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@tasks.verb
def reconstruct(
    call: tasks.Call,
    picture: tasks.Picture,
    seed: tasks.OneSeed = 0,
    size: tasks.Size = None,
) -> None:
    """Paint a picture again from what the model has of it; print its path, and how near it comes.

    Example: unclip reconstruct cat.png --steps 250 -o out/
    """
    from unclip.images import read_picture
    from unclip.tasks import Reconstruction, reconstruct

    image = read_picture(picture)
    made: list[Reconstruction] = []

    def ask(asked: tasks.Asked):
        made.append(reconstruct(asked.model, image, seed=seed, size=size, **asked.alike))
        return [made[0].image]

    painted = tasks.paint(call, ask)
    near = {"psnr": round(made[0].psnr, 2), "cosine": round(made[0].cosine, 4)}
    painted.written.update(near)
    tasks.tell(call, painted, more=[f"PSNR {near['psnr']} dB at the decoder's side, cosine of z {near['cosine']}"])
