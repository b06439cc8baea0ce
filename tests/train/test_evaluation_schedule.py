"""When a run is evaluated, on clocks that the test turns: quiet machines and busy ones, short runs and long ones."""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest
from tests.train.clock import Clock

from gptbox.train.budget import Budget, Instant
from gptbox.train.checkpoint import Progress
from gptbox.train.config import TrainConfig
from gptbox.train.evaluation_schedule import EVALUATION_SHARE, Cost, EvaluationSchedule
from gptbox.train.recipe import RECIPES

CONFIG = RECIPES[2].config
EXACT_RATIO = 5.6


class Looks(NamedTuple):
    """When each evaluation was due, in seconds from the first step; and the shares of the CPU time."""

    at: list[float]
    span: float
    share: float
    received_share: float

    @property
    def largest_gap(self) -> float:
        return max(b - a for a, b in pairwise([0.0, *self.at])) / self.span


def run(
    clock: Clock,
    config: TrainConfig,
    *,
    step_cpu_s: float = 0.05,
    estimate_cpu_s: float = 0.25,
    rest_cpu_s: float = 0.25,
    guess: float = 1.0,
) -> Looks:
    """A whole run; each evaluation estimates, then writes a sample and publishes on one thread."""
    progress = Progress()
    budget = Budget(config, progress, Instant.now(), clock.threads)
    schedule = EvaluationSchedule(budget, EXACT_RATIO)
    clock.work(2.0)
    begun, begun_cpu = clock.now, clock.cpu
    looked: list[float] = []

    def look() -> None:
        looked.append(clock.now - begun)
        began, began_cpu = budget.spent_s, clock.cpu
        clock.work(estimate_cpu_s)
        estimate_s = budget.spent_s - began
        threads, clock.threads = clock.threads, 1
        clock.work(rest_cpu_s)
        clock.threads = threads
        schedule.took(Cost(budget.spent_s - began, clock.cpu - began_cpu, estimate_s))
        budget.reserved_s = schedule.expected.seconds + schedule.exact_s(2)

    budget.begin()
    each = (estimate_cpu_s + rest_cpu_s) * guess
    schedule.begin(Cost(each / clock.threads, each, estimate_cpu_s * guess / clock.threads))
    budget.reserved_s = schedule.expected.seconds + schedule.exact_s(2)
    while True:
        if progress.step and schedule.is_due():
            look()
        if budget.reached_end():
            break
        began = budget.spent_s
        clock.work(step_cpu_s)
        progress.step += 1
        budget.step_took(budget.spent_s - began, budget.stage())
    look()
    for _ in range(2):  # the exact losses of two finalists
        clock.work(estimate_cpu_s * EXACT_RATIO)
    spent = progress.evaluation_cpu_s + 2 * estimate_cpu_s * EXACT_RATIO
    return Looks(looked, clock.now - begun, spent / (config.minutes or 1) / 60 / clock.threads,
                 spent / (clock.cpu - begun_cpu))  # fmt: skip


FIVE = replace(CONFIG, minutes=5)


@pytest.mark.parametrize("busy", [0.0, 0.45, 0.9])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_default_run_shows_how_it_learns(monkeypatch: pytest.MonkeyPatch, threads: int, busy: float) -> None:
    """Alone, beside a busy process on another core, and beside one on the same core: 0.9 is what niceness leaves it.

    The costs are those of the models that five minutes on such machines train: benchmarks/LOG.md.
    """
    clock = Clock(monkeypatch, threads)
    clock.busy = busy
    costs = {"estimate_cpu_s": 0.11, "rest_cpu_s": 0.18} if busy > 0.5 else {"estimate_cpu_s": 0.25 * threads}
    looks = run(clock, FIVE, **costs)
    assert len(looks.at) >= 24
    assert looks.at[0] < 9
    assert looks.largest_gap <= 0.1
    gaps = [b - a for a, b in pairwise(looks.at)]
    assert sum(gaps[:5]) < (0.4 if busy < 0.5 else 1) * sum(gaps[-5:]), "dense first, as far as there is time for it"
    assert len(looks.at) <= 30, "as many as are kept"


