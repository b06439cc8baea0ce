"""When a run is evaluated: on fake clocks, and (acceptance) in whole runs of five minutes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tests.train.clock import Clock

from gptbox.models.runs import RunFolder
from gptbox.train.budget import Budget, Timestamp
from gptbox.train.config import TrainConfig
from gptbox.train.evaluation_schedule import MAX_CPU_SHARE, EvaluationCost, EvaluationSchedule
from gptbox.train.recipe import RECIPES
from gptbox.train.train_state import TrainState

CONFIG = RECIPES[2].config


EXACT_RATIO = 5.6


class Evaluations(NamedTuple):
    """The evaluations of a run: when they were, and what they cost."""

    at: list[float]
    """Wall seconds from the first step."""
    span: float
    """Wall seconds from the first step to the end."""
    share: float
    """Share of the CPU time that the run would have on a quiet machine."""
    received_share: float
    """Share of the CPU time that the run received."""

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
) -> Evaluations:
    """A whole run; each evaluation estimates on all threads, then generates a sample and publishes on one."""
    state = TrainState()
    budget = Budget(config, state, Timestamp.now(), clock.threads)
    schedule = EvaluationSchedule(budget, EXACT_RATIO)
    clock.work(2.0)
    begun, begun_cpu = clock.now, clock.cpu
    times: list[float] = []

    def evaluate_now() -> None:
        times.append(clock.now - begun)
        began, began_cpu = budget.spent_s, clock.cpu
        clock.work(estimate_cpu_s)
        estimate_s = budget.spent_s - began
        threads, clock.threads = clock.threads, 1
        clock.work(rest_cpu_s)
        clock.threads = threads
        schedule.record(EvaluationCost(budget.spent_s - began, clock.cpu - began_cpu, estimate_s))
        budget.reserved_s = schedule.expected_cost.seconds + schedule.exact_s(2)

    budget.begin_training()
    each = (estimate_cpu_s + rest_cpu_s) * guess
    schedule.begin(EvaluationCost(each / clock.threads, each, estimate_cpu_s * guess / clock.threads))
    budget.reserved_s = schedule.expected_cost.seconds + schedule.exact_s(2)
    while True:
        if state.step and schedule.is_due():
            evaluate_now()
        if budget.reached_end():
            break
        began = budget.spent_s
        clock.work(step_cpu_s)
        state.step += 1
        budget.record_step(budget.spent_s - began, budget.stage())
    evaluate_now()
    for _ in range(2):  # the exact losses of two candidates
        clock.work(estimate_cpu_s * EXACT_RATIO)
    spent = state.evaluation_cpu_s + 2 * estimate_cpu_s * EXACT_RATIO
    return Evaluations(times, clock.now - begun, spent / (config.minutes or 1) / 60 / clock.threads,
                 spent / (clock.cpu - begun_cpu))  # fmt: skip


FIVE = replace(CONFIG, minutes=5)


@pytest.mark.parametrize("busy", [0.0, 0.45, 0.9])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_default_run_has_enough_evaluations_without_large_gaps(
    monkeypatch: pytest.MonkeyPatch, threads: int, busy: float
) -> None:
    """Alone, beside a busy process on another core, and beside one on the same core, which takes 0.9 of it.

    The costs are measured, with the models that five minutes on such machines train: benchmarks/LOG.md.
    """
    clock = Clock(monkeypatch, threads)
    clock.busy = busy
    costs = {"estimate_cpu_s": 0.11, "rest_cpu_s": 0.18} if busy > 0.5 else {"estimate_cpu_s": 0.25 * threads}
    evaluations = run(clock, FIVE, **costs)
    assert len(evaluations.at) >= 24
    assert evaluations.at[0] < 9
    assert evaluations.largest_gap <= 0.1
    gaps = [b - a for a, b in pairwise(evaluations.at)]
    assert sum(gaps[:5]) < (0.4 if busy < 0.5 else 1) * sum(gaps[-5:]), "dense at first, if there is time"
    assert len(evaluations.at) <= 30, "no more than are kept"


@pytest.mark.parametrize(("threads", "estimate_cpu_s", "rest_cpu_s"), [(1, 0.24, 0.2), (2, 0.49, 0.22)])
def test_evaluations_take_a_twentieth_of_a_quiet_run(
    monkeypatch: pytest.MonkeyPatch, threads: int, estimate_cpu_s: float, rest_cpu_s: float
) -> None:
    evaluations = run(Clock(monkeypatch, threads), FIVE, estimate_cpu_s=estimate_cpu_s, rest_cpu_s=rest_cpu_s)
    assert evaluations.share <= MAX_CPU_SHARE


@pytest.mark.parametrize("minutes", [0.17, 0.25, 0.5, 1, 2, 20])
def test_evaluations_are_cheap_in_runs_of_any_length(monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    evaluations = run(Clock(monkeypatch), replace(CONFIG, minutes=minutes), estimate_cpu_s=0.08, rest_cpu_s=0.12)
    assert evaluations.share <= max(MAX_CPU_SHARE, (0.5 + 0.08 * 2 * EXACT_RATIO) / (60 * minutes))
    if minutes >= 1:
        assert len(evaluations.at) >= 8, "enough even in one minute on one core"


def test_on_a_very_busy_machine_evaluations_leave_cpu_time_for_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight visitors without a pause left training 7 % of a core."""
    clock = Clock(monkeypatch, 2)
    clock.busy = 0.965
    evaluations = run(clock, FIVE, estimate_cpu_s=0.5, rest_cpu_s=0.25)
    assert evaluations.received_share < 0.6, "including the two exact losses at the end"
    assert len(evaluations.at) >= 4


