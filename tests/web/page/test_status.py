"""/api/status, /healthz and /readyz."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from gptbox import __version__
from gptbox.models.runs import RunFolder, Status


def test_health_and_readiness(
    models: Path, publish: Callable[..., Path], client_for: Callable[..., TestClient]
) -> None:
    empty = client_for(models)
    for path in ("/healthz", "/health"):
        assert empty.get(path).status_code == 200
        assert empty.get(path).text == "ok\n"
    response = empty.get("/readyz")
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert response.text.startswith("There is no model yet")
    publish(1)
    assert client_for(models).get("/readyz").status_code == 200


def test_without_a_run_training_and_model_are_null(models: Path, client_for: Callable[..., TestClient]) -> None:
    status = client_for(models).get("/api/status").json()
    assert status["training"] is None
    assert status["server"]["ready"] is False
    assert status["server"]["model"] is None
    assert status["server"]["token_unit"] is None


def test_a_missing_models_folder_counts_as_empty(tmp_path: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tmp_path / "nowhere")
    assert client.get("/api/status").json()["training"] is None
    assert client.get("/v1/models").json()["data"] == []


def test_training_is_the_status_of_the_newest_run(tiny_run: Path, client_for: Callable[..., TestClient]) -> None:
    client = client_for(tiny_run, max_tokens=99, api_key="k")
    expected = Status(run="tiny", phase="training", step=5, steps=90, val_loss=2.5, eta_s=12.0, message="Going well.")
    written = RunFolder(tiny_run, "tiny").write_status(expected)
    status = client.get("/api/status").json()
    assert set(status) == {"training", "server"}
    assert status["training"] == vars(written)
    server = status["server"]
    assert 0 <= server.pop("uptime_s") < 60
    assert re.fullmatch(rf"gptbox-{re.escape(__version__)}-[0-9a-f]{{8}}", server.pop("system_fingerprint"))
    assert server == {
        "ready": True, "model": "tiny@step-000250", "token_unit": "character", "active": 0, "queued": 0,
        "tokens_per_s": 0.0, "problem": None, "version": __version__, "auth": True, "max_tokens": 99,
        "downloads": True,
    }  # fmt: skip


def test_the_health_of_the_text_is_in_the_status(tiny_run: Path, client: TestClient) -> None:
    assert client.get("/api/status").json()["training"]["dataset_health"] is None
    lines = ["Size: 7 characters", "Odd characters: \ufffd (1 x, first in a.txt, line 2)"]
    RunFolder(tiny_run, "tiny").write_status(Status(run="tiny", phase="preparing", dataset_health=lines))
    assert client.get("/api/status").json()["training"]["dataset_health"] == lines


def test_the_page_learns_what_a_token_is(byte_client: TestClient) -> None:
    assert byte_client.get("/api/status").json()["server"]["token_unit"] == "byte"


def test_a_run_whose_trainer_was_killed_is_stopped(tiny_run: Path, client: TestClient) -> None:
    run = RunFolder(tiny_run, "tiny")
    with run.lock():
        written = run.write_status(Status(run="tiny", phase="training", step=1234, eta_s=50.0, message="Going well."))
        assert client.get("/api/status").json()["training"] == vars(written)
    training = client.get("/api/status").json()["training"]
    assert (training["phase"], training["step"], training["eta_s"]) == ("stopped", 1234, None)
    assert training["message"].startswith("Training ended unexpectedly at step 1,234: its process was killed")
    with run.lock():  # at its next start the trainer takes the lock, then writes the status
        training = client.get("/api/status").json()["training"]
        assert training["phase"] == "training"


def test_the_newest_run_and_the_served_model_may_differ(tiny_run: Path, client: TestClient) -> None:
    RunFolder(tiny_run, "new").write_status(Status(run="new", phase="failed", message="Too short."))
    status = client.get("/api/status").json()
    assert status["training"]["run"] == "new"
    assert status["server"]["model"] == "tiny@step-000250"


def test_the_status_of_any_run_can_be_read(tiny_run: Path, client: TestClient) -> None:
    RunFolder(tiny_run, "tiny").write_status(Status(run="tiny", phase="finished", step=7))
    RunFolder(tiny_run, "new").write_status(Status(run="new", phase="preparing"))
    training = client.get("/api/status?run=tiny").json()["training"]
    assert (training["run"], training["phase"], training["step"]) == ("tiny", "finished", 7)
    assert client.get("/api/status").json()["training"]["run"] == "new"


@pytest.mark.parametrize("name", ["nobody", "", "../tiny", "%00", "x" * 1000])
def test_the_status_of_an_unknown_run_is_404_with_a_json_error(client: TestClient, name: str) -> None:
    response = client.get(f"/api/status?run={name}")
    assert response.status_code == 404
    assert "There is no run" in response.json()["error"]["message"]


def test_nan_is_sent_as_null(tiny_run: Path, client: TestClient) -> None:
    (tiny_run / "tiny" / "status.json").write_text('{"run": "tiny", "phase": "failed", "train_loss": NaN}')
    assert client.get("/api/status").json()["training"]["train_loss"] is None


def test_a_damaged_status_file_counts_as_no_status(tiny_run: Path, client: TestClient) -> None:
    (tiny_run / "tiny" / "status.json").write_text("{")
    assert client.get("/api/status").json()["training"] is None


def test_the_engine_load_is_reported(
    server: Any, stream: Callable[..., Iterator[Any]], wait_until: Callable[..., None]
) -> None:
    server.service.scheduler.max_active = 2
    events = stream(server.url, {"n": 5, "max_tokens": 10_000_000})
    next(events)
    wait_until(lambda: server.busy() == 5)
    status = httpx.get(f"{server.url}/api/status").json()["server"]
    assert (status["active"], status["queued"]) == (2, 3)
    wait_until(lambda: httpx.get(f"{server.url}/api/status").json()["server"]["tokens_per_s"] > 0)
