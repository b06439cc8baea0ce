"""The budget of a run, in minutes, steps or a target loss: how much is spent, how much is left, when it ends.

Minutes are measured by one of two clocks. `wall` is the monotonic clock, which adjustments of the system time do not
affect. `cpu` is the CPU time of this process divided by its threads: other work on the machine then lengthens a run
instead of spoiling it. Both count from the start of the command. "Budget seconds" are seconds of the clock in use.
"""

import math
import time
from dataclasses import dataclass
from typing import Self

from gptbox.train.config import Stage, TrainConfig
from gptbox.train.schedule import learning_rate, warmup_steps
from gptbox.train.train_state import TrainState

_MAX_OPEN_ENDED_FRACTION = 0.9
"""Highest fraction of the schedule reached by a run whose end is unknown: at a rate of zero it would learn nothing."""
SHUTDOWN_S = 0.5
"""Seconds a process needs to exit once everything is written."""


@dataclass(frozen=True)
class Timestamp:
    """A point in time on both clocks."""

    wall_s: float
    """time.monotonic()."""
    cpu_s: float
    """CPU time of all threads of this process."""

    @classmethod
    def now(cls) -> Self:
        return cls(time.monotonic(), time.process_time())

    def excluding(self, begin: "Timestamp", end: "Timestamp") -> "Timestamp":
        """This timestamp moved forward by the interval from `begin` to `end`, which then does not count."""
        return Timestamp(self.wall_s + end.wall_s - begin.wall_s, self.cpu_s + end.cpu_s - begin.cpu_s)


