"""When a run is looked at and when it ends, on a clock that the test turns."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from gptbox.train import pace as pace_module
from gptbox.train.checkpoint import Progress
from gptbox.train.pace import LOOKING_SHARE, Pace
from gptbox.train.recipe import RECIPES


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(pace_module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(
    clock: Clock, minutes: float, *, step_s: float, evaluation_s: float, setup_s: float = 2.0
) -> tuple[Pace, list[float]]:
    """A whole run: when each evaluation began, in seconds from the start; the pace at the end."""
    config = replace(RECIPES[2].config, minutes=minutes)
    pace = Pace(config, Progress(), clock.now)
    clock.now += setup_s
    pace.begin(evaluation_s)
    looked = []

    def look() -> None:
        looked.append(pace.elapsed_s)
        clock.now += evaluation_s
        pace.evaluation_took(evaluation_s)

    while True:
        if pace.progress.step and pace.evaluation_is_due():
            look()
        if pace.reached_end():
            break
        clock.now += step_s
        pace.progress.step += 1
        pace.step_took(step_s, pace.stage())
    look()
    return pace, looked


@pytest.mark.parametrize("evaluation_s", [0.1, 0.5, 1.7])
@pytest.mark.parametrize("minutes", [0.17, 0.25, 0.5, 1, 5, 20])
def test_the_time_is_kept_and_looking_is_cheap(clock: Clock, minutes: float, evaluation_s: float) -> None:
    began = clock.now
    _, looked = run(clock, minutes, step_s=0.09, evaluation_s=evaluation_s)
    budget = minutes * 60
    assert clock.now - began == pytest.approx(budget, abs=max(1.5, 0.05 * budget))
    assert clock.now - began <= budget
    # The one at the end has to be, and one must be there within ten seconds.
    assert len(looked) * evaluation_s <= max(LOOKING_SHARE * budget, 2 * evaluation_s)
    assert looked[0] + evaluation_s <= max(2.0 + 10.0, 1.2)


def test_evaluations_lie_ever_wider_apart(clock: Clock) -> None:
    _, looked = run(clock, 5, step_s=0.09, evaluation_s=0.8)
    gaps = [b - a for a, b in pairwise(looked)]
    assert 8 <= len(looked) <= 19
    assert gaps[-2] > 3 * gaps[0]
    assert looked[0] < 6


def test_a_slow_machine_still_shows_a_first_snapshot(clock: Clock) -> None:
    _, looked = run(clock, 2, step_s=0.6, evaluation_s=5.0)
    assert looked[0] + 5.0 <= 12.6
    assert len(looked) == 2


def test_the_learning_rate_reaches_its_end_with_the_time(clock: Clock) -> None:
    pace, _ = run(clock, 1, step_s=0.05, evaluation_s=1.0)
    assert pace.done == pytest.approx(1.0, abs=0.01)
    assert pace.learning_rate() == pytest.approx(0.0, abs=0.01 * pace.config.learning_rate)


def test_a_longer_budget_goes_on_from_where_it_was(clock: Clock) -> None:
    first, _ = run(clock, 1, step_s=0.05, evaluation_s=1.0)
    first.progress.elapsed_s, first.progress.done = first.elapsed_s, first.limits()
    same = Pace(first.config, first.progress, clock.now)
    assert same.already_done()
    longer = Pace(replace(first.config, minutes=2), first.progress, clock.now)
    assert not longer.already_done()
    longer.begin(1.0)
    assert 0.4 < longer.done < 0.55
    assert not longer.reached_end()


def test_towards_a_loss_the_rate_goes_down_but_not_to_nothing(clock: Clock) -> None:
    """Nobody knows when it will be reached: the schedule is made for a guess, and outlives it."""
    config = replace(RECIPES[2].config, minutes=None, target_loss=1.0, horizon_minutes=1.0)
    pace = Pace(config, Progress(), clock.now)
    pace.begin(1.0)
    rates = []
    for _ in range(4):
        rates.append(pace.learning_rate() / config.learning_rate)
        clock.now += 30
    assert rates == pytest.approx([1.0, 0.5, 0.1, 0.1])
    assert not pace.reached_end()
    assert pace.eta_s is None


def test_eta_and_steps_agree(clock: Clock) -> None:
    pace = Pace(replace(RECIPES[2].config, minutes=None, steps=100), Progress(), clock.now)
    pace.begin(1.0)
    assert pace.eta_s is None
    pace.step_took(0.5, pace.stage())
    assert (pace.steps, pace.eta_s) == (100, 50.0)
    assert math.isinf(pace.budget_s)


def test_only_the_monotonic_clock_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that jumps, as by NTP or after a suspension, changes nothing."""
    wall = iter([1e9, 2e9, 0.0, -5.0])
    monkeypatch.setattr(pace_module.time, "time", lambda: next(wall, 0.0))
    began = clock.now
    run(clock, 0.5, step_s=0.09, evaluation_s=0.5)
    assert clock.now - began == pytest.approx(30, abs=1.5)
