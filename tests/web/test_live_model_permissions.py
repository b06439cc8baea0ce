"""Runs that web has no permission to read are skipped, and all others served."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gptbox.models.runs import RunFolder

Serve = Callable[[Path], tuple[httpx.Client, Callable[[], str]]]

# Like Compose's `cap_drop: [ALL]`: without capabilities, file permissions apply to root, too.
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """serve(models): start `gptbox serve` without capabilities; return a client and a function that reads the log."""
    log = tmp_path / "log"

    def start(models: Path) -> tuple[httpx.Client, Callable[[], str]]:
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*WITHOUT_CAPABILITIES, sys.executable, "-m", "gptbox", "serve", "--port", "0"],
                env=os.environ | {"GPTBOX_MODELS": str(models), "THREADS": "1"}, stdout=file, stderr=file,
            )  # fmt: skip
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        deadline = time.monotonic() + 60
        while not (url := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        transport = httpx.HTTPTransport(retries=10)
        client = stack.enter_context(httpx.Client(base_url=url[0], transport=transport, timeout=30))
        return client, log.read_text

    with ExitStack() as stack:
        yield start


@pytest.fixture
def forbid() -> Iterator[Callable[[Path], None]]:
    """forbid(path): remove all permissions. They are restored after the test, so that pytest can clean up."""
    forbidden: list[tuple[Path, int]] = []

    def forbid(path: Path) -> None:
        forbidden.append((path, path.stat().st_mode))
        path.chmod(0)

    yield forbid
    for path, mode in reversed(forbidden):
        path.chmod(mode)


def test_unreadable_runs_are_skipped_and_logged_once(
    tiny_run: Path, publish: Callable[..., Path], serve: Serve, forbid: Callable[[Path], None]
) -> None:
    for part in ("", "status.json", "metrics.jsonl", "samples.jsonl", "snapshots", "snapshots/step-000100/config.json"):
        name = f"no-{Path(part).stem or 'folder'}"
        publish(100, run=name)
        for rows in ("metrics", "samples"):
            RunFolder(tiny_run, name).append(rows, {"step": 1, "val_loss": 2.0})  # type: ignore[arg-type]
        forbid(tiny_run / name / part)
    client, log = serve(tiny_run)
    for _ in range(3):
        status = client.get("/api/status")
        assert status.status_code == 200
        assert client.get("/v1/models").status_code == client.get("/api/history").status_code == 200
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code in (200, 503)
        time.sleep(1)
    listed = {model["id"] for model in client.get("/v1/models").json()["data"] if "@" not in model["id"]}
    assert listed == {"tiny", "no-metrics", "no-samples", "no-config"}
    # The newest that can be loaded: no-config is newer, but without its config.json it counts as damaged.
    assert status.json()["server"]["model"] == "no-samples@step-000100"
    assert client.get("/api/history?run=no-metrics").json() == {
        "run": "no-metrics", "has_index": False, "metrics": [], "samples": [{"step": 1, "val_loss": 2.0}],
    }  # fmt: skip
    assert client.get("/api/history?run=no-folder").status_code == 404
    lines = [line for line in log().splitlines() if "has no permission to read" in line]
    for path in ("no-folder", "no-status/status.json", "no-metrics/metrics.jsonl", "no-samples/samples.jsonl",
                 "no-snapshots/snapshots"):  # fmt: skip
        assert sum(f"{tiny_run / path} is skipped" in line for line in lines) == 1, path
    assert len(lines) == 5
    assert "Traceback" not in log()


@pytest.mark.parametrize("part", [".", "tiny", "tiny/snapshots"])
def test_if_nothing_is_readable_the_error_says_so(
    tiny_run: Path, serve: Serve, forbid: Callable[[Path], None], part: str
) -> None:
    forbid(tiny_run / part)
    client, log = serve(tiny_run)
    assert client.get("/api/status").status_code == client.get("/v1/models").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.text.startswith("There is no model to serve: the server has no permission to read all of ")
    assert "Traceback" not in log()
