"""When a run ends, and how far its schedule has come, on clocks that the test turns."""

import math
from dataclasses import replace

import pytest
from tests.train.clock import Clock

from gptbox.train.budget import Budget, Instant
from gptbox.train.checkpoint import Progress
from gptbox.train.config import TrainConfig
from gptbox.train.recipe import RECIPES

CONFIG = RECIPES[2].config


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make(config: TrainConfig, progress: Progress | None = None, threads: int = 1) -> Budget:
    return Budget(config, progress or Progress(), Instant.now(), threads)


def run(clock: Clock, config: TrainConfig, step_cpu_s: float, reserved_s: float = 1.0, threads: int = 1) -> Budget:
    """Steps to the end of a budget."""
    budget = make(config, threads=threads)
    clock.work(2.0)
    budget.reserved_s = reserved_s
    budget.begin()
    while not budget.reached_end():
        began, stage = budget.spent_s, budget.stage()
        clock.work(step_cpu_s)
        budget.progress.step += 1
        budget.step_took(budget.spent_s - began, stage)
    return budget


def test_the_minutes_count_from_the_start_and_leave_room_for_the_end(clock: Clock) -> None:
    began = clock.now
    run(clock, replace(CONFIG, minutes=1), 0.05, reserved_s=3.0)
    assert clock.now - began == pytest.approx(60 - 3.0 - 0.5, abs=0.06)


def test_by_the_wall_clock_other_work_costs_steps(clock: Clock) -> None:
    alone = run(clock, replace(CONFIG, minutes=1), 0.05)
    clock.busy = 0.9
    began = clock.now
    beside = run(clock, replace(CONFIG, minutes=1), 0.05)
    assert clock.now - began == pytest.approx(58.5, abs=0.6)
    assert beside.progress.step < 0.1 * alone.progress.step


def test_by_the_cpu_clock_other_work_costs_time(clock: Clock) -> None:
    config = replace(CONFIG, minutes=1, clock="cpu")
    alone = run(clock, config, 0.05)
    clock.busy = 0.9
    began = clock.now
    beside = run(clock, config, 0.05)
    assert clock.now - began == pytest.approx(585, abs=6)
    assert beside.progress.step == pytest.approx(alone.progress.step, abs=2)


def test_the_cpu_clock_shares_the_time_among_the_threads(clock: Clock) -> None:
    clock.threads = 2
    began = clock.now
    run(clock, replace(CONFIG, minutes=1, clock="cpu"), 0.05, threads=2)
    assert clock.now - began == pytest.approx(58.5, abs=0.1)


def test_the_eta_by_the_cpu_clock_is_in_seconds_that_pass(clock: Clock) -> None:
    clock.busy = 0.75
    budget = make(replace(CONFIG, minutes=1, clock="cpu"))
    budget.begin()
    clock.work(30)
    budget.step_took(0.05, budget.stage())
    assert budget.elapsed_s == pytest.approx(120)
    assert budget.eta_s == pytest.approx(120)


def test_spent_minutes_stay_spent_when_the_run_goes_on_by_another_clock(clock: Clock) -> None:
    first = make(replace(CONFIG, minutes=1, clock="cpu"))
    clock.busy = 0.75
    clock.work(30)
    first.keep()
    assert first.progress.spent_s == pytest.approx(30)
    second = make(replace(CONFIG, minutes=1), first.progress)
    clock.wait(10)
    assert second.spent_s == pytest.approx(40)
    assert second.elapsed_s == pytest.approx(130)


def test_a_checkpoint_of_an_older_version_has_spent_its_elapsed_seconds(clock: Clock) -> None:
    budget = make(replace(CONFIG, minutes=1), Progress(step=100, elapsed_s=20.0))
    clock.work(5)
    assert budget.spent_s == pytest.approx(25)
    assert budget.measured == pytest.approx((5, 5)), "how busy the machine was before, nobody knows"


def test_time_that_is_not_to_count_moves_the_start(clock: Clock) -> None:
    started = Instant.now()
    before = Instant.now()
    clock.work(20)
    budget = Budget(replace(CONFIG, minutes=1), Progress(), started.later(Instant.now(), than=before))
    assert budget.spent_s == pytest.approx(0)
    assert budget.cpu_s == pytest.approx(0)


def test_the_learning_rate_reaches_its_end_with_the_time(clock: Clock) -> None:
    budget = run(clock, replace(CONFIG, minutes=1), 0.05)
    assert budget.done == pytest.approx(1.0, abs=0.01)
    assert budget.learning_rate() == pytest.approx(0.0, abs=0.01 * CONFIG.learning_rate)


def test_a_longer_budget_goes_on_from_where_it_was(clock: Clock) -> None:
    first = run(clock, replace(CONFIG, minutes=1), 0.05)
    first.keep()
    first.progress.done = first.limits()
    assert make(first.config, first.progress).already_done()
    longer = make(replace(first.config, minutes=2), first.progress)
    assert not longer.already_done()
    longer.reserved_s = 1.0
    longer.begin()
    assert 0.4 < longer.done < 0.55
    assert not longer.reached_end()


def test_towards_a_loss_the_rate_goes_down_but_not_to_nothing(clock: Clock) -> None:
    """Nobody knows when it will be reached: the schedule is made for a guess, and outlives it."""
    config = replace(CONFIG, minutes=None, target_loss=1.0, horizon_minutes=1.0)
    budget = make(config)
    budget.begin()
    rates = []
    for _ in range(4):
        rates.append(budget.learning_rate() / config.learning_rate)
        clock.wait(30)
    assert rates == pytest.approx([1.0, 0.5, 0.1, 0.1])
    assert not budget.reached_end()
    assert budget.eta_s is None


def test_the_target_is_reached_by_the_estimate(clock: Clock) -> None:
    budget = make(replace(CONFIG, minutes=None, target_loss=1.5))
    budget.progress.best_estimate = 1.51
    assert not budget.reached_goal()
    budget.progress.best_estimate = 1.49
    assert budget.reached_goal()


def test_eta_and_steps_agree(clock: Clock) -> None:
    budget = make(replace(CONFIG, minutes=None, steps=100))
    budget.begin()
    assert budget.eta_s is None
    budget.step_took(0.5, budget.stage())
    assert (budget.steps, budget.eta_s) == (100, 50.0)
    assert math.isinf(budget.total_s)


def test_only_the_monotonic_clock_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that jumps, as by NTP or after a suspension, changes nothing."""
    from gptbox.train import budget as module

    wall = iter([1e9, 2e9, 0.0, -5.0])
    monkeypatch.setattr(module.time, "time", lambda: next(wall, 0.0))
    began = clock.now
    run(clock, replace(CONFIG, minutes=0.5), 0.09)
    assert clock.now - began == pytest.approx(28.5, abs=0.2)
