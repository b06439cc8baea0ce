"""When a run is evaluated: often at first, as learning is fast, and at a bounded cost.

An evaluation estimates the validation loss, writes a sample and publishes a snapshot. Its cost is counted in CPU
seconds, which other work on the machine does not inflate, and expected to be the median of the last few.
"""

import math
from collections import deque
from statistics import median
from typing import NamedTuple

from gptbox.train.budget import Budget

FIRST_SNAPSHOT_S = 9.0
"""Budget seconds after the first step by which a first snapshot is published."""
EVALUATION_SHARE = 0.05
"""Of the CPU time that a run has on a quiet machine, the most for evaluations, those at the end included."""
_CONTENDED_SHARE = 0.25
"""And of the CPU time that it really gets, the most where other work takes the rest."""
_MIN_EVALUATIONS = 26
"""In a run of at least _FULL_RUN_S, even where they cost more than their share; fewer in a shorter run."""
_FULL_RUN_S = 300.0
_MAX_EVALUATIONS = 29
"""Unless the run is so long that the last ones would lie more than _MAX_GAP_S apart."""
_MAX_GAP_S = 600.0
_GAP = 2.0
"""Between two evaluations at least this many times what one takes."""
_ENDLESS_GAP_S, _ENDLESS_GAP = 3.0, 0.04
"""Where nobody knows when the run ends: the seconds between two evaluations, and their share of the time so far."""


class Cost(NamedTuple):
    """Of one evaluation."""

    seconds: float
    """Budget seconds, publishing included."""
    cpu_s: float
    estimate_s: float
    """Budget seconds of the estimate of the loss alone."""


class EvaluationSchedule:
    """Plans the evaluations of a run by the share of its work that is done.

    With n evaluations over the run, number k is due at (k / n)^2 of the work. What is left is planned anew after each
    one, so that a delay spreads over those that follow.
    """

    def __init__(self, budget: Budget, exact_ratio: float) -> None:
        """`exact_ratio` is how many times the tokens of an estimate an exact evaluation measures."""
        self._budget, self._progress, self._config = budget, budget.progress, budget.config
        self._exact_ratio = exact_ratio
        self._costs: deque[Cost] = deque(maxlen=5)
        self._last_s = 0.0

    def begin(self, guess: Cost) -> None:
        """Training begins in this process; `guess` is what an evaluation may cost."""
        self._costs.append(guess)
        self._last_s = self._budget.spent_s
        self._plan()

    def took(self, cost: Cost) -> None:
        """An evaluation was made; plan the next one."""
        if self._progress.evaluations == 0:
            self._costs.clear()  # the guess
        self._costs.append(cost)
        self._progress.evaluations += 1
        self._progress.evaluation_cpu_s += cost.cpu_s
        self._last_s = self._budget.spent_s
        self._plan()

    @property
    def expected(self) -> Cost:
        """What the next evaluation costs."""
        return Cost(*(median(values) for values in zip(*self._costs, strict=True)))

    def exact_s(self, snapshots: int) -> float:
        """Budget seconds to measure the exact loss of so many snapshots."""
        return snapshots * self.expected.estimate_s * self._exact_ratio

    def _plan(self) -> None:
        budget, p, cost = self._budget, self._progress, self.expected
        if math.isinf(budget.total_s):
            p.next_evaluation = 1.0
            return
        root = math.sqrt(budget.done)
        left = 1 - root
        fewest = left * _MIN_EVALUATIONS * min(1.0, budget.total_s / _FULL_RUN_S)
        most = max(_MAX_EVALUATIONS, 2 * budget.total_s / _MAX_GAP_S) - p.evaluations
        exact_cpu_s = cost.cpu_s * self.exact_s(2) / max(1e-9, cost.seconds)
        share_s = EVALUATION_SHARE * budget.total_s * budget.threads - p.evaluation_cpu_s - exact_cpu_s
        count = max(1, math.ceil(fewest), min(int(most), int(share_s / max(1e-9, cost.cpu_s))))
        p.next_evaluation = (root + left / count) ** 2

    def is_due(self) -> bool:
        """Whether to evaluate before the next step."""
        budget, p, cost = self._budget, self._progress, self.expected
        if self._config.eval_every is not None:
            return p.step % self._config.eval_every == 0
        if budget.spent_s + 3 * cost.seconds > budget.available_s:
            return False  # the one at the end comes soon enough
        if p.evaluations == 0 and budget.since_begun_s >= max(0.5, FIRST_SNAPSHOT_S - cost.seconds):
            return True
        since = budget.spent_s - self._last_s
        if math.isinf(budget.total_s):
            share = cost.seconds / EVALUATION_SHARE
            return since >= max(_ENDLESS_GAP_S, share, _ENDLESS_GAP * budget.since_begun_s)
        if since < _GAP * cost.seconds or budget.done < (p.next_evaluation or 0.0):
            return False
        return p.evaluation_cpu_s + cost.cpu_s <= _CONTENDED_SHARE * budget.cpu_s
