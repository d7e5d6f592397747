"""`unclip train`: one part of the model from a recipe."""

from functools import partial
from pathlib import Path

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    part: str = typer.Argument(help="clip, prior, decoder or upsampler: what the recipe must be for."),
    overrides: list[str] = typer.Argument(None, help="Changes to the recipe, as key.path=value."),
    config: Path = typer.Option(..., "--config", "-c", help="The recipe, a yaml file."),
    out: Path = typer.Option(None, "--out", "-o", help="The run's folder; the same command goes on with a run."),
    init: str = typer.Option(None, "--init", help="A bundle, or a run, whose weights a new run starts from."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the resolved recipe and stop."),
) -> None:
    """Train one part, or go on with it where it stopped.

    Example: unclip train decoder --config recipes/decoder-icons.yaml --out runs/decoder train.lr=1e-4
    """
    from unclip.errors import ConfigError
    from unclip.train.recipe import load_recipe, make_objective, recorded, to_yaml

    recipe = load_recipe(config, overrides or [])
    if recipe.part != part:
        raise ConfigError(f"{config} is a recipe for {recipe.part}, not for {part}")
    if dry_run:
        print(to_yaml(recipe), end="")
        return
    if out is None:
        raise ConfigError("no folder for the run: name one with --out")

    from unclip.cli.console import note
    from unclip.train.bundle import initialiser
    from unclip.train.loop import train as run_training

    objective = make_objective(recipe, out)
    fill = initialiser(init, recipe, objective.module) if init else partial(objective.prepare, note)
    outcome = run_training(objective, recipe.train, out, recipe=recorded(recipe, objective), init=fill)
    raise typer.Exit(outcome.exit_code)
