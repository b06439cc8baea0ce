"""The real application over real run folders, and a real Chromium in front of it."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptbox.models.config import ModelConfig
from gptbox.models.runs import RunFolder, Status
from gptbox.settings import Settings
from gptbox.tokenizers import Tokenizer
from gptbox.web.app import create_app
from gptbox.web.server import Server, open_port

ROOT = Path(__file__).parent.parent.parent

CONFIG = ModelConfig(
    architecture="qwen3", vocab_size=65, context_length=32, n_layer=2, n_head=2, n_embd=32, activation="silu"
)

CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    # Names of this machine that the browser treats like any site: localhost is exempt from many of its rules.
    "--host-resolver-rules=MAP gptbox.test 127.0.0.1, MAP evil.test 127.0.0.1",
]  # fmt: skip

expect.set_options(timeout=15_000)


def proxy_policy() -> str:
    """The Content-Security-Policy that the proxy sets on the page."""
    configuration = (ROOT / "apache" / "httpd.conf").read_text(encoding="utf-8")
    found = re.search(r'Content-Security-Policy "(default-src \'self\'[^"]*)"', configuration)
    assert found, "apache/httpd.conf sets no policy for the page"
    return found[1]


class Proxy:
    """Wraps the application as the proxy does, with a path prefix and its security policy, and edits replies."""

    def __init__(self, app: Starlette, path: str, edits: list[tuple[bytes, bytes]]) -> None:
        self.app: ASGIApp = app
        self.path = path
        self.edits = edits
        self.policy = proxy_policy()
        self.state = app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_edited(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = self.policy
            for before, after in self.edits if "body" in message else ():
                message["body"] = message["body"].replace(before, after)
            await send(message)

        if scope["type"] == "http":
            assert scope["path"].startswith(f"{self.path}/"), (
                f"the page asked for {scope['path']}, outside {self.path}/"
            )
            scope = {**scope, "path": scope["path"].removeprefix(self.path), "raw_path": b""}
        await self.app(scope, receive, send_edited)


class Box:
    """A models folder with one run, `shakespeare`, and a server over it."""

    def __init__(self, models: Path, write_model: Callable[..., Path], path: str, settings: dict[str, Any]) -> None:
        self.settings = Settings(models=models, **settings)
        self.run = RunFolder(models, "shakespeare")
        self.path = path
        self.port = 0
        self.edits: list[tuple[bytes, bytes]] = []
        """Replacements in replies, of the same length: shorter timeouts, for example."""
        self._write_model = write_model
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        listener = open_port("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        app = create_app(self.settings)
        self.service = app.state.service
        self._server = Server(Proxy(app, self.path, self.edits))  # type: ignore[arg-type]
        self._listener = listener
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        self.wait_until(lambda: self._server.started)

    def stop(self) -> None:
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=15)
            assert not self._thread.is_alive(), "the server did not stop"
            self._listener.close()
            self._thread = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}/"

    def status(self, phase: str, **values: Any) -> None:
        """Write the run's status, as the trainer does."""
        previous = self.run.status() or Status(run=self.run.name, phase="preparing")
        self.run.write_status(Status(**{**vars(previous), "message": "", **values, "phase": phase}))

    def publish(self, step: int = 250, seed: int = 0, tokenizer: Tokenizer | None = None) -> None:
        """Publish a snapshot as the latest and the best."""
        config = CONFIG if tokenizer is None else replace(CONFIG, vocab_size=tokenizer.vocab_size)
        path = self._write_model(self.run.snapshot(step), config, seed=seed, step=step, tokenizer=tokenizer)
        self.run.update_link("latest", path)
        self.run.update_link("best", path)
        self.status("training", step=step, steps=1000, latest_snapshot=path.name, best_snapshot=path.name)

    def learn(self, last_step: int = 1000, field: str = "val_loss_estimate") -> None:
        """Append metrics and samples up to a step, as training does. Old runs have `val_loss`, not an estimate."""
        for step in range(0, last_step + 1, 10):
            loss = 1.5 + 2.6 * 0.99**step
            losses = {"val_loss": None} | ({field: loss + 0.05} if step % 250 == 0 else {})
            row = {"step": step, "elapsed_s": step / 10, "train_loss": loss, "lr": 0.001, "tokens_per_s": 50_000}
            self.run.append("metrics", row | losses)
            if step % 250 == 0:
                sample = {"step": step, "prompt": "\n", "seed": 1, "text": f"\nText of step {step}."}
                self.run.append("samples", sample | losses)

    def busy(self) -> int:
        """Number of texts being written or queued."""
        return int(self.service.scheduler.active + self.service.scheduler.queued)

    @staticmethod
    def wait_until(condition: Callable[[], Any], timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "timed out"
            time.sleep(0.01)


@pytest.fixture
def make_box(tmp_path: Path, write_model: Callable[..., Path]) -> Iterator[Callable[..., Box]]:
    """make_box(path="", model=False, **settings): a server over an empty models folder, or one with a model."""
    with ExitStack() as stack:

        def make(path: str = "", model: bool = False, **settings: Any) -> Box:
            box = Box(tmp_path / "models", write_model, path, {"max_tokens": 100_000, **settings})
            stack.callback(box.stop)
            if model:
                box.publish()
            box.start()
            return box

        yield make


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    """A server without a model or a trainer."""
    return make_box()


@pytest.fixture
def ready(make_box: Callable[..., Box]) -> Box:
    """A server with a model that is still being trained."""
    return make_box(model=True)


# Per module, not per session: while Playwright runs, no other test can run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium") or "/usr/bin/chromium"
    if not Path(executable).exists():
        reason = "Chromium is not installed (Debian: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


class PageErrors:
    """Errors of a page: console messages, exceptions, failed requests and error responses."""

    def __init__(self, page: Page, allowed: str) -> None:
        self.found: list[str] = []
        self.network_changed = False
        self._allowed = allowed
        page.on("console", lambda message: self._record(f"console: {message.text}"))
        page.on("pageerror", lambda error: self._record(f"error: {error}"))
        page.on("requestfailed", lambda request: self._record(f"failed: {request.url} {request.failure}"))
        page.on(
            "response", lambda response: response.status < 400 or self._record(f"{response.status}: {response.url}")
        )

    def _record(self, error: str) -> None:
        # Stopping a text and leaving the page abort requests. Chromium also reports this for streams read to the end.
        if error.startswith("failed: ") and error.endswith("net::ERR_ABORTED"):
            return
        # When a container starts or stops on this machine, Chromium drops what it is loading, even from loopback.
        if error.endswith("net::ERR_NETWORK_CHANGED"):
            self.network_changed = True
            return
        if not (self._allowed and re.search(self._allowed, error)):
            self.found.append(error)


def wait_for_script(page: Page, condition: str, argument: Any = None) -> None:
    """Wait until a JavaScript function returns true. (The page's security policy forbids Playwright's own wait.)"""
    deadline = time.monotonic() + 15
    while not page.evaluate(condition, argument):
        assert time.monotonic() < deadline, f"timed out waiting for {condition}"
        page.wait_for_timeout(20)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    return wait_for_script


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """open_page(url, allowed="", **context): a page on which any error that `allowed` does not match fails the test.

    `beside`: open it as another tab in that page's browser. `script` runs before the page's own scripts.
    """
    with ExitStack() as stack:
        recorders: list[PageErrors] = []

        def open_(url: str, allowed: str = "", beside: Page | None = None, script: str = "", **options: Any) -> Page:
            if beside is None:
                context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
                stack.callback(context.close)
            else:
                context = beside.context
            if script:
                context.add_init_script(script)
            page = context.new_page()
            recorders.append(errors := PageErrors(page, allowed))
            page.goto(url)
            while errors.network_changed:
                errors.network_changed = False
                page.reload()
            return page

        yield open_
        found = [error for errors in recorders for error in errors.found]
        assert not found, f"errors on the page: {found}"
