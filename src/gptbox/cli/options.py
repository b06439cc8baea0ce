"""Arguments and options that several commands share, and the settings that options override."""

import os
from typing import Annotated, Any, TextIO

import typer

from gptbox.settings import Settings
from gptbox.system import logs

Dataset = Annotated[
    str | None,
    typer.Argument(
        help="A built-in text, or a folder with your text in data/; an unknown name lists them all. Default: $DATASET. "
        "It only names the text if $DATASET_URL is set."
    ),
]
RunName = Annotated[str | None, typer.Option("--run", help="Name of the run. Default: $RUN, or the dataset's.")]
Minutes = Annotated[
    float | None,
    typer.Option(help="Training time in minutes, from the start of the command; 0.5 is 30 s. Default: $TRAIN_MINUTES."),
]
Preset = Annotated[str | None, typer.Option(help="default, or lesson (nanoGPT's small CPU run). Default: $PRESET.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        help="What a token is in a new run; auto takes what suits the text, an unknown name lists all. "
        "Default: $TOKENIZER.",
        metavar="auto|NAME",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        help="Begin a new run with the weights of a published model instead of random ones. Default: $INIT.",
        metavar="RUN|FOLDER",
    ),
]
Quantize = Annotated[
    str | None, typer.Option(help="int8 stores weights in 8 bits, none in 32. Default: $QUANTIZE.", metavar="none|int8")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 means all addresses.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")]

_OPTIONS = {
    "TOKENIZER": "--tokenizer",
    "INIT": "--init",
    "TRAIN_MINUTES": "--minutes",
    "PRESET": "--preset",
    "QUANTIZE": "--quantize",
}
"""The settings that options override."""


def read_settings(**overrides: Any) -> Settings:
    """The settings. `overrides` are values of options by the name of their setting; None means not given."""
    given = {name: (_OPTIONS[name], str(value)) for name, value in overrides.items() if value is not None}
    return Settings.from_environment(options=given)


def configure_logs_and_read_settings(stream: TextIO, **overrides: Any) -> Settings:
    """The settings of a command that logs to `stream`. Errors in them are logged in LOG_FORMAT, too."""
    logs.configure(os.environ.get("LOG_FORMAT", "").strip(), stream)
    return read_settings(**overrides)
