"""When a run ends and how far its schedule has come, on fake clocks."""

import math
from dataclasses import replace

import pytest
from tests.train.clock import Clock

from gptbox.train.budget import Budget, Timestamp
from gptbox.train.config import TrainConfig
from gptbox.train.recipe import RECIPES
from gptbox.train.train_state import TrainState

CONFIG = RECIPES[2].config


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make_budget(config: TrainConfig, state: TrainState | None = None, threads: int = 1) -> Budget:
    return Budget(config, state or TrainState(), Timestamp.now(), threads)


def run_to_end(
    clock: Clock, config: TrainConfig, step_cpu_s: float, reserved_s: float = 1.0, threads: int = 1
) -> Budget:
    """Take steps until the budget ends."""
    budget = make_budget(config, threads=threads)
    clock.work(2.0)
    budget.reserved_s = reserved_s
    budget.begin_training()
    while not budget.reached_end():
        began, stage = budget.spent_s, budget.stage()
        clock.work(step_cpu_s)
        budget.state.step += 1
        budget.record_step(budget.spent_s - began, stage)
    return budget


def test_minutes_count_from_the_start_and_include_the_final_evaluation(clock: Clock) -> None:
    began = clock.now
    run_to_end(clock, replace(CONFIG, minutes=1), 0.05, reserved_s=3.0)
    assert clock.now - began == pytest.approx(60 - 3.0 - 0.5, abs=0.06)


def test_with_the_wall_clock_other_work_costs_steps(clock: Clock) -> None:
    alone = run_to_end(clock, replace(CONFIG, minutes=1), 0.05)
    clock.busy = 0.9
    began = clock.now
    contended = run_to_end(clock, replace(CONFIG, minutes=1), 0.05)
    assert clock.now - began == pytest.approx(58.5, abs=0.6)
    assert contended.state.step < 0.1 * alone.state.step


def test_with_the_cpu_clock_other_work_costs_time(clock: Clock) -> None:
    config = replace(CONFIG, minutes=1, clock="cpu")
    alone = run_to_end(clock, config, 0.05)
    clock.busy = 0.9
    began = clock.now
    contended = run_to_end(clock, config, 0.05)
    assert clock.now - began == pytest.approx(585, abs=6)
    assert contended.state.step == pytest.approx(alone.state.step, abs=2)


def test_the_cpu_clock_divides_cpu_time_by_the_threads(clock: Clock) -> None:
    clock.threads = 2
    began = clock.now
    run_to_end(clock, replace(CONFIG, minutes=1, clock="cpu"), 0.05, threads=2)
    assert clock.now - began == pytest.approx(58.5, abs=0.1)


def test_the_eta_with_the_cpu_clock_is_in_wall_seconds(clock: Clock) -> None:
    clock.busy = 0.75
    budget = make_budget(replace(CONFIG, minutes=1, clock="cpu"))
    budget.begin_training()
    clock.work(30)
    budget.record_step(0.05, budget.stage())
    assert budget.elapsed_s == pytest.approx(120)
    assert budget.eta_s == pytest.approx(120)


def test_spent_minutes_stay_spent_when_a_run_resumes_with_another_clock(clock: Clock) -> None:
    first = make_budget(replace(CONFIG, minutes=1, clock="cpu"))
    clock.busy = 0.75
    clock.work(30)
    first.update_state()
    assert first.state.spent_s == pytest.approx(30)
    second = make_budget(replace(CONFIG, minutes=1), first.state)
    clock.wait(10)
    assert second.spent_s == pytest.approx(40)
    assert second.elapsed_s == pytest.approx(130)


def test_an_older_checkpoint_s_spent_time_is_its_elapsed_time(clock: Clock) -> None:
    budget = make_budget(replace(CONFIG, minutes=1), TrainState(step=100, elapsed_s=20.0))
    clock.work(5)
    assert budget.spent_s == pytest.approx(25)
    assert budget.cpu_and_wall_s == pytest.approx((5, 5)), "an older version's CPU time is unknown"


def test_excluded_time_does_not_count(clock: Clock) -> None:
    started = Timestamp.now()
    before = Timestamp.now()
    clock.work(20)
    budget = Budget(replace(CONFIG, minutes=1), TrainState(), started.excluding(before, Timestamp.now()))
    assert budget.spent_s == pytest.approx(0)
    assert budget.cpu_s == pytest.approx(0)


def test_the_learning_rate_ends_at_zero_when_the_time_does(clock: Clock) -> None:
    budget = run_to_end(clock, replace(CONFIG, minutes=1), 0.05)
    assert budget.fraction_done == pytest.approx(1.0, abs=0.01)
    assert budget.learning_rate() == pytest.approx(0.0, abs=0.01 * CONFIG.learning_rate)


def test_a_finished_run_resumes_with_a_longer_budget(clock: Clock) -> None:
    first = run_to_end(clock, replace(CONFIG, minutes=1), 0.05)
    first.update_state()
    first.state.done = first.limits()
    assert make_budget(first.config, first.state).already_done()
    longer = make_budget(replace(first.config, minutes=2), first.state)
    assert not longer.already_done()
    longer.reserved_s = 1.0
    longer.begin_training()
    assert 0.4 < longer.fraction_done < 0.55
    assert not longer.reached_end()


def test_with_a_target_loss_the_rate_decays_but_not_to_zero(clock: Clock) -> None:
    """The end is unknown: the schedule is made for an expected duration, after which the rate stays constant."""
    config = replace(CONFIG, minutes=None, target_loss=1.0, horizon_minutes=1.0)
    budget = make_budget(config)
    budget.begin_training()
    rates = []
    for _ in range(4):
        rates.append(budget.learning_rate() / config.learning_rate)
        clock.wait(30)
    assert rates == pytest.approx([1.0, 0.5, 0.1, 0.1])
    assert not budget.reached_end()
    assert budget.eta_s is None


def test_the_estimated_loss_decides_whether_the_target_is_reached(clock: Clock) -> None:
    budget = make_budget(replace(CONFIG, minutes=None, target_loss=1.5))
    budget.state.best_estimate = 1.51
    assert not budget.reached_goal()
    budget.state.best_estimate = 1.49
    assert budget.reached_goal()


def test_eta_and_steps_agree(clock: Clock) -> None:
    budget = make_budget(replace(CONFIG, minutes=None, steps=100))
    budget.begin_training()
    assert budget.eta_s is None
    budget.record_step(0.5, budget.stage())
    assert (budget.total_steps, budget.eta_s) == (100, 50.0)
    assert math.isinf(budget.total_s)


def test_only_the_monotonic_clock_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jumps of the system clock, by NTP or after a suspend, change nothing."""
    from gptbox.train import budget as module

    wall = iter([1e9, 2e9, 0.0, -5.0])
    monkeypatch.setattr(module.time, "time", lambda: next(wall, 0.0))
    began = clock.now
    run_to_end(clock, replace(CONFIG, minutes=0.5), 0.09)
    assert clock.now - began == pytest.approx(28.5, abs=0.2)
