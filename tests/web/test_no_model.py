"""Error messages for when there is no model to serve."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.web.helpers import damage, resolve, served

from gptbox.errors import ModelNotFoundError, ModelsDamagedError, NoModelYetError
from gptbox.models.runs import RunFolder, Status
from gptbox.web.live_model import LiveModel

Publish = Callable[..., Path]


@pytest.mark.parametrize(
    ("phase", "advice"),
    [
        ("finished", "Restore the run's folder from a backup, or train again after: gptbox delete tiny."),
        ("training", "Training goes on, and its next snapshot will be served."),
    ],
)
def test_if_all_snapshots_are_damaged_the_error_says_so(
    live: LiveModel, publish: Publish, models: Path, phase: Any, advice: str
) -> None:
    for step in (100, 200):
        damage(publish(step))
    RunFolder(models, "tiny").write_status(Status(run="tiny", phase=phase))
    assert served(live) is None
    for name in (None, "tiny", "tiny@latest", "tiny@step-000100"):
        with pytest.raises(ModelsDamagedError) as error:
            resolve(live, name)
        assert str(error.value).startswith("All 2 snapshots of the run 'tiny' cannot be loaded: ")
        assert advice in str(error.value)
        assert os.sep not in str(error.value)
    with pytest.raises(ModelNotFoundError) as unknown:
        resolve(live, "nobody")
    assert not isinstance(unknown.value, NoModelYetError)
    publish(300)
    assert served(live) == "tiny@step-000300"
    assert live.models_problem is None


def test_clients_are_told_that_the_snapshots_are_damaged(
    models: Path, publish: Publish, client_for: Callable[..., TestClient]
) -> None:
    damage(publish(100))
    client = client_for(models)
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.text.startswith("The only snapshot of the run 'tiny' cannot be loaded")
    for body in ({}, {"model": "tiny"}):
        response = client.post("/v1/completions", json=body)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "models_damaged"
        assert response.json()["error"]["message"] == ready.text.strip()
    assert client.get("/api/status").json()["server"]["problem"] == ready.text.strip()


def test_the_error_for_a_run_without_snapshots_has_its_progress(
    live: LiveModel, publish: Publish, models: Path
) -> None:
    publish(100)
    live.refresh()
    run = RunFolder(models, "other")
    run.write_status(Status(run="other", phase="training", step=7, steps=90))
    with pytest.raises(NoModelYetError, match="'other' is being trained and is at step 7 of 90"):
        resolve(live, "other@latest")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status(run="tiny", phase="preparing"), "the text of 'tiny' is being prepared"),
        (Status(run="tiny", phase="training", step=3), "'tiny' is being trained and is at step 3. "),
        (
            Status(run="tiny", phase="failed", message="The disk is full."),
            "training of 'tiny' failed: The disk is full.",
        ),
        (Status(run="tiny", phase="stopped"), "ended before"),
        (
            Status(run="tiny", phase="training", step=3, message="dead"),
            "ended before it published one: Training ended unexpectedly at step 3: ",
        ),
    ],
)
def test_without_any_model_the_error_has_the_reason(live: LiveModel, models: Path, status: Status, words: str) -> None:
    run = RunFolder(models, "tiny")
    if status.message == "dead":
        with run.lock():  # released afterwards, as the kernel does when a process is killed
            run.write_status(status)
    else:
        run.write_status(status)
    for name in (None, "tiny", "whatever"):
        with pytest.raises(NoModelYetError, match="There is no model yet: ") as error:
            resolve(live, name)
        assert words in str(error.value)
