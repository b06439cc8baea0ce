"""A reboot in the middle of a run, and one after its end: the engine is stopped and started in an orderly way."""

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
    """By the command in GPTBOX_RESTART_ENGINE, since every system starts its engine in its own way."""
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


def test_training_goes_on_after_a_reboot_and_never_begins_again(stack: Any, little_text: Any, until: Until) -> None:
    stack.compose("up", "--detach", "--no-build", RUN="reboot", TRAIN_MINUTES="1.5")
    until(lambda: (stack.status()["training"] or {}).get("step", 0) > 20, within=120, what="some steps")
    reboot()
    until(lambda: stack.status()["training"]["phase"] == "stopped" or stack.state("train")["Running"], within=60)
    assert stack.status()["training"]["step"] > 20
    until(lambda: not stack.state("train")["Running"], within=240, every=1, what="the end of training")
    assert stack.state("train")["ExitCode"] == 0
    assert "Going on from step" in stack.logs("train")
    finished = stack.status()["training"]
    assert finished["phase"] == "finished"
    steps = [row["step"] for row in stack.http.get("/api/history").json()["metrics"]]
    assert steps == sorted(set(steps)), "no step was taken twice"

    reboot()
    until(lambda: stack.http.get("/readyz").status_code == 200, within=60, what="the page after the reboot")
    time.sleep(5)
    assert not stack.state("train")["Running"]
    assert stack.status()["training"] == finished
