"""`gptbox up`: the page and training in one command, also on a terminal."""

import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pyte
import pytest
from tests.cli.process import gptbox

from gptbox import __version__
from gptbox.models.runs import RunFolder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def box(home: Path, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`gptbox up` with an empty models folder: its address and process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gptbox", "up", "bottles", "--preset", "lesson", "--minutes", "5", "--port", str(port)],
        cwd=home, env=os.environ | {"THREADS": "1", "GPTBOX_MODELS": str(tmp_path / "models")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}", process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until_200(url: str, seconds: float) -> httpx.Response:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if (response := httpx.get(url, timeout=5)).status_code == 200:
                return response
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} did not answer 200 within {seconds} s")


def test_up_serves_the_page_at_once_then_the_model_and_stops_both_on_ctrl_c(
    box: tuple[str, "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    address, process = box
    assert "<html" in until_200(f"{address}/", 30).text
    assert httpx.get(f"{address}/readyz").status_code in (200, 503)
    until_200(f"{address}/readyz", 90)
    body = {"model": "bottles", "prompt": "7 green", "max_tokens": 20}
    reply = httpx.post(f"{address}/v1/completions", json=body, timeout=30).json()
    assert len(reply["choices"][0]["text"]) == 20
    os.killpg(process.pid, signal.SIGINT)  # to both processes, as a terminal does
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert output.count("the page is at") == 1
    assert f"the page is at {address}/" in output
    assert "\x1b" not in output, "plain lines, because it is no terminal"
    status = RunFolder(tmp_path / "models", "bottles").status()
    assert status is not None
    assert status.phase == "stopped"


def test_up_reports_a_used_port_before_it_trains(home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = gptbox(home, "up", "bottles", "--port", port, GPTBOX_MODELS=str(tmp_path / "models"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"Port {port} of 127.0.0.1 cannot be opened" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "models").exists()


COLUMNS = 60


class Terminal:
    """`gptbox up` on a terminal of 60 columns."""

    def __init__(self, home: Path, models: Path, port: int) -> None:
        self.raw = b""
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, COLUMNS))
        arguments = ("up", "bottles", "--preset", "lesson", "--minutes", "5", "--port", str(port))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gptbox", *arguments],
            cwd=home, env=os.environ | {"THREADS": "1", "GPTBOX_MODELS": str(models), "TERM": "xterm-256color"},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # raised when the terminal is closed
            while data := os.read(self.master, 65536):
                self.raw += data

    def screen(self) -> pyte.Screen:
        """The screen after all output, long enough that no row scrolls away."""
        screen = pyte.Screen(COLUMNS, 1000)
        pyte.ByteStream(screen).feed(self.raw)
        return screen

    def rows(self) -> list[str]:
        """The non-empty rows of the screen."""
        return [row.rstrip() for row in self.screen().display if row.strip()]

    def end(self) -> None:
        """Press Ctrl-C."""
        os.write(self.master, b"\x03")
        self.process.wait(timeout=30)
        self._reader.join(timeout=5)
        os.close(self.master)


def test_up_rewrites_one_line_on_a_terminal_with_visits_above_it(home: Path, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    terminal = Terminal(home, tmp_path / "models", port)
    try:
        until_200(f"{address}/readyz", 90)
        visits = 0
        for _ in range(20):
            until_200(f"{address}/", 5)
            httpx.get(f"{address}/api/status")
            visits += 1
            time.sleep(0.1)
        end = time.monotonic() + 15  # redrawn four times a second on an idle machine
        while not re.search(r"step \d+/", (rows := terminal.rows())[-1]):
            assert time.monotonic() < end, rows
            time.sleep(0.1)
        assert sum(bool(re.search(r"step \d+/", row)) for row in rows) == 1, "there is one progress line"
    finally:
        terminal.end()
    assert terminal.process.returncode == 0
    # The terminal itself echoes ^C after the last line.
    screen, rows = terminal.screen(), terminal.rows()
    assert rows[0] == f"gptbox {__version__}: the page is at {address}/ (Ctrl-C ends i"[:COLUMNS]
    assert sum(bool(re.fullmatch(r"127\.0\.0\.1 GET / 200 · \d+ ms · [0-9a-f]{24}", row)) for row in rows) == visits
    assert sum("/api/status" in row for row in rows) == 0
    assert terminal.raw.count(b"\r\x1b[2K") > 2 * visits, "it was rewritten"
    assert pyte.modes.DECTCEM in screen.mode, "the cursor is visible again"
    assert any(row.startswith("Stopped at step") for row in rows)
