"""Running the application under uvicorn, from the listening socket to a clean shutdown."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import uvicorn
from starlette.applications import Starlette

from gptbox import __version__
from gptbox.errors import SettingError
from gptbox.settings import Settings
from gptbox.system import logs
from gptbox.web.app import create_app
from gptbox.web.service import Service

log = logging.getLogger(__name__)

ABORT_AFTER_S = 3.0
"""How long texts may go on after the stop signal. Then their clients get an error, and the engine stops."""
SHUTDOWN_TIMEOUT_S = 5
BACKLOG = 2048
MAX_INCOMPLETE_EVENT_SIZE = 65_536
"""Bytes buffered without completing a request's head or a part of its body; h11's own limit."""

# The private networks, where the proxy's container is. No public address is among them.
_TRUSTED_PROXIES = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fd00::/8"

HttpProtocol: type[asyncio.Protocol]
"""uvicorn's HTTP protocol: httptools, or h11 on platforms without a wheel of httptools."""
try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    HttpProtocol = H11Protocol
else:

    class BoundedHttpToolsProtocol(HttpToolsProtocol):
        """Limits the size of a request's head, which httptools does not."""

        _incomplete = 0

        def data_received(self, data: bytes) -> None:
            self._incomplete += len(data)
            super().data_received(data)
            if self._incomplete > MAX_INCOMPLETE_EVENT_SIZE and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

        def on_headers_complete(self) -> None:
            self._incomplete = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._incomplete = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._incomplete = 0
            super().on_message_complete()

    HttpProtocol = BoundedHttpToolsProtocol


class Server(uvicorn.Server):
    """uvicorn's server, whose shutdown also ends event streams and long generations."""

    def __init__(self, app: Starlette) -> None:
        self.service: Service = app.state.service
        # uvicorn's access log has query strings, which may contain prompts: no handler may write it.
        logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL + 1)
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                access_log=False,
                log_config=None,
                server_header=False,
                ws="none",
                lifespan="on",
                proxy_headers=True,
                forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", _TRUSTED_PROXIES),
                # Longer than the proxy keeps its connections, so that it never sends on one that is being closed.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.feed.close()
        abort = asyncio.get_running_loop().call_later(ABORT_AFTER_S, self.service.abort_generations)
        try:
            await super().shutdown(sockets)
        finally:
            abort.cancel()
            for connection in list(self.server_state.connections):
                connection.transport.abort()  # its client has stopped reading, so its buffer would never drain
            await asyncio.sleep(0)


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free port.

    Raises SettingError if it cannot be opened.
    """
    if not 0 <= port <= 65_535:
        raise SettingError(f"Port {port} does not exist. Choose one between 1 and 65535.")
    listener = None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Not socket.create_server, whose sockets have protocol 0: asyncio sets TCP_NODELAY only for IPPROTO_TCP, and
        # without it each response on a keep-alive connection waits 40 ms for the client's delayed acknowledgement.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise SettingError(f"Port {port} of {host} cannot be opened: {error}. Choose another port.") from None
    return listener


class _StopHandler:
    """Handles SIGTERM and SIGINT before uvicorn installs its handlers, and when it re-raises the signal after shutdown.

    With the default handlers, the process would exit as if it had failed.
    """

    def __init__(self) -> None:
        self._stopping = False
        self._server: Server | None = None

    def __call__(self, *_: object) -> None:
        self._stopping = True
        if self._server is not None:
            self._server.should_exit = True

    def watch(self, server: Server) -> None:
        """Stop this server right after its start if a signal has come, or comes before uvicorn handles signals."""
        self._server = server
        server.should_exit = self._stopping


@contextmanager
def _handle_stop_signals() -> Iterator[_StopHandler]:
    handler = _StopHandler()
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield handler
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    beside: AbstractContextManager[object] = nullcontext(),  # noqa: B008  (stateless, so sharing it is safe)
) -> None:
    """Serve until SIGTERM or SIGINT, then return within ten seconds. `beside` is entered once the port is open.

    Raises SettingError if the port cannot be opened.
    """
    with open_port(host, port) as listener, _handle_stop_signals() as stop_handler:
        logs.configure(settings.log_format, sys.stderr)
        where = _describe_address(host, listener.getsockname()[1])
        log.info("gptbox %s: %s", __version__, where)
        with beside:
            server = Server(create_app(settings))
            stop_handler.watch(server)
            server.run(sockets=[listener])
        log.info("Stopped.")


def _describe_address(host: str, port: int) -> str:
    """The page's URL; only the port for a wildcard address, which no browser can open."""
    if host in ("0.0.0.0", "::"):
        return f"listening on port {port}"
    return f"the page is at http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl-C ends it)"