def test_the_first_evaluation_is_early_even_if_expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    evaluations = run(clock, replace(CONFIG, minutes=2), step_cpu_s=0.6, estimate_cpu_s=3.0, rest_cpu_s=2.0)
    assert evaluations.at[0] + 5.0 <= 10.6


def test_a_wrong_predicted_cost_does_not_spoil_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = run(Clock(monkeypatch), FIVE, estimate_cpu_s=0.2, rest_cpu_s=0.2, guess=20)
    assert len(evaluations.at) >= 24


def test_a_long_run_is_evaluated_at_least_every_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = run(Clock(monkeypatch), replace(CONFIG, minutes=300), step_cpu_s=2.0)
    assert max(b - a for a, b in pairwise(evaluations.at)) <= 660


def test_with_the_cpu_clock_a_busy_machine_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(FIVE, clock="cpu")
    clock = Clock(monkeypatch)
    quiet = run(clock, config)
    clock.busy = 0.8
    busy = run(clock, config)
    assert len(busy.at) == len(quiet.at)
    assert busy.share == pytest.approx(quiet.share, rel=0.05)


def test_an_open_ended_run_is_evaluated_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    state = TrainState()
    budget = Budget(replace(CONFIG, minutes=None, target_loss=1.0, horizon_minutes=5.0), state, Timestamp.now())
    schedule = EvaluationSchedule(budget, EXACT_RATIO)
    budget.begin_training()
    schedule.begin(EvaluationCost(0.4, 0.4, 0.2))
    times = []
    while clock.now < 1000 + 900:
        clock.work(0.05)
        state.step += 1
        if schedule.is_due():
            times.append(clock.now - 1000)
            clock.work(0.4)
            schedule.record(EvaluationCost(0.4, 0.4, 0.2))
    gaps = [b - a for a, b in pairwise(times)]
    assert times[0] < 9.1
    assert gaps[0] == pytest.approx(8.4, abs=0.5), "0.4 s is a twentieth of 8 s"
    assert gaps[-1] == pytest.approx(0.04 * 900, rel=0.1)


def test_a_run_limited_by_steps_is_evaluated_by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    state = TrainState()
    budget = Budget(replace(CONFIG, minutes=None, steps=100, eval_every=25), state, Timestamp.now())
    schedule = EvaluationSchedule(budget, EXACT_RATIO)
    schedule.begin(EvaluationCost(1.0, 1.0, 0.5))
    due = []
    for state.step in range(1, 101):
        if schedule.is_due():
            due.append(state.step)
    assert due == [25, 50, 75, 100]


@contextmanager
def busy_process(cpu: int) -> Iterator[None]:
    """A busy loop at normal priority on one CPU."""
    spin = "import os\nos.sched_setaffinity(0, {int(os.environ['ON'])})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", spin], env=os.environ | {"ON": str(cpu)})
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.acceptance
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("cpus", "busy"), [((0, 1), None), ((0,), None), ((0, 1), 1), ((0,), 0)], ids=["two", "one", "two-busy", "one-busy"]
)
def test_a_whole_default_run_publishes_often_and_cheaply(
    tmp_path: Path, tiny_shakespeare: Path, cpus: tuple[int, ...], busy: int | None
) -> None:
    (tmp_path / "data" / "shakespeare_char").mkdir(parents=True)
    (tmp_path / "data" / "shakespeare_char" / "input.txt").write_bytes(tiny_shakespeare.read_bytes())

    def train() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gptbox", "train"], cwd=tmp_path, capture_output=True, text=True, check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )  # fmt: skip

    if busy is None:
        done = train()
    else:
        with busy_process(busy):
            done = train()
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "models", "shakespeare_char")
    status = run.status()
    assert status is not None
    steps = {row["step"] for row in run.read_rows("samples")}
    assert {f"step-{step:06d}" for step in steps} == {path.name for path in run.snapshots()}, "none was pruned"
    at = [row["elapsed_s"] for row in run.read_rows("metrics") if row["step"] in steps and row["val_loss_estimate"]]
    gaps = [b - a for a, b in pairwise(at)]
    state = torch.load(run.checkpoint / "state.pt", weights_only=True)["progress"]
    share = state["evaluation_cpu_s"] / state["cpu_s"]
    print(
        f"{len(at)} snapshots, at {', '.join(f'{each:.0f}' for each in at)} s; largest gap {max(gaps):.1f} s; "
        f"evaluations {100 * share:.1f} % of {state['cpu_s']:.0f} CPU seconds; loss {status.best_val_loss:.4f}"
    )
    assert at[0] - state["begun_s"] <= 10
    # A busy process on the run's only core leaves it, at niceness 10, a tenth of that core. On a slow core, a
    # quarter of that tenth does not pay for 24 evaluations; training keeps the rest.
    if not (len(cpus) == 1 and busy is not None and share >= 0.2):
        assert len(at) >= 24
        assert max(gaps) <= 0.1 * status.elapsed_s
    assert share <= 0.26
    assert status.elapsed_s <= 303
