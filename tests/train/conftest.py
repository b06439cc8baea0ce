"""Fixtures of the training tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.tiny_runs import CONFIG, TEXT

from gptbox.datasets.prepared import prepare
from gptbox.models.runs import RunFolder
from gptbox.train.config import TrainConfig
from gptbox.train.reporter import LogReporter
from gptbox.train.trainer import Trainer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A second thread only slows down models this small, and most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "bottles").mkdir(parents=True)
    (tmp_path / "data" / "bottles" / "text.txt").write_text(TEXT)
    return tmp_path / "data"


@pytest.fixture
def make_trainer(tmp_path: Path, data: Path) -> Callable[..., Trainer]:
    def make(config: TrainConfig = CONFIG, name: str = "bottles", **options: Any) -> Trainer:
        run = RunFolder(tmp_path / "models", name)
        return Trainer(run, prepare("bottles", run, data), config, reporter=LogReporter(), **options)

    return make


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "data" / "bottles").mkdir(parents=True)
    (tmp_path / "data" / "bottles" / "text.txt").write_text(TEXT)
    (tmp_path / "data" / "latin").mkdir()
    (tmp_path / "data" / "latin" / "text.txt").write_bytes("déjà vu ".encode("latin-1") * 500)
    return tmp_path
