"""The command-line application: the table of commands and the handling of errors."""

import sys
from typing import Annotated

import typer

from gptbox import __version__
from gptbox.cli.common import report_error
from gptbox.cli.evaluate import evaluate
from gptbox.cli.prepare import prepare
from gptbox.cli.runs import delete, runs
from gptbox.cli.sample import sample
from gptbox.cli.serve import serve
from gptbox.cli.train import train
from gptbox.cli.up import up
from gptbox.errors import GptboxError

app = typer.Typer(
    name="gptbox",
    help="Train your own GPT on your own text and serve it from your own box.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# In the order of `gptbox --help`.
app.command()(prepare)
app.command()(train)
app.command()(sample)
app.command(name="eval")(evaluate)
app.command()(runs)
app.command()(delete)
app.command()(serve)
app.command()(up)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"gptbox {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. An error that the user can correct is one line, without a traceback."""
    try:
        app()
    except GptboxError as error:
        report_error(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
