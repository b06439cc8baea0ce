"""/v1/models: every run and snapshot."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gptbox.run_folder import RunFolder, Status


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
        assert client.get(f"/v1/models/{model['id']}").json() == model
        reply = client.post("/v1/completions", json={"model": model["id"], "max_tokens": 1}).json()
        assert reply["model"] == model["root"]


@pytest.mark.parametrize(("name", "root"), [("tiny@best", "250"), ("tiny@latest", "300"), ("tiny%40latest", "300")])
def test_the_other_names_can_be_looked_up(
    client: TestClient, publish: Callable[..., Path], name: str, root: str
) -> None:
    publish(300, best=False)
    assert client.get(f"/v1/models/{name}").json()["root"] == f"tiny@step-000{root}"


@pytest.mark.parametrize("name", ["gpt-4", "tiny@step-9", "%2e%2e", "tiny%2f..%2ftiny", "tiny/", "", "%00"])
def test_an_unknown_one_is_404(client: TestClient, name: str) -> None:
    response = client.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["message"]


def test_no_run_no_models(models: Path, client_for: Callable[..., TestClient]) -> None:
    assert client_for(models).get("/v1/models").json() == {"object": "list", "data": []}
