"""How much of a run is done and how much is left: by its minutes, its steps or its target loss.

Two clocks can measure the minutes: `wall` is the monotonic clock, which nobody sets; `cpu` is the CPU time of this
process divided by its threads, so that other work on the machine lengthens a run instead of spoiling it. Both count
from the start of the command. Budget seconds below are seconds of the clock in use.
"""

import math
import time
from dataclasses import dataclass
from typing import Self

from gptbox.train.checkpoint import Progress
from gptbox.train.config import Stage, TrainConfig
from gptbox.train.schedule import learning_rate, warmup_steps

_HORIZON = 0.9
"""How far a schedule goes where nobody knows when the run ends: a rate of zero would learn nothing more."""
ENDING_S = 0.5
"""What a process takes to end once everything is written."""


@dataclass(frozen=True)
class Instant:
    """A moment on both clocks, in seconds."""

    wall: float
    cpu: float
    """CPU time of all threads of this process."""

    @classmethod
    def now(cls) -> Self:
        return cls(time.monotonic(), time.process_time())

    def later(self, other: "Instant", than: "Instant") -> "Instant":
        """This moment, moved by the time from `than` to `other`."""
        return Instant(self.wall + other.wall - than.wall, self.cpu + other.cpu - than.cpu)


class Budget:
    """What a run may take, what it has taken, and what the schedule of the learning rate makes of it."""

    def __init__(self, config: TrainConfig, progress: Progress, started: Instant, threads: int = 1) -> None:
        """`started` is when the command began, from which `minutes` count; `threads` is how many threads compute."""
        self.config, self.progress, self.threads = config, progress, threads
        self._started = started
        self._elapsed_before = progress.elapsed_s
        self._cpu_before = progress.cpu_s
        self._spent_before = progress.elapsed_s if progress.spent_s is None else progress.spent_s
        self.step_s = 0.0
        """Budget seconds a step, as a moving average; 0 before the first."""
        self.tokens_per_s = 0.0
        self.reserved_s = 0.0
        """Budget seconds kept for what follows the last step: its evaluation, and the choice of the best snapshot."""
        self._stage: Stage | None = None

    # What has been spent

    @property
    def elapsed_s(self) -> float:
        """Wall seconds of training, those of earlier processes included."""
        return self._elapsed_before + time.monotonic() - self._started.wall

    @property
    def cpu_s(self) -> float:
        """CPU seconds of training on all threads, those of earlier processes included."""
        return self._cpu_before + time.process_time() - self._started.cpu

    @property
    def spent_s(self) -> float:
        """Budget seconds spent so far."""
        if self.config.clock == "cpu":
            return self._spent_before + (time.process_time() - self._started.cpu) / self.threads
        return self._spent_before + time.monotonic() - self._started.wall

    @property
    def measured(self) -> tuple[float, float]:
        """CPU and wall seconds of the run, without what an older version trained, whose CPU time nobody knows."""
        known = self._cpu_before > 0
        return self.cpu_s, self.elapsed_s - (0.0 if known else self._elapsed_before)

    def keep(self) -> None:
        """Write what has been spent into the progress, which the checkpoint keeps."""
        p = self.progress
        p.elapsed_s, p.cpu_s, p.spent_s = self.elapsed_s, self.cpu_s, self.spent_s

    # What is left

    @property
    def total_s(self) -> float:
        """Budget seconds that the run may take; infinite where only steps or a loss end it."""
        return math.inf if self.config.minutes is None else self.config.minutes * 60

    @property
    def available_s(self) -> float:
        """Budget seconds from the start of the command to the end of the last step."""
        return self.total_s - self.reserved_s - ENDING_S

    @property
    def since_begun_s(self) -> float:
        """Budget seconds since the first step of the run."""
        return 0.0 if self.progress.begun_s is None else self.spent_s - self.progress.begun_s

    @property
    def done(self) -> float:
        """The share of the work that is done, 0 to 1: of the steps or of the time, whichever is nearer to its end."""
        p, c = self.progress, self.config
        by_steps = p.step / c.steps if c.steps else 0.0
        by_time = 0.0
        if not math.isinf(self.total_s) and p.begun_s is not None:
            by_time = self.since_begun_s / max(1e-9, self.available_s - p.begun_s)
        elif c.steps is None and c.horizon_minutes:
            by_time = min(_HORIZON, self.since_begun_s / (60 * c.horizon_minutes))
        return min(1.0, max(0.0, by_steps, by_time))

    @property
    def steps(self) -> float:
        """How many steps the run will have: an estimate where time ends it, infinite where nothing is known."""
        by_time = math.inf
        if self.step_s and self.config.minutes is not None:
            by_time = self.progress.step + max(0.0, self.available_s - self.spent_s) / self.step_s
        return min(self.config.steps or math.inf, by_time)

    @property
    def eta_s(self) -> float | None:
        """Wall seconds to the end; None where nobody knows."""
        by_steps = math.inf if self.config.steps is None else (self.config.steps - self.progress.step) * self.step_s
        eta = min(by_steps, self.total_s - self.spent_s)
        if math.isinf(eta) or not self.step_s:
            return None
        return max(0.0, eta) * self._wall_per_budget_second

    @property
    def _wall_per_budget_second(self) -> float:
        if self.config.clock == "wall":
            return 1.0
        spent = self.spent_s - self._spent_before
        return max(1.0, (time.monotonic() - self._started.wall) / spent) if spent > 0 else 1.0

    def begin(self) -> None:
        """The first step of this process comes next."""
        if self.progress.begun_s is None:
            self.progress.begun_s = self.spent_s

    def step_took(self, seconds: float, stage: Stage) -> None:
        """Budget seconds of one step, with the batches of `stage`."""
        # The first steps of a stage also warm caches up; they would mislead the average for long.
        warming = stage != self._stage or self.progress.step <= 3
        self._stage = stage
        self.step_s = seconds if warming else 0.95 * self.step_s + 0.05 * seconds
        self.tokens_per_s = stage.batch_size * stage.context_length / max(1e-9, self.step_s)

    # What the next step is

    def stage(self) -> Stage:
        """The batches of the next step."""
        return self.config.stage(self.done)

    def learning_rate(self) -> float:
        """Of the next step: by steps where they end the run, else by time."""
        step, steps = self.progress.step, self.steps
        if math.isinf(steps):  # only a target to reach, or nothing measured yet
            return learning_rate(self.config, step, self.config.warmup_steps, self.done)
        warmup = warmup_steps(self.config, steps)
        if steps == self.config.steps:
            return learning_rate(self.config, step, warmup, (step - warmup) / (steps - warmup))
        return learning_rate(self.config, step, warmup, self.done)

    # When it ends

    def reached_end(self) -> bool:
        """Whether no further step is needed, or none fits before what follows the last one."""
        return self.reached_goal() or self.spent_s + self.step_s >= self.available_s

    def reached_goal(self) -> bool:
        """Whether the steps are taken, or the estimated loss is low enough."""
        p, c = self.progress, self.config
        return (c.steps is not None and p.step >= c.steps) or (
            c.target_loss is not None and p.best_estimate is not None and p.best_estimate <= c.target_loss
        )

    def limits(self) -> dict[str, float]:
        """What ends this run."""
        names = ("steps", "minutes", "target_loss")
        return {name: value for name in names if (value := getattr(self.config, name)) is not None}

    def already_done(self) -> bool:
        """Whether a run that had ended has nothing left to do under today's limits."""
        c, p = self.config, self.progress
        if p.done is None:
            return False
        return (
            self.limits() == p.done
            or self.reached_goal()
            or (c.minutes is not None and max(p.done.get("minutes", 0.0), self._spent_before / 60) >= c.minutes)
        )
