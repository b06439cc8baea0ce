"""The web app: it serves what training publishes, and never imports torch."""

from gptbox.web.app import create_app
from gptbox.web.server import serve

__all__ = ["create_app", "serve"]
