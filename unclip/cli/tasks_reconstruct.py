"""`unclip reconstruct`: a picture from its own z and x_T."""

import typer

from unclip.cli import tasks

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def reconstruct(
    picture: tasks.Picture,
    seed: tasks.OneSeed = 0,
    out: tasks.Out = tasks.OUT,
    size: tasks.Size = None,
    model: tasks.Model = "icons",
    steps: tasks.Steps = None,
    guidance: tasks.Guidance = None,
    device: tasks.Device = "auto",
    offload: tasks.Offload = False,
    as_json: tasks.AsJson = False,
) -> None:
    """Paint a picture again from what the model has of it; print its path, and how near it comes.

    Example: unclip reconstruct cat.png --steps 250 -o out/
    """
    from unclip.cli.generate import tell
    from unclip.images import read_picture
    from unclip.tasks import Reconstruction, reconstruct

    image = read_picture(picture)
    made: list[Reconstruction] = []

    def ask(asked: tasks.Asked):
        made.append(reconstruct(asked.model, image, seed=seed, **asked.alike))
        return [made[0].image]

    call = tasks.Call(out, model, device, offload, size, steps, guidance)
    written, _, seconds = tasks.paint(call, ask)
    near = {"psnr": round(made[0].psnr, 2), "cosine": round(made[0].cosine, 4)}
    tell(written | near, seconds, as_json=as_json)
    if not as_json:
        print(f"PSNR {near['psnr']} dB at the decoder's side, cosine of z {near['cosine']}")
