"""Which snapshot is the best: by estimates while a run goes on, exactly at its end."""

import pytest

from gptbox.train import selection
from gptbox.train.checkpoint import Progress


def of(estimates: list[float]) -> Progress:
    progress = Progress()
    for i, estimate in enumerate(estimates):
        selection.record(progress, f"step-{i:06d}", estimate, None, float(i))
    return progress


def test_the_three_lowest_estimates_compete() -> None:
    progress = of([2.0, 1.5, 1.6, 1.55, 1.58, 1.7])
    assert progress.candidates == {"step-000001": 1.5, "step-000003": 1.55, "step-000004": 1.58}
    assert (progress.best_snapshot, progress.best_estimate, progress.best_s) == ("step-000001", 1.5, 1.0)
    assert (progress.latest_snapshot, progress.val_loss_estimate, progress.worse) == ("step-000005", 1.7, 4)


@pytest.mark.parametrize(
    ("estimates", "expected"),
    [([1.5, 1.445, 1.44], [2, 1]), ([1.44, 1.445, 1.449], [0, 1, 2]), ([1.9, 1.6, 1.3], [2]), ([], [])],
)
def test_only_what_the_estimate_s_error_leaves_open_is_measured(estimates: list[float], expected: list[int]) -> None:
    assert selection.finalists(of(estimates)) == [f"step-{i:06d}" for i in expected]


def test_every_field_that_an_evaluation_changes_can_be_taken_back() -> None:
    before = of([2.0])
    changed = of([2.0])
    selection.record(changed, "step-000009", 1.0, 1.01, 9.0)
    selection.record(changed, "step-000010", 1.5, 1.51, 9.0)
    differing = {name for name in vars(before) if getattr(before, name) != getattr(changed, name)}
    assert differing == set(selection.JUDGED)
