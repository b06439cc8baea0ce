"""The command line, one file per command. Heavy modules are imported inside the commands, so that it starts fast."""

from gptbox.cli.app import main

__all__ = ["main"]
