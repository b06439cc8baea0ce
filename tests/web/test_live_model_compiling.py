"""A server whose engine must be compiled first: until then it is not ready, and its errors say why."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptbox.engine import native, object_file
from gptbox.errors import EngineError
from gptbox.web import live_model
from gptbox.web.live_model import COMPILING

MIB = 2**20


class Compilation:
    """A fake compilation that runs until `ended` is set and returns the code compiled before."""

    def __init__(self) -> None:
        self.code = object_file.find()
        self.fails = 0
        self.ended = threading.Event()
        self.wanted: Callable[[], bool] = lambda: True

    def __call__(self, wanted: Callable[[], bool]) -> bytes:
        self.wanted = wanted
        while not self.ended.wait(0.01):
            if not wanted():
                raise EngineError("The engine's compilation was stopped.")
        if self.fails:
            self.fails -= 1
            raise EngineError("The engine could not be compiled for this processor.")
        assert self.code is not None
        return self.code


@pytest.fixture
def compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compilation:
    compilation = Compilation()
    monkeypatch.setenv("GPTBOX_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(object_file, "compile_in_subprocess", compilation)
    monkeypatch.setattr(native, "_loaded", {})
    return compilation


def test_until_the_engine_is_compiled_requests_get_503_with_the_reason(
    tiny_run: Path, server_for: Callable[..., Any], compilation: Compilation, wait_until: Callable[..., None]
) -> None:
    server = server_for(tiny_run)
    ready = httpx.get(f"{server.url}/readyz")
    assert ready.status_code == 503
    assert ready.text == f"{COMPILING} Try again in a moment.\n"
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    status = httpx.get(f"{server.url}/api/status").json()["server"]
    assert (status["ready"], status["model"], status["problem"]) == (False, None, COMPILING)
    assert status["system_fingerprint"] is None
    for model in (None, "tiny", "tiny@step-000250"):
        response = httpx.post(f"{server.url}/v1/completions", json={"model": model})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert response.json()["error"]["message"] == f"{COMPILING} Try again in a moment."
    assert httpx.get(f"{server.url}/cgi-bin/test").status_code == 503
    with httpx.stream("GET", f"{server.url}/api/events", timeout=20) as events:
        states = (json.loads(line[6:])["server"] for line in events.iter_lines() if line.startswith("data: "))
        assert next(states)["problem"] == COMPILING
        compilation.ended.set()
        state = next(states)
        while not state["ready"]:
            state = next(states)
    assert (state["model"], state["problem"]) == ("tiny@step-000250", None)
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    reply = httpx.post(f"{server.url}/v1/completions", json={"model": "tiny"})
    assert reply.status_code == 200
    assert reply.json()["system_fingerprint"] == state["system_fingerprint"]


def test_a_failed_compilation_is_reported_and_retried(
    tiny_run: Path, server_for: Callable[..., Any], compilation: Compilation, wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(live_model, "COMPILE_RETRY_S", 0.5)
    compilation.fails = 1
    compilation.ended.set()
    server = server_for(tiny_run)
    wait_until(lambda: "could not be compiled" in httpx.get(f"{server.url}/readyz").text)
    wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
    assert caplog.text.count("could not be compiled") == 1


def test_shutdown_does_not_wait_for_the_compilation(
    tiny_run: Path, server_for: Callable[..., Any], compilation: Compilation, caplog: pytest.LogCaptureFixture
) -> None:
    server = server_for(tiny_run)
    started_at = time.monotonic()
    server.stop()
    assert time.monotonic() - started_at < 2
    assert not compilation.wanted()
    assert "was stopped" not in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_after_a_real_compilation_the_first_requests_are_fast_and_its_memory_is_freed(
    tiny_run: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"GPTBOX_KERNELS": str(tmp_path / "kernels"), "GPTBOX_MODELS": str(tiny_run)}
    command = [sys.executable, "-m", "gptbox", "serve", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"

    def start() -> tuple[subprocess.Popen[str], float]:
        started_at = time.monotonic()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        while time.monotonic() < started_at + 200:
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    return process, time.monotonic() - started_at
            except httpx.TransportError:
                assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        raise AssertionError("the server was not ready in time")

    def took(**body: Any) -> float:
        started_at = time.monotonic()
        assert httpx.post(f"{url}/v1/completions", json=body).status_code == 200
        return time.monotonic() - started_at

    def end(process: subprocess.Popen[str]) -> str:
        process.send_signal(signal.SIGTERM)
        return process.communicate(timeout=20)[1]

    process, _ = start()
    try:
        assert took(prompt="A", max_tokens=20) < 1
        assert took(prompt="HELLO", max_tokens=1, echo=True, logprobs=2) < 1
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        resident = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        assert resident < 150 * MIB
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert not children
    finally:
        log = end(process)
    assert "compiling the engine for this processor, once: about half a minute" in log
    assert f"kept in {tmp_path / 'kernels'}" in log
    process, seconds = start()
    log = end(process)
    assert seconds < 10
    assert "compil" not in log
