"""Running the application under uvicorn, from the open port to a clean end."""

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

from gptbox import __version__, logs
from gptbox.errors import SettingError
from gptbox.settings import Settings
from gptbox.web.app import create_app
from gptbox.web.http_protocol import Protocol
from gptbox.web.service import Service

log = logging.getLogger(__name__)

LAST_WORDS_S = 3.0
"""How long texts may be finished after the signal to stop; then their readers are told, and the engine stops."""
GRACE_S = 5
BACKLOG = 2048

# Apache reaches us from another container; no address of the internet is among these.
_PROXIES = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fd00::/8"


class Server(uvicorn.Server):
    """uvicorn's server; told to stop, it ends the streams that would otherwise never end."""

    def __init__(self, app: Starlette) -> None:
        self.service: Service = app.state.service
        # Addresses may hold prompts: not even a handler that somebody else attaches gets them.
        logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL + 1)
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                access_log=False,
                log_config=None,
                server_header=False,
                ws="none",
                lifespan="on",
                proxy_headers=True,
                forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", _PROXIES),
                # Longer than a proxy keeps its connections, so that it never writes into one that is closing.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE_S,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.feed.close()
        last_words = asyncio.get_running_loop().call_later(LAST_WORDS_S, self.service.abort_generations)
        try:
            await super().shutdown(sockets)
        finally:
            last_words.cancel()
            for connection in list(self.server_state.connections):
                connection.transport.abort()  # its reader stalls: what it has not taken it never will
            await asyncio.sleep(0)


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises SettingError where it cannot be had.
    """
    if not 0 <= port <= 65_535:
        raise SettingError(f"Port {port} does not exist. Choose one between 1 and 65535.")
    listener = None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Not socket.create_server, whose sockets have protocol 0: asyncio sets TCP_NODELAY only where IPPROTO_TCP is
        # named, and without it each reply on a kept connection waits 40 ms for the client's delayed acknowledgement.
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


class _Stop:
    """Handles the signals that uvicorn does not: those before it has begun, and the one it raises again at its end.

    The default handlers would make that one a failure.
    """

    def __init__(self) -> None:
        self._came = False
        self._server: Server | None = None

    def __call__(self, *_: object) -> None:
        self._came = True
        if self._server is not None:
            self._server.should_exit = True

    def watch(self, server: Server) -> None:
        """Let this server end as soon as it has started, should a signal have come, or come before it handles them."""
        self._server = server
        server.should_exit = self._came


@contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    beside: AbstractContextManager[object] = nullcontext(),  # noqa: B008  (it does nothing, and may be entered again)
) -> None:
    """Serve until SIGTERM or SIGINT, then return within ten seconds. `beside` is entered once the port is open.

    Raises SettingError where the port cannot be opened.
    """
    with open_port(host, port) as listener, _stop_on_signals() as stopping:
        logs.configure(settings.log_format, sys.stderr)
        address = _address(host, listener.getsockname()[1])
        log.info("gptbox %s: %s", __version__, address)
        with beside:
            server = Server(create_app(settings))
            stopping.watch(server)
            server.run(sockets=[listener])
        log.info("Stopped.")


def _address(host: str, port: int) -> str:
    """What to say of it: a browser's address, but not of a host that stands for all of a machine's or a container's."""
    if host in ("0.0.0.0", "::"):
        return f"listening on port {port}"
    return f"the page is at http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl-C ends it)"
