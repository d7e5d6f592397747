"""The `unclip` command: a table of verbs, each a module that is imported when its verb is called.

A module of a verb holds `app = typer.Typer(add_completion=False, rich_markup_mode=None)`: with one command it is that verb,
with several a group. So `--help` needs neither torch nor any of those modules, and one that cannot be imported does not hurt
the others. Inside those modules, too, what is heavy is imported by the command that uses it.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 our fault (a traceback), 2 the caller's (one line that
begins with `error:`), 130 interrupted.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import typer
from typer.core import TyperCommand, TyperGroup

from unclip.errors import UnclipError

# verb: (module, what it does in one line)
VERBS = {
    "generate": ("unclip.cli.generate", "Paint pictures from prompts."),
    "variations": ("unclip.cli.tasks_variations", "Paint other pictures of what CLIP saw in one."),
    "interpolate": ("unclip.cli.tasks_interpolate", "Paint the way between pictures or prompts."),
    "text-diff": ("unclip.cli.tasks_text_diff", "Change a picture as from one caption to another."),
    "img2img": ("unclip.cli.tasks_img2img", "Paint a picture anew from a noised start."),
    "inpaint": ("unclip.cli.tasks_inpaint", "Paint a part of a picture anew."),
    "outpaint": ("unclip.cli.tasks_outpaint", "Paint what lies around a picture."),
    "reconstruct": ("unclip.cli.tasks_reconstruct", "Paint a picture from its own z and x_T, and say how near it comes."),
    "probe": ("unclip.cli.tasks_probe", "Paint a picture from ever more principal components of its z."),
    "info": ("unclip.cli.tasks_info", "Say how a picture was made, and the command that makes it again."),
    "optimize": ("unclip.cli.optimize", "Push pixels up CLIP's score by gradient alone."),
    "classify": ("unclip.cli.classify", "Say which of some labels fits each picture."),
    "map": ("unclip.cli.map", "Draw what CLIP makes of pictures and captions as a plane, and measure the gap."),
    "serve": ("unclip.cli.serve", "Answer the OpenAI Images API of dall-e-2, and serve the page."),
    "models": ("unclip.cli.models", "List the models there are, look into one, fetch, convert or make one."),
    "data": ("unclip.cli.data", "Prepare pictures with captions and inspect them."),
    "train": ("unclip.cli.train", "Train CLIP, the prior, the decoder or an upsampler."),
    "search": ("unclip.cli.search", "Find pictures and moments of videos by a sentence or a picture."),
    "evaluate": ("unclip.cli.evaluate", "Judge a model: retrieval, counterfactuals, distances."),
}


class Verbs(TyperGroup):
    """Lists the verbs from the table; imports one only to run it, to show its help or to complete its arguments."""

    def list_commands(self, ctx):
        return list(VERBS)

    def get_command(self, ctx, cmd_name):
        """A stand-in that has the verb's name and help: enough for the list of commands."""
        if cmd_name not in VERBS:
            return None
        return TyperCommand(cmd_name, help=VERBS[cmd_name][1], rich_markup_mode=None)

    def resolve_command(self, ctx, args):
        name, command, rest = super().resolve_command(ctx, args)
        if name in VERBS:
            module = importlib.import_module(VERBS[name][0])
            command = typer.main.get_command(module.app)
            command.name = name
        return name, command, rest


app = typer.Typer(cls=Verbs, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"unclip {version('unclip')}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """DALL·E 2 as open software: paint, edit, train, judge.

    Example: unclip generate "a flat icon of a cactus" -n 4 --seed 7 -o out
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (`sys.argv` by default) and returns the exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="unclip", standalone_mode=False)
        sys.stdout.flush()
    except (UnclipError, typer.TyperException) as error:
        return _complain(error)
    except typer.Abort:  # Ctrl+D at a question
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if code == 130:
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _complain(error: UnclipError | typer.TyperException) -> int:
    """One line on stderr, except that a group called without a verb answers with its help; exit code 2."""
    message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    if message.startswith("Usage:"):
        print(message, file=sys.stderr)
    else:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
