"""How fast a run goes, how far it has come, and what is due: everything that depends on the clock.

The clock is the monotonic one, which nobody sets; seconds count from the start of the command.
"""

import math
import time

from gptbox.train.checkpoint import Progress
from gptbox.train.config import Stage, TrainConfig
from gptbox.train.schedule import learning_rate, warmup_steps

FIRST_SNAPSHOT_S = 9.0
"""After the first step, at the latest."""
LOOKING_SHARE = 0.05
"""Of the time, at most, for evaluations and snapshots, the one at the end included."""
_HORIZON = 0.9
"""How far a schedule goes where nobody knows when the run ends: a rate of zero would learn nothing more."""
ENDING_S = 0.5
"""What a process takes to end once all is written."""


class Pace:
    """Of one process at work on a run; `progress` is what the run keeps when the process ends."""

    def __init__(self, config: TrainConfig, progress: Progress, started: float) -> None:
        """`started` is when the command began (time.monotonic()), from which `minutes` count."""
        self.config, self.progress = config, progress
        self._before, self._started = progress.elapsed_s, started
        self.step_s = 0.0
        """What a step takes, a moving average; 0 before the first."""
        self.tokens_per_s = 0.0
        self.evaluation_s = 0.0
        """What an evaluation takes, with its publishing: as the last one did, or a guess before the first."""
        self._stage: Stage | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, those of earlier processes included."""
        return self._before + time.monotonic() - self._started

    @property
    def budget_s(self) -> float:
        """Seconds that the run may take, infinite where only steps or a loss end it."""
        return math.inf if self.config.minutes is None else self.config.minutes * 60

    @property
    def _available_s(self) -> float:
        """Of the budget, what is left for steps before the last evaluation."""
        return self.budget_s - self.evaluation_s - ENDING_S

    @property
    def done(self) -> float:
        """The share of the work that is done, 0 to 1: of the steps, of the time, whichever will end first."""
        p = self.progress
        by_steps = p.step / self.config.steps if self.config.steps else 0.0
        by_time = 0.0
        if not math.isinf(self.budget_s) and p.begun_s is not None:
            by_time = (self.elapsed_s - p.begun_s) / max(1e-9, self._available_s - p.begun_s)
        elif self.config.steps is None and self.config.horizon_minutes and p.begun_s is not None:
            by_time = min(_HORIZON, (self.elapsed_s - p.begun_s) / (60 * self.config.horizon_minutes))
        return min(1.0, max(0.0, by_steps, by_time))

    @property
    def steps(self) -> float:
        """How many steps the run will have: an estimate where time ends it, infinite where nothing is known."""
        by_time = math.inf
        if self.step_s and self.config.minutes is not None:
            by_time = self.progress.step + max(0.0, self._available_s - self.elapsed_s) / self.step_s
        return min(self.config.steps or math.inf, by_time)

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end; None where nobody knows."""
        by_steps = math.inf if self.config.steps is None else (self.config.steps - self.progress.step) * self.step_s
        eta = min(by_steps, self.budget_s - self.elapsed_s)
        return None if math.isinf(eta) or not self.step_s else max(0.0, eta)

    def stage(self) -> Stage:
        """The batches of the next step."""
        return self.config.stage(self.done)

    def begin(self, evaluation_s: float) -> None:
        """Steps begin, in this process; `evaluation_s` is a guess."""
        self.evaluation_s = self.evaluation_s or evaluation_s
        if self.progress.begun_s is None:
            self.progress.begun_s = self.elapsed_s

    def step_took(self, seconds: float, stage: Stage) -> None:
        # The first steps of a stage also warm caches up; they would mislead the estimate for long.
        fresh = stage != self._stage or self.progress.step <= 3
        self._stage = stage
        self.step_s = seconds if fresh else 0.95 * self.step_s + 0.05 * seconds
        self.tokens_per_s = stage.batch_size * stage.context_length / self.step_s

    def learning_rate(self) -> float:
        """Of the next step: by steps where they end the run, else by time."""
        step, steps = self.progress.step, self.steps
        if math.isinf(steps):  # only a target to reach, or nothing measured yet
            return learning_rate(self.config, step, self.config.warmup_steps, self.done)
        warmup = warmup_steps(self.config, steps)
        if steps == self.config.steps:
            return learning_rate(self.config, step, warmup, (step - warmup) / (steps - warmup))
        return learning_rate(self.config, step, warmup, self.done)

    # what is due

    def reached_end(self) -> bool:
        """Whether there is no time for another step, with the last evaluation and snapshot after it, or no need."""
        return self.reached_goal() or self.elapsed_s + self.step_s >= self._available_s

    def reached_goal(self) -> bool:
        """Whether the steps are taken, or the loss is low enough."""
        p, c = self.progress, self.config
        return (c.steps is not None and p.step >= c.steps) or (
            c.target_loss is not None and p.best_val_loss is not None and p.best_val_loss <= c.target_loss
        )

    def evaluation_is_due(self) -> bool:
        if self.config.eval_every is not None:
            return self.progress.step % self.config.eval_every == 0
        if self.progress.next_evaluation_s is None:
            self.progress.next_evaluation_s = self._first_evaluation_s()
        return self.elapsed_s >= self.progress.next_evaluation_s

    def _first_evaluation_s(self) -> float:
        begun, seconds = self.progress.begun_s or 0.0, self.evaluation_s
        latest = max(0.5, FIRST_SNAPSHOT_S - seconds)
        if LOOKING_SHARE * self.budget_s >= 3 * seconds:
            return begun + min(latest, max(1.0, 3 * seconds))
        if self.budget_s - begun <= FIRST_SNAPSHOT_S + 1:
            return math.inf  # the one at the end comes soon enough
        return begun + latest

    def evaluation_took(self, seconds: float) -> None:
        """Plan the next: ever wider apart, as learning slows down, and all together within their share of the time."""
        p, now = self.progress, self.elapsed_s
        self.evaluation_s = seconds
        p.looking_s += seconds
        if math.isinf(self.budget_s):
            p.next_evaluation_s = now + max(3.0, seconds / LOOKING_SHARE)
            return
        more = int((LOOKING_SHARE * self.budget_s - p.looking_s - seconds) / seconds)
        if more < 1 or now >= self.budget_s:
            p.next_evaluation_s = math.inf
            return
        p.next_evaluation_s = max(now * (self.budget_s / now) ** (1 / (more + 1)), now + 3 * seconds)
        if p.next_evaluation_s > self._available_s - 3 * seconds:
            p.next_evaluation_s = math.inf

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
            or self.reached_goal()
            or (c.minutes is not None and max(p.done.get("minutes", 0.0), p.elapsed_s / 60) >= c.minutes)
        )
