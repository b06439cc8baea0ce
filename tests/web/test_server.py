"""The server process, from its socket to its shutdown."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptbox.errors import SettingError
from gptbox.settings import Settings
from gptbox.web import create_app, serve
from gptbox.web.server import Server, open_port

CODE = """
import sys
from pathlib import Path
from gptbox.settings import Settings
from gptbox.web import serve
serve(Settings(models=Path(sys.argv[1]), max_tokens=1_000_000), "127.0.0.1", int(sys.argv[2]))
"""


class Process:
    """`serve` in a subprocess."""

    def __init__(self, models: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(models), str(port)], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                assert httpx.get(f"{self.url}/healthz").status_code == 200
                return
            except httpx.TransportError:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float, str]:
        """Send a signal; return the exit status, the seconds until exit, and the log."""
        start = time.monotonic()
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=20)
        return self.process.returncode, time.monotonic() - start, log


@pytest.fixture
def process(tiny_run: Path) -> Iterator[Process]:
    process = Process(tiny_run)
    yield process
    if process.process.poll() is None:
        process.process.kill()
        process.process.communicate()


def reading(response: httpx.Response, into: list[str]) -> threading.Thread:
    def read() -> None:
        into.extend(response.iter_lines())

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_sigterm_ends_idle_connections_and_event_streams_at_once(process: Process) -> None:
    with httpx.Client() as client, client.stream("GET", f"{process.url}/api/events") as events:
        client.get(f"{process.url}/healthz")  # leaves an idle connection
        lines: list[str] = []
        thread = reading(events, lines)
        time.sleep(0.3)
        status, seconds, log = process.end()
        thread.join()
    assert status == 0
    assert seconds < 2.5
    assert lines[0] == "event: status"
    assert "Traceback" not in log
    assert "/healthz" not in log


def test_sigterm_ends_a_long_stream_with_an_error_and_exits_0_in_time(process: Process) -> None:
    body = {"max_tokens": 1_000_000, "stream": True, "prompt": "secret-prompt"}
    with httpx.stream("POST", f"{process.url}/v1/completions", json=body, timeout=20) as response:
        lines: list[str] = []
        thread = reading(response, lines)
        time.sleep(0.3)
        status, seconds, log = process.end()
        thread.join()
    assert status == 0
    assert seconds < 10
    assert '"message":"The server is stopping. Try again in a moment."' in [line for line in lines if line][-1]
    assert "Traceback" not in log
    assert "secret-prompt" not in log


def test_a_short_text_is_finished_after_sigterm(process: Process) -> None:
    responses: list[Any] = []

    def ask() -> None:
        responses.append(httpx.post(f"{process.url}/v1/completions", json={"max_tokens": 600}, timeout=20))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.15)
    status, _, _ = process.end()
    thread.join()
    assert status == 0
    assert responses[0].status_code == 200
    assert len(responses[0].json()["choices"][0]["text"]) == 600


def test_a_signal_during_startup_is_not_lost(tiny_run: Path) -> None:
    """A signal that comes before uvicorn installs its handlers must end the server, or `docker stop` has to kill it."""
    early = """
import os, signal
import gptbox.web.server as module
create = module.create_app
def create_signalled(settings):
    os.kill(os.getpid(), signal.SIGTERM)
    return create(settings)
module.create_app = create_signalled
"""
    code = CODE.replace("serve(Settings", f"{early}serve(Settings")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_run), "0"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("Stopped.\n")


def test_control_c_is_a_clean_shutdown(process: Process) -> None:
    status, seconds, log = process.end(signal.SIGINT)
    assert status == 0
    assert seconds < 2.5
    assert "Traceback" not in log
    assert f"the page is at {process.url}/ (Ctrl-C ends it)\n" in log
    assert log.endswith("Stopped.\n")


def test_a_wildcard_address_is_not_printed_as_a_url(tiny_run: Path) -> None:
    """In a container the server listens on all addresses, and only Compose knows the page's URL."""
    code = CODE.replace('"127.0.0.1", int(sys.argv[2])', '"0.0.0.0", 0')
    with subprocess.Popen([sys.executable, "-c", code, str(tiny_run)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        rest = process.stderr.read()
    assert re.fullmatch(r"gptbox \S+: listening on port \d+\n", line)
    assert "://" not in rest


def test_a_port_in_use_is_a_setting_error(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"Port {port} of 127.0.0.1 cannot be opened"):
            serve(Settings(models=models), "127.0.0.1", port)
    with pytest.raises(SettingError, match="Port 99999 does not exist"):
        serve(Settings(models=models), "127.0.0.1", 99_999)


def nodelay(connection: Any) -> bool:
    """Whether the server's end of a connection, in this process, has TCP_NODELAY."""
    return bool(connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, pytest.param(None, id="the installed one")])
def test_connections_have_tcp_nodelay(
    tiny_run: Path, host: str, factory: Callable[[], asyncio.AbstractEventLoop] | None, wait_until: Callable[..., None]
) -> None:
    server = Server(create_app(Settings(models=tiny_run)))
    if factory is not None:
        server.config.get_loop_factory = lambda: factory  # type: ignore[method-assign]
    with open_port(host, 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            url = f"http://[{host}]" if ":" in host else f"http://{host}"
            with httpx.Client(base_url=f"{url}:{listener.getsockname()[1]}") as client:
                client.get("/healthz")
                (connection,) = server.server_state.connections
                assert nodelay(connection)
        finally:
            server.should_exit = True
            thread.join(timeout=15)


def test_keep_alive_is_longer_than_that_of_apache(tiny_run: Path) -> None:
    configuration = Path(__file__).parents[2].joinpath("apache/httpd.conf").read_text(encoding="utf-8")
    lives = [
        int(seconds) for seconds in re.findall(r"^ProxyPass .* enablereuse=on ttl=(\d+)", configuration, re.MULTILINE)
    ]
    assert lives
    assert max(lives) * 2 < Server(create_app(Settings(models=tiny_run))).config.timeout_keep_alive


@pytest.mark.parametrize("pieces", [1, 40])
def test_an_endless_request_head_is_rejected(server: Any, pieces: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        sent = 0
        with suppress(ConnectionError):
            while sent < 4_000_000:
                connection.sendall(b"X: " + b"a" * (100_000 // pieces))
                sent += 100_000 // pieces
                time.sleep(0.001)
            connection.sendall(b"\r\n\r\n")
        with suppress(ConnectionError):  # the server closes with unread data
            assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert sent < 4_000_000


def test_a_large_body_in_many_chunks_is_not_a_large_head(server: Any) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"max_tokens": 1, "prompt": "'
        for _ in range(60):
            yield b"a" * 1000
        yield b'"}'
        for _ in range(40_000):
            yield b" "

    assert httpx.post(f"{server.url}/v1/completions", content=pieces(), timeout=30).status_code == 200


def test_a_stalled_client_does_not_delay_the_shutdown(
    tiny_run: Path, server_for: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    server = server_for(tiny_run, send_buffer=8192, max_tokens=1_000_000)
    body = b'{"max_tokens": 1000000, "n": 16, "stream": true}'
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    with connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: server.service.scheduler.active == 16)
        time.sleep(1)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 9
