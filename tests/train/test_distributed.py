"""Training by two processes gives the result of one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder
from gptbox.train.distributed import Distributed

TEXT = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(400))


def train(tmp_path: Path, name: str, processes: int, *options: str) -> RunFolder:
    (tmp_path / "data" / "bottles").mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "bottles" / "text.txt").write_text(TEXT)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    module = ["-m", "--", "gptbox"] if processes > 1 else ["-m", "gptbox"]  # torchrun would parse --run itself
    settings = {"GPTBOX_MODELS": str(tmp_path / "models"), "GPTBOX_DATA": str(tmp_path / "data"), "THREADS": "1"}
    command = [sys.executable, *launcher, *module, "train", "bottles", "--run", name, *options]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Finished after") == 1, "only the main process reports"
    return RunFolder(tmp_path / "models", name)


def losses(run: RunFolder) -> list[tuple[Any, ...]]:
    return [(row["step"], row["train_loss"], row["val_loss"]) for row in run.read_rows("metrics")]


@pytest.mark.parametrize("preset", ["default", pytest.param("lesson", marks=pytest.mark.acceptance)])
def test_two_processes_give_the_result_of_one(tmp_path: Path, preset: str) -> None:
    """Over gloo, with the same batches and dropout; and a run resumes with another number of processes."""
    options = ["--preset", preset, "--steps", "40", "--dropout", "0.1", "--n-layer", "2", "--batch-size", "5"]
    one, two = (train(tmp_path, f"{n}-processes", n, *options) for n in (1, 2))
    assert [row[0] for row in losses(one)] == [row[0] for row in losses(two)]
    for ours, expected in zip(losses(two), losses(one), strict=True):
        assert ours[1:] == pytest.approx(expected[1:], abs=2e-3)
    lines = [[row["learned"]["line"] for row in run.read_rows("samples")] for run in (one, two)]
    assert len(lines[0]) == len(lines[1]) >= 1
    assert all(line for each in lines for line in each)
    weights = [model_folder.load(run.resolve("latest")).weights for run in (one, two)]
    for name, weight in weights[0].items():
        np.testing.assert_allclose(weights[1][name], weight, atol=2e-2)
    status = two.status()
    assert status is not None
    assert "2 processes of 1 thread" in (status.device or "")

    longer = [*options[:3], "60", *options[4:]]
    train(tmp_path, "2-processes", 1, *longer)
    train(tmp_path, "1-processes", 2, *longer)
    for ours, expected in zip(losses(two), losses(one), strict=True):
        assert ours[1:] == pytest.approx(expected[1:], abs=5e-3)


def test_rows_are_split_among_the_processes() -> None:
    parts = [Distributed(rank, 3).rows(8) for rank in range(3)]
    assert [(part.start, part.stop) for part in parts] == [(0, 2), (2, 5), (5, 8)]
    assert Distributed().rows(8) == slice(0, 8)
