"""When a run is evaluated: often at first, while the loss falls fast, and at a bounded cost.

An evaluation estimates the validation loss, generates a sample and publishes a snapshot. Its cost is measured in CPU
seconds, which other work on the machine does not inflate, and predicted as the median of the last few.
"""

import math
from collections import deque
from statistics import median
from typing import NamedTuple

from gptbox.train.budget import Budget

FIRST_SNAPSHOT_S = 9.0
"""Budget seconds from the first step within which the first snapshot is published."""
MAX_CPU_SHARE = 0.05
"""Largest share for evaluations, final ones included, of the CPU time that the run has on a quiet machine."""
_MAX_CONTENDED_CPU_SHARE = 0.25
"""Largest share for evaluations of the CPU time that the run receives when other work takes the rest."""
_MIN_EVALUATIONS = 26
"""Fewest evaluations of a run of at least _FULL_RUN_S, even above MAX_CPU_SHARE; shorter runs: proportionally fewer."""
_FULL_RUN_S = 300.0
_MAX_EVALUATIONS = 29
"""Most evaluations of a run, unless the run is so long that the last would be more than _MAX_GAP_S apart."""
_MAX_GAP_S = 600.0
_MIN_GAP_RATIO = 2.0
"""Shortest time between two evaluations, as a multiple of the duration of one."""
_OPEN_ENDED_GAP_S, _OPEN_ENDED_GAP_SHARE = 3.0, 0.04
"""Shortest time between evaluations of a run whose end is unknown: in seconds, and as a share of the time so far."""


class EvaluationCost(NamedTuple):
    """The cost of one evaluation."""

    seconds: float
    """Budget seconds, publishing included."""
    cpu_s: float
    estimate_s: float
    """Budget seconds of the loss estimate alone."""


class EvaluationSchedule:
    """Schedules evaluations by the fraction of the work done.

    Of n evaluations, the k-th is due at (k / n)^2 of the work. The rest is rescheduled after each evaluation, so that a
    delay is spread over the following ones.
    """

    def __init__(self, budget: Budget, exact_ratio: float) -> None:
        """`exact_ratio` is the number of tokens in an exact evaluation over that in an estimate."""
        self._budget, self._state, self._config = budget, budget.state, budget.config
        self._exact_ratio = exact_ratio
        self._costs: deque[EvaluationCost] = deque(maxlen=5)
        self._last_s = 0.0

    def begin(self, predicted: EvaluationCost) -> None:
        """Call before the first step of this process, with the predicted cost of an evaluation."""
        self._costs.append(predicted)
        self._last_s = self._budget.spent_s
        self._schedule_next()

    def record(self, cost: EvaluationCost) -> None:
        """Record an evaluation and schedule the next."""
        if self._state.evaluations == 0:
            self._costs.clear()  # drops the prediction
        self._costs.append(cost)
        self._state.evaluations += 1
        self._state.evaluation_cpu_s += cost.cpu_s
        self._last_s = self._budget.spent_s
        self._schedule_next()

    @property
    def expected_cost(self) -> EvaluationCost:
        """Expected cost of the next evaluation."""
        return EvaluationCost(*(median(values) for values in zip(*self._costs, strict=True)))

    def exact_s(self, snapshots: int) -> float:
        """Budget seconds needed to measure the exact loss of `snapshots` snapshots."""
        return snapshots * self.expected_cost.estimate_s * self._exact_ratio

    def _schedule_next(self) -> None:
        budget, state, cost = self._budget, self._state, self.expected_cost
        if math.isinf(budget.total_s):
            state.next_evaluation = 1.0
            return
        root = math.sqrt(budget.fraction_done)
        left = 1 - root
        min_count = left * _MIN_EVALUATIONS * min(1.0, budget.total_s / _FULL_RUN_S)
        max_count = max(_MAX_EVALUATIONS, 2 * budget.total_s / _MAX_GAP_S) - state.evaluations
        exact_cpu_s = cost.cpu_s * self.exact_s(2) / max(1e-9, cost.seconds)
        affordable_cpu_s = MAX_CPU_SHARE * budget.total_s * budget.threads - state.evaluation_cpu_s - exact_cpu_s
        count = max(1, math.ceil(min_count), min(int(max_count), int(affordable_cpu_s / max(1e-9, cost.cpu_s))))
        state.next_evaluation = (root + left / count) ** 2

    def is_due(self) -> bool:
        """Whether to evaluate before the next step."""
        budget, state, cost = self._budget, self._state, self.expected_cost
        if self._config.eval_every is not None:
            return state.step % self._config.eval_every == 0
        if budget.spent_s + 3 * cost.seconds > budget.available_s:
            return False  # the final evaluation is close
        if state.evaluations == 0 and budget.since_first_step_s >= max(0.5, FIRST_SNAPSHOT_S - cost.seconds):
            return True
        since_last_s = budget.spent_s - self._last_s
        if math.isinf(budget.total_s):
            by_share_s = cost.seconds / MAX_CPU_SHARE
            return since_last_s >= max(_OPEN_ENDED_GAP_S, by_share_s, _OPEN_ENDED_GAP_SHARE * budget.since_first_step_s)
        if since_last_s < _MIN_GAP_RATIO * cost.seconds or budget.fraction_done < (state.next_evaluation or 0.0):
            return False
        return state.evaluation_cpu_s + cost.cpu_s <= _MAX_CONTENDED_CPU_SHARE * budget.cpu_s
