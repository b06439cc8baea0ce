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


def test_a_start_that_cannot_be_right_shows_on_the_page_and_is_not_repeated(serving: Any, until: Until) -> None:
    until(lambda: not serving.state("train")["Running"], within=240, every=1, what="the end of training")
    before = serving.status()
    serving.compose("up", "--detach", "--no-build", "train", THREADS="none")
    until(lambda: serving.status()["training"]["phase"] == "failed", within=30, what="the reason on the page")
    assert "THREADS='none' is not a whole number" in serving.status()["training"]["message"]
    until(lambda: not serving.state("train")["Running"], within=10, what="the end of the container")
    state = serving.state("train")
    assert (state["Running"], state["ExitCode"], serving.container("train").attrs["RestartCount"]) == (False, 0, 0)
    assert serving.status()["server"]["model"] == before["server"]["model"], "what is there goes on being served"

    serving.compose("up", "--detach", "--no-build", "train")
    until(lambda: serving.status()["training"]["phase"] == "finished", within=30, what="the run as it was")
    assert serving.status()["training"]["step"] == before["training"]["step"]
