"""A reboot during a run and one after its end, by restarting the Docker engine."""

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import docker
import pytest

Until = Callable[..., Any]

pytestmark = pytest.mark.acceptance


def reboot() -> None:
    """Restart the Docker engine by the command in GPTBOX_RESTART_ENGINE, which differs between systems."""
    command = os.environ.get("GPTBOX_RESTART_ENGINE")
    if not command:
        pytest.skip(
            "GPTBOX_RESTART_ENGINE does not say how to restart the Docker engine, such as systemctl restart docker"
        )
    subprocess.run(command, shell=True, check=True, timeout=120)
    for _ in range(60):
        try:
            docker.from_env().ping()
            return
        except docker.errors.DockerException:
            time.sleep(0.5)
    raise AssertionError("the engine did not come back")


def training(stack: Any) -> dict[str, Any]:
    """The training status; empty while web is down."""
    reply = stack.http.get("/api/status")
    return dict(reply.json()["training"] or {}) if reply.status_code == 200 else {}


def test_training_resumes_after_a_reboot_and_a_finished_run_does_not_restart(
    stack: Any, little_text: Any, until: Until
) -> None:
    stack.compose("up", "--detach", "--no-build", RUN="reboot", TRAIN_MINUTES="1.5")

    def has_taken_steps() -> bool:
        return training(stack).get("run") == "reboot" and training(stack)["step"] > 20

    until(has_taken_steps, within=120, what="some steps")
    reboot()
    # Docker restarts containers that exited with 143 at the stop, but none that had finished.
    until(lambda: stack.http.get("/readyz").status_code == 200, within=60, what="the page after the reboot")
    until(lambda: training(stack)["phase"] == "finished", within=240, every=1, what="the end of training")
    until(lambda: not stack.state("train")["Running"], within=30, what="the end of the container")
    assert stack.state("train")["ExitCode"] == 0
    assert "Going on from step" in stack.logs("train")
    finished = training(stack)
    steps = [row["step"] for row in stack.http.get("/api/history").json()["metrics"]]
    assert steps == sorted(set(steps)), "no step was taken twice"

    reboot()
    until(lambda: stack.http.get("/readyz").status_code == 200, within=60, what="the page after the reboot")
    time.sleep(5)
    assert not stack.state("train")["Running"]
    assert training(stack) == finished
    stack.compose("run", "--rm", "--no-TTY", "train", "gptbox", "delete", "reboot", "--yes")
