"""A second run in the volume, from its trainer's death to its deletion: seen by web through a read-only mount."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from docker.models.containers import Container

Until = Callable[..., Any]


@pytest.fixture
def trainer(serving: Any, until: Until) -> Iterator[Container]:
    """Another container that trains, on the run `killed`, after the stack's own; nothing would start it again."""
    until(lambda: serving.status()["training"]["phase"] == "finished", within=120, what="the end of the other training")
    container = serving.docker.containers.run(
        f"{serving.project}-train", ["gptbox", "train", "little", "--run", "killed", "--steps", "1000000"], detach=True,
        volumes={f"{serving.project}_models": {"bind": "/models"}, str(serving.data): {"bind": "/data", "mode": "ro"}},
        labels={"com.docker.compose.project": serving.project}, network_disabled=True,
    )  # fmt: skip
    yield container
    container.remove(force=True)


def test_a_trainer_that_dies_is_noticed_and_its_run_can_be_deleted(
    serving: Any, trainer: Container, until: Until
) -> None:
    def training() -> Any:
        return serving.status()["training"]

    delete = ("run", "--rm", "--no-deps", "-T", "train", "gptbox", "delete", "killed", "--yes")
    until(lambda: training()["run"] == "killed" and training()["step"] > 0, within=120, what="a first step")
    assert training()["phase"] == "training"
    with pytest.raises(AssertionError, match="The run 'killed' is being trained"):
        serving.compose(*delete)

    trainer.kill()
    until(lambda: training()["phase"] == "stopped", within=5, what="the notice")
    assert training()["message"].startswith("Training ended without a word at step ")

    code, said = serving.inside("web", "gptbox", "runs")
    assert code == 0
    assert next(line.split()[:2] for line in said.splitlines()[1:]) == ["killed", "stopped"]
    code, said = serving.inside("web", "gptbox", "delete", "killed", "--yes")
    assert code == 2
    assert "Read-only file system" in said
    assert "docker compose run --rm train gptbox delete killed" in said
    assert "Deleted /models/killed" in serving.compose(*delete)
    until(lambda: training()["run"] == "little", within=5, what="the other run")
