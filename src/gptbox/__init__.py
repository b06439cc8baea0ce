"""Train your own GPT on your own text and serve it from your own box."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gptbox")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
