"""`gptbox serve`: the page and the API."""

import sys

from gptbox.cli.options import Host, Port, Quantize, configure_logs_and_read_settings


def serve(host: Host = "127.0.0.1", port: Port = 8000, quantize: Quantize = None) -> None:
    """Serve the page and the API, even before there is a model; new models are served as they appear."""
    from gptbox.web.server import serve as serve_web

    serve_web(configure_logs_and_read_settings(sys.stderr, QUANTIZE=quantize), host, port)
