"""The web application: the page and the API over the published models. It never imports torch."""

from gptbox.web.app import create_app
from gptbox.web.server import serve

__all__ = ["create_app", "serve"]
