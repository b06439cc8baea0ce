"""The three real containers, built and started as by a user, with their own project name and port."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent

SETTINGS = {
    "DATASET": "little", "DATASET_URL": "", "TRAIN_MINUTES": "0.75", "PRESET": "", "SNAPSHOTS_KEPT": "", "THREADS": "",
    "API_KEY": "", "MAX_QUEUE": "", "MAX_TOKENS": "", "RUN": "", "TRAIN_CLOCK": "", "LOG_FORMAT": "",
}  # fmt: skip
"""Every setting, so that the developer's environment and .env have no effect."""

WORDS = ["the", "of", "and", "to", "in", "that", "it", "was", "his", "with", "as", "for", "had", "you", "not", "be"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.stack)
            # The first test builds the images, if need be from scratch.
            item.add_marker(pytest.mark.timeout(900))


class Stack:
    """One Compose project. Commands run as a user would type them, and fail the test if they fail."""

    def __init__(self, folder: Path) -> None:
        self.project = f"gptbox-test-{secrets.token_hex(4)}"
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.data = folder / "data"
        self.data.mkdir()
        # The only difference from a user's stack: another folder of texts.
        self.override = folder / "override.yml"
        self.override.write_text(
            json.dumps({"services": {"train": {"volumes": [f"{self.data}:/data:ro"]}}}), encoding="utf-8"
        )
        self.docker = docker.from_env()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def compose(self, *arguments: str, timeout: float = 120, **settings: str) -> str:
        command = [
            "docker", "compose", "--project-name", self.project, "--file", str(ROOT / "docker-compose.yml"),
            "--file", str(self.override), "--ansi", "never", "--progress", "plain", *arguments,
        ]  # fmt: skip
        environment = os.environ | SETTINGS | {"PORT": str(self.port), "DOCKER_CLI_HINTS": "false"} | settings
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def container(self, service: str) -> Container:
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (container,) = self.docker.containers.list(all=True, filters={"label": labels})
        return container

    def state(self, service: str) -> dict[str, Any]:
        return dict(self.container(service).attrs["State"])

    def inside(self, service: str, *command: str) -> tuple[int, str]:
        """Run a command in a running container; return its exit code and output."""
        done = self.container(service).exec_run(list(command))
        return done.exit_code, done.output.decode()

    def status(self) -> dict[str, Any]:
        return dict(self.http.get("/api/status").raise_for_status().json())

    def logs(self, service: str) -> str:
        return str(self.container(service).logs().decode())

    def remaining_objects(self) -> list[str]:
        """Objects of this project that still exist in Docker."""
        label = {"label": f"com.docker.compose.project={self.project}"}
        remaining = [
            *self.docker.containers.list(all=True, filters=label),
            *self.docker.networks.list(filters=label),
            *self.docker.volumes.list(filters=label),
            *self.docker.images.list(filters=label),
        ]
        return [f"{type(each).__name__} {each.id}" for each in remaining]

    def close(self) -> None:
        self.http.close()
        self.docker.close()


def wait_until(happens: Callable[[], Any], *, within: float, every: float = 0.1, what: str = "it") -> Any:
    """Poll `happens` until its result is true, and return it. A transport error counts as false."""
    end = time.monotonic() + within
    while True:
        try:
            if result := happens():
                return result
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, f"{what} did not happen within {within:g} s"
        time.sleep(every)


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


def no_engine() -> str | None:
    """Why the stack cannot run here; None if it can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            return f"`{' '.join(command)}` fails: {done.stderr.strip()[-200:]}"
    return None


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The built images, with nothing running yet. At the end everything is removed."""
    if reason := no_engine():
        if os.environ.get("CI") == "true":
            pytest.fail(f"The stack tests must run here, but {reason}.")
        pytest.skip(f"The stack tests need a Docker engine, but {reason}")
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.compose("config", "--quiet")
        stack.compose("build", timeout=800)
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5")
        remaining_objects = stack.remaining_objects()
        stack.close()
    assert remaining_objects == []


@pytest.fixture(scope="session")
def little_text(stack: Stack) -> Path:
    """A short text to train on, in the train container's data folder."""
    folder = stack.data / "little"
    folder.mkdir(exist_ok=True)
    # Random, because a regular text is learned so well that all samples are equal.
    random = Random(1)
    lines = [" ".join(random.choices(WORDS, k=8)).capitalize() + ".\n" for _ in range(6000)]
    (folder / "little.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def serving(stack: Stack, little_text: Path) -> Stack:
    """All three containers are running, and web has a model."""
    stack.compose("up", "--detach", "--no-build")
    wait_until(lambda: stack.http.get("/readyz").status_code == 200, within=120, what="a first model")
    return stack
