"""Resuming from damaged checkpoints, and from those of older versions."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.train.tiny_runs import CONFIG, stop_at

from gptbox.errors import RunError
from gptbox.train.checkpoint import differences
from gptbox.train.trainer import Trainer


def test_a_run_with_a_damaged_checkpoint_resumes_from_the_previous_one(
    make_trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gptbox")
    trainer = make_trainer()
    stop_at(trainer, 45)  # checkpoints at 20, 40 and 45: the last two are kept
    trainer.train()
    state = trainer.checkpoint.path
    state.write_bytes(state.read_bytes()[:1000])
    assert make_trainer().train().step == 60
    said = caplog.text
    assert "is damaged" in said
    assert "Going on from step 40" in said


def test_two_damaged_checkpoints_are_refused_and_kept(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    trainer.train()
    for path in (trainer.checkpoint.path, trainer.checkpoint.previous):
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="No checkpoint can be read"):
        make_trainer(replace(CONFIG, steps=80)).train()
    assert len(trainer.run.snapshots()) == 3


def test_an_older_version_s_checkpoint_resumes(make_trainer: Callable[..., Trainer]) -> None:
    """Such a checkpoint has only exact losses, and other fields for the next evaluation."""
    first = make_trainer()
    stop_at(first, 45)
    first.train()
    state = torch.load(first.checkpoint.path, weights_only=True)
    new = state["progress"]
    old = {name: new[name] for name in (
        "step", "tokens", "elapsed_s", "learning_rate", "loss_sum", "loss_count", "train_loss", "val_loss",
        "best_val_loss", "best_snapshot", "latest_snapshot", "best_s", "worse", "begun_s", "done",
    )}  # fmt: skip
    torch.save(state | {"progress": old | {"looking_s": 1.0, "next_evaluation_s": None}}, first.checkpoint.path)
    again = make_trainer()
    status = again.train()
    assert (status.phase, status.step) == ("finished", 60)
    assert status.best_val_loss is not None
    assert status.best_val_loss <= old["best_val_loss"]
    assert old["best_snapshot"] in again.state.candidates, "the old best snapshot is still a candidate"


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        ({"seed": 1, "n_kv_head": 2}, {"seed": 1, "n_kv_head": 2}, ""),
        ({"seed": 1}, {"seed": 2}, "seed was 1 and is now 2"),
        ({"seed": 1, "init": "first"}, {"seed": 1}, "init was 'first' and is now the default"),
        ({"seed": 1}, {"seed": 1, "n_kv_head": 2}, "n_kv_head was the default and is now 2"),
        ({"seed": 1, "horizon_minutes": 5.0}, {"seed": 1}, ""),
    ],
)
def test_a_missing_name_means_its_default(found: dict[str, object], wanted: dict[str, object], said: str) -> None:
    assert differences(found, wanted) == said
