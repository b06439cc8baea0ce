"""The best snapshot: by estimate while a run trains, by exact loss at its end."""

import pytest

from gptbox.train import best_snapshot
from gptbox.train.train_state import TrainState


def state_after(estimates: list[float]) -> TrainState:
    state = TrainState()
    for i, estimate in enumerate(estimates):
        best_snapshot.record_evaluation(state, f"step-{i:06d}", estimate, None, float(i))
    return state


def test_the_three_lowest_estimates_compete() -> None:
    state = state_after([2.0, 1.5, 1.6, 1.55, 1.58, 1.7])
    assert state.candidates == {"step-000001": 1.5, "step-000003": 1.55, "step-000004": 1.58}
    assert (state.best_snapshot, state.best_estimate, state.best_s) == ("step-000001", 1.5, 1.0)
    assert (state.latest_snapshot, state.val_loss_estimate, state.worse) == ("step-000005", 1.7, 4)


@pytest.mark.parametrize(
    ("estimates", "expected"),
    [([1.5, 1.445, 1.44], [2, 1]), ([1.44, 1.445, 1.449], [0, 1, 2]), ([1.9, 1.6, 1.3], [2]), ([], [])],
)
def test_only_candidates_within_the_margin_are_measured(estimates: list[float], expected: list[int]) -> None:
    assert best_snapshot.candidates_within_margin(state_after(estimates)) == [f"step-{i:06d}" for i in expected]


def test_evaluation_fields_are_all_that_an_evaluation_changes() -> None:
    before = state_after([2.0])
    changed = state_after([2.0])
    best_snapshot.record_evaluation(changed, "step-000009", 1.0, 1.01, 9.0)
    best_snapshot.record_evaluation(changed, "step-000010", 1.5, 1.51, 9.0)
    differing = {name for name in vars(before) if getattr(before, name) != getattr(changed, name)}
    assert differing == set(best_snapshot.EVALUATION_FIELDS)
