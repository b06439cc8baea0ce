"""A small text of the user's own, a run to prepare it for, and web servers."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.datasets.http_server import Answer, Server

from gptbox.models.runs import RunFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "letters").mkdir(parents=True)
    (tmp_path / "data" / "letters" / "a.txt").write_text("the quick brown fox\n" * 10)
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "models", "letters")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: Answer) -> Server:
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can access, unlike pytest's own."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "letters"
        folder.mkdir()
        folder.parent.chmod(0o755)
        yield folder


@contextmanager
def not_root() -> Iterator[None]:
    """Run as another user, because root may read every file."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)
