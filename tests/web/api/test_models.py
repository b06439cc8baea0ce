"""/v1/models: every run and snapshot."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gptbox.models import folder as model_folder
from gptbox.models.config import ModelConfig
from gptbox.models.runs import RunFolder, Status
from gptbox.web.api import models as models_endpoint


def test_every_run_and_snapshot_is_listed_and_can_be_used(
    client: TestClient, publish: Callable[..., Path], models: Path
) -> None:
    publish(300, best=False)
    publish(5, run="another")
    RunFolder(models, "unborn").write_status(Status(run="unborn", phase="preparing"))
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {model["id"]: model["root"] for model in listed["data"]} == {
        "another": "another@step-000005",
        "another@step-000005": "another@step-000005",
        "tiny": "tiny@step-000250",
        "tiny@step-000300": "tiny@step-000300",
        "tiny@step-000250": "tiny@step-000250",
    }
    for model in listed["data"]:
        assert model["object"] == "model"
        assert model["owned_by"] == "gptbox"
        assert abs(model["created"] - time.time()) < 60
        assert model["max_model_len"] == 32
        assert client.get(f"/v1/models/{model['id']}").json() == model
        reply = client.post("/v1/completions", json={"model": model["id"], "max_tokens": 1}).json()
        assert reply["model"] == model["root"]


@pytest.mark.parametrize(("name", "root"), [("tiny@best", "250"), ("tiny@latest", "300"), ("tiny%40latest", "300")])
def test_best_and_latest_can_be_looked_up(
    client: TestClient, publish: Callable[..., Path], name: str, root: str
) -> None:
    publish(300, best=False)
    assert client.get(f"/v1/models/{name}").json()["root"] == f"tiny@step-000{root}"


@pytest.mark.parametrize("name", ["gpt-4", "tiny@step-9", "%2e%2e", "tiny%2f..%2ftiny", "tiny/", "", "%00"])
def test_an_unknown_model_is_404(client: TestClient, name: str) -> None:
    response = client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["message"]


def test_without_runs_the_list_is_empty(models: Path, client_for: Callable[..., TestClient]) -> None:
    assert client_for(models).get("/v1/models").json() == {"object": "list", "data": []}


def test_the_context_length_is_read_once_per_snapshot_without_its_weights(
    client: TestClient, publish: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(300, best=False)
    (path / "model.safetensors").unlink()
    read: list[Path] = []

    def counting(folder: Path) -> ModelConfig:
        read.append(folder)
        return model_folder.load_config(folder)

    monkeypatch.setattr(models_endpoint, "load_config", counting)
    for _ in range(3):
        assert {model["max_model_len"] for model in client.get("/v1/models").json()["data"]} == {32}
        assert client.get("/v1/models/tiny@latest").json()["max_model_len"] == 32
    assert sorted(folder.name for folder in read) == ["step-000250", "step-000300"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model_type": "gpt2", "n_positions": []}', '{"model_type": 1}'])
def test_a_damaged_snapshot_is_listed_without_its_context_length(
    client: TestClient, publish: Callable[..., Path], content: str | None
) -> None:
    config = publish(300, best=False) / "config.json"
    config.unlink()
    if content is not None:
        config.write_text(content)
    listed = {model["id"]: model["max_model_len"] for model in client.get("/v1/models").json()["data"]}
    assert listed == {"tiny": 32, "tiny@step-000300": None, "tiny@step-000250": 32}
