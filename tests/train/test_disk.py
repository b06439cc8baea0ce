"""Training on a full disk."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.train.tiny_runs import CONFIG

from gptbox.datasets.prepared import prepare
from gptbox.errors import DiskFullError
from gptbox.models import folder as model_folder
from gptbox.models.runs import RunFolder
from gptbox.train import best_snapshot
from gptbox.train.reporter import LogReporter
from gptbox.train.trainer import Trainer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on its own file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return filler


def at_step(trainer: Trainer, step: int, do: Callable[[], object]) -> None:
    original = trainer._step

    def stepping() -> None:
        original()
        if trainer.state.step == step:
            do()

    trainer._step = stepping  # type: ignore[method-assign]


def make_trainer(disk: Path, data: Path) -> Trainer:
    run = RunFolder(disk, "bottles")
    return Trainer(run, prepare("bottles", run, data), CONFIG, reporter=LogReporter())


def all_complete(run: RunFolder) -> list[str]:
    for path in run.snapshots():
        model_folder.load(path)
    for folder in (run.path, run.path / "snapshots", run.checkpoint):
        assert [path for path in folder.iterdir() if path.name.endswith(".tmp")] == []
    json.loads((run.path / "status.json").read_text())
    return [path.name for path in run.snapshots()]


def test_training_continues_on_a_full_disk(small_disk: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    trainer = make_trainer(small_disk, data)
    at_step(trainer, 30, lambda: fill(small_disk))
    at_step(trainer, 50, lambda: (small_disk / "filler").unlink())
    assert trainer.train().phase == "finished"
    assert all_complete(trainer.run) == ["step-000020", "step-000060"], "there was no space at step 40"
    assert caplog.text.count("The disk is full: nothing can be saved or published until") == 1
    rows = (trainer.run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows][-1] == 60, "no row is torn"
    assert trainer.run.resolve("best").name == "step-000060"


def test_an_evaluation_that_could_not_be_written_leaves_the_state_unchanged(small_disk: Path, data: Path) -> None:
    """Neither its loss nor a higher count of `worse` is kept: otherwise the run could seem to overfit."""
    trainer = make_trainer(small_disk, data)
    at_step(trainer, 30, lambda: fill(small_disk))
    judged = []
    original = trainer._evaluate

    def evaluating(last: bool = False) -> None:
        before = {name: getattr(trainer.state, name) for name in best_snapshot.EVALUATION_FIELDS}
        original(last)
        if trainer.disk.is_full:
            judged.append((before, {name: getattr(trainer.state, name) for name in best_snapshot.EVALUATION_FIELDS}))
            (small_disk / "filler").unlink()

    trainer._evaluate = evaluating  # type: ignore[method-assign]
    trainer.train()
    ((before, after),) = judged
    assert before["latest_snapshot"] == "step-000020"
    assert after == before


def test_a_disk_that_stays_full_is_an_error_at_the_end(small_disk: Path, data: Path) -> None:
    trainer = make_trainer(small_disk, data)
    at_step(trainer, 30, lambda: fill(small_disk))
    with pytest.raises(DiskFullError, match="is full, and the latest progress could not be saved"):
        trainer.train()
    (small_disk / "filler").unlink()
    assert all_complete(trainer.run) == ["step-000020"]
    again = make_trainer(small_disk, data)
    assert again.train().phase == "finished"
    assert all_complete(again.run) == ["step-000020", "step-000040", "step-000060"]


def test_a_command_that_does_not_fit_the_disk_exits_1(small_disk: Path, data: Path) -> None:
    environment = os.environ | {"GPTBOX_MODELS": str(small_disk), "GPTBOX_DATA": str(data), "THREADS": "1"}
    command = [sys.executable, "-m", "gptbox", "train", "bottles", "--steps", "120", "--n-embd", "64"]
    filler = small_disk / "filler"
    filler.write_bytes(bytes(5_500_000))  # the start fits, 30 snapshots do not
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "are free. Free some space, keep fewer snapshots (SNAPSHOTS_KEPT)" in refused.stderr
    assert "Traceback" not in refused.stderr
    filler.unlink()
    environment["SNAPSHOTS_KEPT"] = "2"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(all_complete(RunFolder(small_disk, "bottles"))) == 2
