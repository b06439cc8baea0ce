"""Which snapshots are kept."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.train.tiny_runs import CONFIG

from gptbox.train.publish import snapshots_that_fit
from gptbox.train.trainer import Trainer


def test_pruning_keeps_the_best_and_the_latest(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(replace(CONFIG, steps=60, eval_every=4), snapshots_kept=5)
    trainer.train()
    steps = [int(path.name[5:]) for path in trainer.run.snapshots()]
    assert len(steps) == 5
    assert steps[0] == 4
    assert trainer.run.resolve("best").exists()
    assert steps[-1] == 60
    assert not [path for path in (trainer.run.path / "snapshots").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("kept", "size", "expected"), [(30, 3e6, 30), (30, 1e8, 10), (30, 3e9, 2), (1, 3e9, 1)])
def test_snapshots_take_at_most_a_gibibyte(kept: int, size: float, expected: int) -> None:
    assert snapshots_that_fit(kept, int(size)) == expected
