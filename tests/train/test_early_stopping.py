"""A run that overfits stops early."""

from pathlib import Path

import pytest
from tests.train.tiny_runs import CONFIG

from gptbox.datasets.prepared import prepare
from gptbox.models.runs import RunFolder
from gptbox.train.config import with_changes
from gptbox.train.reporter import LogReporter
from gptbox.train.trainer import Trainer


def test_overfitting_is_reported_and_ends_the_run(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of random words can only be memorised."""
    import random

    random.seed(1)
    words = ["".join(random.choices("abcdefgh", k=random.randint(2, 6))) for _ in range(900)]
    (data / "noise").mkdir()
    (data / "noise" / "text.txt").write_text(" ".join(random.choices(words, k=900)))
    run = RunFolder(tmp_path / "models", "noise")
    dataset = prepare("noise", run, data)
    config = with_changes(CONFIG, minutes=10.0, n_embd=64, batch_size=16, sampling="epochs")
    config = config.with_vocab_size(dataset.vocab_size)
    trainer = Trainer(run, dataset, config, reporter=LogReporter())
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
    again = Trainer(run, dataset, config, reporter=LogReporter())
    assert again.train().step == status.step, "a run that stopped early is complete"