@pytest.mark.parametrize(("threads", "estimate_cpu_s", "rest_cpu_s"), [(1, 0.24, 0.2), (2, 0.49, 0.22)])
def test_looking_takes_a_twentieth_of_a_quiet_run(
    monkeypatch: pytest.MonkeyPatch, threads: int, estimate_cpu_s: float, rest_cpu_s: float
) -> None:
    looks = run(Clock(monkeypatch, threads), FIVE, estimate_cpu_s=estimate_cpu_s, rest_cpu_s=rest_cpu_s)
    assert looks.share <= EVALUATION_SHARE


@pytest.mark.parametrize("minutes", [0.17, 0.25, 0.5, 1, 2, 20])
def test_in_a_run_of_any_length_looking_is_cheap(monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    looks = run(Clock(monkeypatch), replace(CONFIG, minutes=minutes), estimate_cpu_s=0.08, rest_cpu_s=0.12)
    assert looks.share <= max(EVALUATION_SHARE, (0.5 + 0.08 * 2 * EXACT_RATIO) / (60 * minutes))
    if minutes >= 1:
        assert len(looks.at) >= 8, "one and two minutes on one core had two snapshots once"


def test_where_other_work_takes_nearly_all_looking_leaves_most_of_the_rest_to_learning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight visitors without a pause left training 7 % of a core, long after the plan was made."""
    clock = Clock(monkeypatch, 2)
    clock.busy = 0.965
    looks = run(clock, FIVE, estimate_cpu_s=0.5, rest_cpu_s=0.25)
    assert looks.received_share < 0.6, "the two exact losses at the end included"
    assert len(looks.at) >= 4


def test_a_first_look_comes_early_even_where_it_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    looks = run(clock, replace(CONFIG, minutes=2), step_cpu_s=0.6, estimate_cpu_s=3.0, rest_cpu_s=2.0)
    assert looks.at[0] + 5.0 <= 10.6


def test_a_wrong_guess_and_one_slow_look_do_not_spoil_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = run(Clock(monkeypatch), FIVE, estimate_cpu_s=0.2, rest_cpu_s=0.2, guess=20)
    assert len(looks.at) >= 24


def test_a_long_run_is_looked_at_every_ten_minutes_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = run(Clock(monkeypatch), replace(CONFIG, minutes=300), step_cpu_s=2.0)
    assert max(b - a for a, b in pairwise(looks.at)) <= 660


def test_by_the_cpu_clock_a_busy_machine_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(FIVE, clock="cpu")
    clock = Clock(monkeypatch)
    quiet = run(clock, config)
    clock.busy = 0.8
    busy = run(clock, config)
    assert len(busy.at) == len(quiet.at)
    assert busy.share == pytest.approx(quiet.share, rel=0.05)


def test_a_run_without_an_end_is_looked_at_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = Progress()
    budget = Budget(replace(CONFIG, minutes=None, target_loss=1.0, horizon_minutes=5.0), progress, Instant.now())
    schedule = EvaluationSchedule(budget, EXACT_RATIO)
    budget.begin()
    schedule.begin(Cost(0.4, 0.4, 0.2))
    looked = []
    while clock.now < 1000 + 900:
        clock.work(0.05)
        progress.step += 1
        if schedule.is_due():
            looked.append(clock.now - 1000)
            clock.work(0.4)
            schedule.took(Cost(0.4, 0.4, 0.2))
    gaps = [b - a for a, b in pairwise(looked)]
    assert looked[0] < 9.1
    assert gaps[0] == pytest.approx(8.4, abs=0.5), "0.4 s are a twentieth of 8 s"
    assert gaps[-1] == pytest.approx(0.04 * 900, rel=0.1)


def test_a_run_measured_in_steps_is_looked_at_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    progress = Progress()
    budget = Budget(replace(CONFIG, minutes=None, steps=100, eval_every=25), progress, Instant.now())
    schedule = EvaluationSchedule(budget, EXACT_RATIO)
    schedule.begin(Cost(1.0, 1.0, 0.5))
    due = []
    for progress.step in range(1, 101):
        if schedule.is_due():
            due.append(progress.step)
    assert due == [25, 50, 75, 100]
