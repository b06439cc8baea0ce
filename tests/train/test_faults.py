"""What goes wrong while nobody is there: a full disk, a text learned by heart."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.train.test_trainer import CONFIG, TEXT

from gptbox import model_folder
from gptbox.datasets.prepared import prepare
from gptbox.errors import DiskFullError, RunError
from gptbox.run_folder import RunFolder, Status
from gptbox.train import selection, session
from gptbox.train.progress import LogReporter
from gptbox.train.trainer import Trainer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs to be root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "bottles").mkdir(parents=True)
    (tmp_path / "data" / "bottles" / "text.txt").write_text(TEXT)
    return tmp_path / "data"


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
        if trainer.progress.step == step:
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


def test_training_outlives_a_full_disk(small_disk: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_what_a_full_disk_refused_was_never_judged(small_disk: Path, data: Path) -> None:
    """Not the loss either, nor that it was above the best: a run could otherwise be taken to overfit."""
    trainer = make_trainer(small_disk, data)
    at_step(trainer, 30, lambda: fill(small_disk))
    judged = []
    original = trainer._evaluate

    def evaluating(last: bool = False) -> None:
        before = {name: getattr(trainer.progress, name) for name in selection.JUDGED}
        original(last)
        if trainer.disk.is_full:
            judged.append((before, {name: getattr(trainer.progress, name) for name in selection.JUDGED}))
            (small_disk / "filler").unlink()

    trainer._evaluate = evaluating  # type: ignore[method-assign]
    trainer.train()
    ((before, after),) = judged
    assert before["latest_snapshot"] == "step-000020"
    assert after == before


def test_a_disk_that_stays_full_is_told_at_the_end(small_disk: Path, data: Path) -> None:
    trainer = make_trainer(small_disk, data)
    at_step(trainer, 30, lambda: fill(small_disk))
    with pytest.raises(DiskFullError, match="is full, and what was learned last could not be saved"):
        trainer.train()
    (small_disk / "filler").unlink()
    assert all_complete(trainer.run) == ["step-000020"]
    again = make_trainer(small_disk, data)
    assert again.train().phase == "finished"
    assert all_complete(again.run) == ["step-000020", "step-000040", "step-000060"]


def test_as_a_command_it_exits_1_and_goes_on_later(small_disk: Path, data: Path) -> None:
    environment = os.environ | {"GPTBOX_MODELS": str(small_disk), "GPTBOX_DATA": str(data), "THREADS": "1"}
    command = [sys.executable, "-m", "gptbox", "train", "bottles", "--steps", "120", "--n-embd", "64"]
    filler = small_disk / "filler"
    filler.write_bytes(bytes(5_500_000))  # it begins well, and 30 snapshots will not fit
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "are free. Free some space, keep fewer snapshots (SNAPSHOTS_KEPT)" in refused.stderr
    assert "Traceback" not in refused.stderr
    filler.unlink()
    environment["SNAPSHOTS_KEPT"] = "2"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(all_complete(RunFolder(small_disk, "bottles"))) == 2


def test_a_run_that_went_on_and_could_not_be_saved_has_failed(tmp_path: Path) -> None:
    """Unlike one that was refused before anything changed, whose status stays what it was."""
    run = RunFolder(tmp_path, "bottles")
    before = run.write_status(Status(run="bottles", phase="stopped", message="Stopped at step 20."))
    session._tell(run, before, RunError("begun otherwise"))
    assert (run.status() or before).phase == "stopped"
    session._tell(run, before, DiskFullError("The disk is full."))
    now = run.status()
    assert now is not None
    assert (now.phase, now.message) == ("failed", "The disk is full.")


def test_overfitting_is_said_and_ends_the_run(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of random words has nothing to learn but itself."""
    import random

    random.seed(1)
    words = ["".join(random.choices("abcdefgh", k=random.randint(2, 6))) for _ in range(900)]
    (data / "noise").mkdir()
    (data / "noise" / "text.txt").write_text(" ".join(random.choices(words, k=900)))
    run = RunFolder(tmp_path / "models", "noise")
    config = replace(CONFIG, steps=None, minutes=10.0, eval_every=None, n_embd=64, batch_size=16, sampling="epochs")
    trainer = Trainer(run, prepare("noise", run, data), config, reporter=LogReporter())
    messages = []
    original = run.write_status
    monkeypatch.setattr(run, "write_status", lambda status: (messages.append(status.message), original(status))[1])
    status = trainer.train()
    assert status.phase == "finished"
    assert status.elapsed_s < 500, "it ends long before its ten minutes are over"
    assert "Stopped early" in status.message
    assert "only learns the text by heart" in status.message
    assert any("(overfitting). The best snapshot is kept." in message for message in messages)
    assert status.best_snapshot != status.latest_snapshot
    assert run.resolve("best").name == status.best_snapshot
    assert run.resolve("best") in run.snapshots()
    again = Trainer(run, trainer.dataset, config, reporter=LogReporter())
    assert again.train().step == status.step, "a run that stopped early is complete"
