"""A second run in the volume, seen by web through a read-only mount: its trainer is killed, then it is deleted."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from docker.models.containers import Container

Until = Callable[..., Any]


@pytest.fixture
def trainer(serving: Any, until: Until) -> Iterator[Container]:
    """Another train container, for the run `killed`, started after the stack's own has finished; without restarts."""
    until(lambda: serving.status()["training"]["phase"] == "finished", within=120, what="the end of the other training")
    container = serving.docker.containers.run(
        f"{serving.project}-train", ["gptbox", "train", "little", "--run", "killed", "--steps", "1000000"], detach=True,
        volumes={f"{serving.project}_models": {"bind": "/models"}, str(serving.data): {"bind": "/data", "mode": "ro"}},
        labels={"com.docker.compose.project": serving.project}, network_disabled=True,
    )  # fmt: skip
    yield container
    container.remove(force=True)


def test_the_run_of_a_killed_trainer_is_stopped_and_can_be_deleted(
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
    assert training()["message"].startswith("Training ended unexpectedly at step ")

    code, output = serving.inside("web", "gptbox", "runs")
    assert code == 0
    assert next(line.split()[:2] for line in output.splitlines()[1:]) == ["killed", "stopped"]
    code, output = serving.inside("web", "gptbox", "delete", "killed", "--yes")
    assert code == 2
    assert "Read-only file system" in output
    assert "docker compose run --rm train gptbox delete killed" in output
    assert "Deleted /models/killed" in serving.compose(*delete)
    until(lambda: training()["run"] == "little", within=5, what="the other run")


def test_a_start_with_an_invalid_setting_is_reported_on_the_page_and_not_retried(serving: Any, until: Until) -> None:
    until(lambda: not serving.state("train")["Running"], within=240, every=1, what="the end of training")
    before = serving.status()
    serving.compose("up", "--detach", "--no-build", "train", THREADS="none")
    until(lambda: serving.status()["training"]["phase"] == "failed", within=30, what="the reason on the page")
    assert "THREADS='none' is not a whole number" in serving.status()["training"]["message"]
    until(lambda: not serving.state("train")["Running"], within=10, what="the end of the container")
    state = serving.state("train")
    assert (state["Running"], state["ExitCode"], serving.container("train").attrs["RestartCount"]) == (False, 0, 0)
    assert serving.status()["server"]["model"] == before["server"]["model"], "the current model is still served"

    serving.compose("up", "--detach", "--no-build", "train")
    until(lambda: serving.status()["training"]["phase"] == "finished", within=30, what="the run as it was")
    assert serving.status()["training"]["step"] == before["training"]["step"]