class Budget:
    """Time and steps of a run, spent and left, and the learning rate that follows from them."""

    def __init__(self, config: TrainConfig, state: TrainState, started: Timestamp, threads: int = 1) -> None:
        """`minutes` count from `started`, the start of the command; `threads` is the number of compute threads."""
        self.config, self.state, self.threads = config, state, threads
        self._started = started
        self._elapsed_before = state.elapsed_s
        self._cpu_before = state.cpu_s
        self._spent_before = state.elapsed_s if state.spent_s is None else state.spent_s
        self.step_s = 0.0
        """Budget seconds per step, as a moving average; 0 before the first step."""
        self.tokens_per_s = 0.0
        """Tokens per budget second, from `step_s`."""
        self.reserved_s = 0.0
        """Budget seconds reserved for the evaluation after the last step and the choice of the best snapshot."""
        self._stage: Stage | None = None

    # Spent

    @property
    def elapsed_s(self) -> float:
        """Wall seconds of training, in earlier processes too."""
        return self._elapsed_before + time.monotonic() - self._started.wall_s

    @property
    def cpu_s(self) -> float:
        """CPU seconds of training on all threads, in earlier processes too."""
        return self._cpu_before + time.process_time() - self._started.cpu_s

    @property
    def spent_s(self) -> float:
        """Budget seconds spent so far."""
        if self.config.clock == "cpu":
            return self._spent_before + (time.process_time() - self._started.cpu_s) / self.threads
        return self._spent_before + time.monotonic() - self._started.wall_s

    @property
    def cpu_and_wall_s(self) -> tuple[float, float]:
        """CPU and wall seconds of the same steps: training by older versions, which stored no CPU time, is left out."""
        known = self._cpu_before > 0
        return self.cpu_s, self.elapsed_s - (0.0 if known else self._elapsed_before)

    def update_state(self) -> None:
        """Copy the times spent into the state, for the checkpoint."""
        state = self.state
        state.elapsed_s, state.cpu_s, state.spent_s = self.elapsed_s, self.cpu_s, self.spent_s

    # Left

    @property
    def total_s(self) -> float:
        """Budget seconds of the whole run; infinite if only steps or a loss end it."""
        return math.inf if self.config.minutes is None else self.config.minutes * 60

    @property
    def available_s(self) -> float:
        """Budget seconds from the start of the command to the end of the last step."""
        return self.total_s - self.reserved_s - SHUTDOWN_S

    @property
    def since_first_step_s(self) -> float:
        """Budget seconds since the first step of the run."""
        return 0.0 if self.state.begun_s is None else self.spent_s - self.state.begun_s

    @property
    def fraction_done(self) -> float:
        """Fraction of the work done, 0 to 1: of the steps or of the time, whichever is further along."""
        state, c = self.state, self.config
        by_steps = state.step / c.steps if c.steps else 0.0
        by_time = 0.0
        if not math.isinf(self.total_s) and state.begun_s is not None:
            by_time = self.since_first_step_s / max(1e-9, self.available_s - state.begun_s)
        elif c.steps is None and c.horizon_minutes:
            by_time = min(_MAX_OPEN_ENDED_FRACTION, self.since_first_step_s / (60 * c.horizon_minutes))
        return min(1.0, max(0.0, by_steps, by_time))

    @property
    def total_steps(self) -> float:
        """Steps of the whole run: an estimate if time ends it, infinite if unknown."""
        by_time = math.inf
        if self.step_s and self.config.minutes is not None:
            by_time = self.state.step + max(0.0, self.available_s - self.spent_s) / self.step_s
        return min(self.config.steps or math.inf, by_time)

    @property
    def eta_s(self) -> float | None:
        """Wall seconds to the end; None if unknown."""
        by_steps = math.inf if self.config.steps is None else (self.config.steps - self.state.step) * self.step_s
        eta = min(by_steps, self.total_s - self.spent_s)
        if math.isinf(eta) or not self.step_s:
            return None
        return max(0.0, eta) * self._wall_per_budget_second

    @property
    def _wall_per_budget_second(self) -> float:
        if self.config.clock == "wall":
            return 1.0
        spent = self.spent_s - self._spent_before
        return max(1.0, (time.monotonic() - self._started.wall_s) / spent) if spent > 0 else 1.0

    def begin_training(self) -> None:
        """Call before the first step of this process."""
        if self.state.begun_s is None:
            self.state.begun_s = self.spent_s

    def record_step(self, seconds: float, stage: Stage) -> None:
        """Update `step_s` and `tokens_per_s` with a step of `stage` that took `seconds` budget seconds."""
        # The first steps of a stage also warm up caches and would bias the average for long.
        is_warm_up = stage != self._stage or self.state.step <= 3
        self._stage = stage
        self.step_s = seconds if is_warm_up else 0.95 * self.step_s + 0.05 * seconds
        self.tokens_per_s = stage.batch_size * stage.context_length / max(1e-9, self.step_s)

    # The next step

    def stage(self) -> Stage:
        """Batch size and context length of the next step."""
        return self.config.stage(self.fraction_done)

    def learning_rate(self) -> float:
        """Learning rate of the next step: scheduled by steps if they end the run, else by time."""
        step, steps = self.state.step, self.total_steps
        if math.isinf(steps):  # only a target loss ends the run, or no step has been timed yet
            return learning_rate(self.config, step, self.config.warmup_steps, self.fraction_done)
        warmup = warmup_steps(self.config, steps)
        if steps == self.config.steps:
            return learning_rate(self.config, step, warmup, (step - warmup) / (steps - warmup))
        return learning_rate(self.config, step, warmup, self.fraction_done)

    # The end

    def reached_end(self) -> bool:
        """Whether the goal is reached, or the time left is too short for another step."""
        return self.reached_goal() or self.spent_s + self.step_s >= self.available_s

    def reached_goal(self) -> bool:
        """Whether all steps are taken, or the estimated loss is at the target."""
        state, c = self.state, self.config
        return (c.steps is not None and state.step >= c.steps) or (
            c.target_loss is not None and state.best_estimate is not None and state.best_estimate <= c.target_loss
        )

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        names = ("steps", "minutes", "target_loss")
        return {name: value for name in names if (value := getattr(self.config, name)) is not None}

    def already_done(self) -> bool:
        """Whether a finished run has nothing left to do under the limits now set."""
        c, state = self.config, self.state
        if state.done is None:
            return False
        return (
            self.limits() == state.done
            or self.reached_goal()
            or (c.minutes is not None and max(state.done.get("minutes", 0.0), self._spent_before / 60) >= c.minutes)
        )
