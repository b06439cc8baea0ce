"""A small text of the user's own, and a run to prepare it for."""

from pathlib import Path

import pytest

from gptbox.models.runs import RunFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "letters").mkdir(parents=True)
    (tmp_path / "data" / "letters" / "a.txt").write_text("the quick brown fox\n" * 10)
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "models", "letters")
