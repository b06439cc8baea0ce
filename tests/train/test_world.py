"""Two processes that train together are one that trains alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptbox import model_folder
from gptbox.run_folder import RunFolder
from gptbox.train.world import World

TEXT = "".join(f"{n} green bottles hanging on the wall, and if {n % 7} should fall\n" for n in range(400))


def train(tmp_path: Path, name: str, processes: int, *options: str) -> RunFolder:
    (tmp_path / "data" / "bottles").mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "bottles" / "text.txt").write_text(TEXT)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    module = ["-m", "--", "gptbox"] if processes > 1 else ["-m", "gptbox"]  # torchrun would take --run for its own
    settings = {"GPTBOX_MODELS": str(tmp_path / "models"), "GPTBOX_DATA": str(tmp_path / "data"), "THREADS": "1"}
    command = [sys.executable, *launcher, *module, "train", "bottles", "--run", name, *options]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Finished after") == 1, "the leader alone tells"
    return RunFolder(tmp_path / "models", name)


def losses(run: RunFolder) -> list[tuple[Any, ...]]:
    return [(row["step"], row["train_loss"], row["val_loss"]) for row in run.rows("metrics")]


@pytest.mark.parametrize("preset", ["default", "lesson"])
def test_two_processes_learn_what_one_does(tmp_path: Path, preset: str) -> None:
    """Over gloo, at the same batch, dropout included; and a run goes on with another number of processes."""
    options = ["--preset", preset, "--steps", "40", "--dropout", "0.1", "--n-layer", "2", "--batch-size", "5"]
    one, two = (train(tmp_path, f"{n}-processes", n, *options) for n in (1, 2))
    assert [row[0] for row in losses(one)] == [row[0] for row in losses(two)]
    for ours, expected in zip(losses(two), losses(one), strict=True):
        assert ours[1:] == pytest.approx(expected[1:], abs=2e-3)
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


def test_rows_are_shared_out() -> None:
    parts = [World(rank, 3).part(8) for rank in range(3)]
    assert [(part.start, part.stop) for part in parts] == [(0, 2), (2, 5), (5, 8)]
    assert World().part(8) == slice(0, 8)
