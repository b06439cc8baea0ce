"""A models folder with small random models, and the real application serving it."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from gptbox.models.config import ModelConfig
from gptbox.models.runs import RunFolder, Status
from gptbox.settings import Settings
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.web import create_app
from gptbox.web.live_model import LiveModel
from gptbox.web.server import Server, open_port
from gptbox.web.service import Service

CONFIG = ModelConfig(
    architecture="qwen3", vocab_size=65, context_length=32, n_layer=2, n_head=2, n_embd=32, activation="silu"
)

Publish = Callable[..., Path]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty models folder."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def publish(models: Path, write_model: Callable[..., Path]) -> Publish:
    """publish(step, run="tiny", seed=step, best=True): publish a snapshot as training does, and return its folder."""

    def publish(step: int, run: str = "tiny", seed: int | None = None, best: bool = True) -> Path:
        folder = RunFolder(models, run)
        path = write_model(folder.snapshot(step), CONFIG, seed=step if seed is None else seed, step=step)
        folder.update_link("latest", path)
        if best:
            folder.update_link("best", path)
        folder.write_status(Status(run=run, phase="training", step=step, steps=1000, latest_snapshot=path.name))
        return path

    return publish


@pytest.fixture
def tiny_run(models: Path, publish: Publish) -> Path:
    """A models folder with the run `tiny`, whose only and best snapshot is step-000250."""
    publish(250)
    return models


@pytest.fixture
def byte_run(models: Path, write_model: Callable[..., Path]) -> Path:
    """A models folder with the run `bytes`, whose tokens are bytes."""
    run = RunFolder(models, "bytes")
    path = write_model(run.snapshot(1), replace(CONFIG, vocab_size=256), tokenizer=ByteTokenizer())
    run.update_link("best", path)
    return models


@pytest.fixture
def live(models: Path) -> LiveModel:
    """A live model over `models` that refreshes only when a test calls `refresh`."""
    return LiveModel(models)


@pytest.fixture
def client_for() -> Iterator[Callable[..., TestClient]]:
    """client_for(models, **settings): a test client of the application, without a network."""
    with ExitStack() as stack:

        def make(models: Path, **settings: Any) -> TestClient:
            return stack.enter_context(TestClient(create_app(Settings(models=models, **settings))))

        yield make


@pytest.fixture
def byte_client(byte_run: Path, client_for: Callable[..., TestClient]) -> TestClient:
    """A test client of the application serving `byte_run`."""
    return client_for(byte_run)


@pytest.fixture
def client(tiny_run: Path, client_for: Callable[..., TestClient]) -> TestClient:
    """A test client of the application serving `tiny_run`."""
    return client_for(tiny_run)


class RunningServer:
    """The application under uvicorn, on a free port of the loopback."""

    def __init__(self, settings: Settings, send_buffer: int | None) -> None:
        app = create_app(settings)
        self.service: Service = app.state.service
        self._listener = open_port("127.0.0.1", 0)
        if send_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = Server(app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._listener]})
        self.thread.start()
        wait_until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=15)
        self._listener.close()
        assert not self.thread.is_alive(), "the server did not stop"

    def busy(self) -> int:
        """Texts being generated or queued."""
        return self.service.scheduler.active + self.service.scheduler.queued


def wait_until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def server_for() -> Iterator[Callable[..., RunningServer]]:
    """server_for(models, send_buffer=None, **settings): a real server.

    `send_buffer`: SO_SNDBUF, the bytes that the kernel buffers for a client that does not read.
    """
    with ExitStack() as stack:

        def make(models: Path, send_buffer: int | None = None, **settings: Any) -> RunningServer:
            server = RunningServer(Settings(models=models, **settings), send_buffer)
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture
def server(tiny_run: Path, server_for: Callable[..., RunningServer]) -> RunningServer:
    """A real server for `tiny_run` that allows long texts."""
    return server_for(tiny_run, max_tokens=10_000_000)


@pytest.fixture
def stream() -> Iterator[Callable[..., Iterator[Any]]]:
    """stream(url, body): iterate over the events of a streamed completion; the last is the string `[DONE]`."""
    with ExitStack() as stack:

        def start(url: str, body: dict[str, Any]) -> Iterator[Any]:
            client = stack.enter_context(httpx.Client(timeout=30))
            context = client.stream("POST", f"{url}/v1/completions", json={**body, "stream": True})
            response = stack.enter_context(context)
            assert response.status_code == 200, response.read()
            return _events(response)

        yield start


def _events(response: httpx.Response) -> Iterator[Any]:
    for line in response.iter_lines():
        if line:
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)
