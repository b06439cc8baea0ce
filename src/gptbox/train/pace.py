"""How fast a run goes, how far it has come, and what is due: everything that depends on the clock."""

import math
import time

from gptbox.train.checkpoint import Progress
from gptbox.train.config import TrainConfig
from gptbox.train.schedule import learning_rate, warmup_steps

FIRST_EVALUATION_S = 3.0


class Pace:
    """Of one process at work on a run; `progress` is what the run keeps when the process ends."""

    def __init__(self, config: TrainConfig, progress: Progress, started: float) -> None:
        """`started` is when the command began (time.monotonic()), from which `minutes` count."""
        self.config, self.progress = config, progress
        self._before, self._started = progress.elapsed_s, started
        self.step_s = 0.0
        """What a step takes, a moving average; 0 before the first."""
        self.evaluation_s = 0.0
        """What the last evaluation took, with its publishing."""

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, those of earlier processes included."""
        return self._before + time.monotonic() - self._started

    @property
    def budget_s(self) -> float:
        """Seconds that the run may take, infinite where only steps or a loss end it."""
        return math.inf if self.config.minutes is None else self.config.minutes * 60

    @property
    def steps(self) -> float:
        """How many steps the run will have: an estimate where time ends it, infinite where nothing is known."""
        by_time = math.inf
        if self.step_s and self.config.minutes is not None:
            left = max(0.0, self.budget_s - self.elapsed_s - self.evaluation_s)
            by_time = self.progress.step + left / self.step_s
        return min(self.config.steps or math.inf, by_time)

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end; None where nobody knows."""
        by_steps = math.inf if self.config.steps is None else (self.config.steps - self.progress.step) * self.step_s
        eta = min(by_steps, self.budget_s - self.elapsed_s)
        return None if math.isinf(eta) or not self.step_s else max(0.0, eta)

    def step_took(self, seconds: float) -> None:
        # The first steps also warm caches up; they would mislead the estimate for long.
        first = self.step_s == 0 or self.progress.step <= 3
        self.step_s = seconds if first else 0.95 * self.step_s + 0.05 * seconds

    def evaluation_took(self, seconds: float) -> None:
        """Dense at first, so that one can watch it learn; later a fixed share of the time goes into looking."""
        self.evaluation_s = seconds
        gap = max(FIRST_EVALUATION_S, min(self.elapsed_s / 2, self.budget_s / 12), 10 * seconds)
        # However slow the machine, a handful of snapshots shows the way from noise to words.
        self.progress.next_evaluation_s = self.elapsed_s + min(gap, self.budget_s / 5)

    def learning_rate(self) -> float:
        """Of the next step: by steps where they end the run, else by time."""
        step, steps = self.progress.step, self.steps
        if math.isinf(steps):  # nothing measured yet, or only a target to reach: no decay
            return learning_rate(self.config, step, self.config.warmup_steps, 0.0)
        warmup = warmup_steps(self.config, steps)
        if steps == self.config.steps:
            return learning_rate(self.config, step, warmup, (step - warmup) / (steps - warmup))
        available = self.budget_s - self.evaluation_s
        return learning_rate(self.config, step, warmup, self.elapsed_s / available if available > 0 else 1.0)

    # what is due

    def reached_end(self) -> bool:
        """Whether there is no time for another step, with the last evaluation and snapshot after it, or no need."""
        return self._reached_goal() or self.elapsed_s + self.step_s + self.evaluation_s >= self.budget_s

    def _reached_goal(self) -> bool:
        """Whether the steps are taken, or the loss is low enough."""
        p, c = self.progress, self.config
        return (c.steps is not None and p.step >= c.steps) or (
            c.target_loss is not None and p.best_val_loss is not None and p.best_val_loss <= c.target_loss
        )

    def evaluation_is_due(self) -> bool:
        if self.config.eval_every is not None:
            return self.progress.step % self.config.eval_every == 0
        if not self.progress.next_evaluation_s:  # the first steps of a new run
            self.progress.next_evaluation_s = self.elapsed_s + FIRST_EVALUATION_S
        return self.elapsed_s >= self.progress.next_evaluation_s

    def row_is_due(self, last_row_s: float) -> bool:
        """A row of metrics: by steps where evaluations are, so that the same steps tell the same, else each second."""
        if self.config.eval_every is not None:
            return self.progress.step % max(1, self.config.eval_every // 25) == 0
        return self.elapsed_s >= last_row_s + 1

    # the limits

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
            or self._reached_goal()
            or (c.minutes is not None and max(p.done.get("minutes", 0.0), p.elapsed_s / 60) >= c.minutes)
        )
