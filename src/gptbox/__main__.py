"""`python -m gptbox` is the command line."""

from gptbox.cli import main

main()
