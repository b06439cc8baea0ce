"""Online autotuning: which execution strategy decodes fastest, on this machine, right now.

A burst is one call of `decode_steps`: the decoding steps of one time slice.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

TRIAL_SHARE = 0.3
"""Fraction of a time slice that a trial gets: a preempted thread can stall all others at a barrier."""
_FIRST_TRIALS = 4
"""Consecutive bursts of each strategy before any other choice."""
_TRIAL_BURSTS = 2
"""Bursts of each later trial: the first one is cold."""
_COLD_WEIGHT = 0.1
"""Weight of a burst that follows another strategy's: it also pays for waking threads and filling caches."""
_EXPLORATION = 0.005
"""Fraction of the time that trials of one slower strategy may cost."""
_MIN_INTERVAL_S = 0.1
"""Minimum decoding time between two trials of a strategy, however cheap."""
_DECAY = 0.9
"""Factor by which each burst decays the weight of earlier ones."""
_MAX_COUNTED_S = 0.1
"""Cap on the time that one burst counts for, so that a strategy that stalled once is soon trusted again."""


class Strategy(NamedTuple):
    """How threads share a decoding step."""

    tensor_parallel: bool
    """Whether threads share each matrix product; else each thread decodes rows of its own (data parallel)."""
    num_draft_tokens: int
    """Tokens drafted for the model to verify in one pass (speculative decoding); only where a thread has one row."""


@dataclass
class _Speed:
    """Decayed sums of tokens and of seconds, so that each burst is weighted by its duration."""

    tokens: float = 0.0
    seconds: float = 0.0
    bursts: int = 0
    next_trial_s: float = 0.0
    """When the strategy's next trial is due, on the tuner's clock of decoding time."""

    def add(self, tokens: float, seconds: float, weight: float) -> None:
        self.bursts += 1
        if self.bursts == 1:
            return  # it also pays for first-touch page faults
        counted = min(seconds * weight, _MAX_COUNTED_S)
        self.tokens = _DECAY * self.tokens + tokens * counted / seconds
        self.seconds = _DECAY * self.seconds + counted

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def seconds_for(self, tokens: float) -> float:
        return tokens * self.seconds / self.tokens if self.tokens else 0.0


class StrategyTuner:
    """Chooses the strategy of each burst of decoding steps by the speeds it has measured.

    Data parallelism needs no synchronisation and tolerates other load. Tensor parallelism decodes a single sequence
    faster where each core's share of the weights then stays in its cache, but threads meet at barriers in each layer
    and wait for one that was preempted. A draft saves memory traffic and costs computation. The fastest depends on the
    model, the machine and its load, so slower strategies are tried again: the less a trial costs, the sooner.
    """

    def __init__(self, threads: int, num_draft_tokens: int) -> None:
        """`num_draft_tokens` is 0 without a draft model."""
        self._threads = threads
        self._num_draft_tokens = num_draft_tokens
        self._speeds: defaultdict[tuple[int, Strategy], _Speed] = defaultdict(_Speed)
        """By the bit length of the number of rows, as similar numbers have similar speeds, and by strategy."""
        self._clock_s = 0.0
        """Decoding time measured so far."""
        self._trial: tuple[int, Strategy] | None = None
        self._bursts_left = 0
        """Remaining bursts of the current trial."""
        self._previous: Strategy | None = None

    def strategies(self, rows: int) -> list[Strategy]:
        """The strategies to choose from for this number of rows."""
        result = [Strategy(False, 0)]
        if self._threads > 1:
            result.append(Strategy(True, 0))
        if self._num_draft_tokens:
            if rows <= self._threads:
                result.append(Strategy(False, self._num_draft_tokens))
            if rows == 1 < self._threads:
                result.append(Strategy(True, self._num_draft_tokens))
        return result

    def choose(self, rows: int) -> tuple[Strategy, float]:
        """The strategy of the next burst, and the fraction of a time slice it should get (less than 1 in a trial)."""
        strategies, size = self.strategies(rows), rows.bit_length()
        if len(strategies) == 1:
            return strategies[0], 1.0
        for strategy in strategies:
            if self._speeds[size, strategy].bursts < _FIRST_TRIALS:
                return strategy, TRIAL_SHARE
        best = self._fastest(rows)
        if self._bursts_left == 0:
            due = min(
                (each for each in strategies if each != best), key=lambda each: self._speeds[size, each].next_trial_s
            )
            if self._speeds[size, due].next_trial_s > self._clock_s:
                return best, 1.0
            self._speeds[size, due].next_trial_s = self._clock_s + _MIN_INTERVAL_S
            self._trial, self._bursts_left = (size, due), _TRIAL_BURSTS
        self._bursts_left -= 1
        if self._trial is not None and self._trial[0] == size and self._trial[1] in strategies:
            return self._trial[1], TRIAL_SHARE
        return best, 1.0  # the number of rows changed amid the trial

    def record(self, rows: int, strategy: Strategy, tokens: float, seconds: float, share: float = 1.0) -> None:
        """Record a burst that decoded `tokens` in `seconds`; `share` is what `choose` returned."""
        size = rows.bit_length()
        speed = self._speeds[size, strategy]
        cold = self._previous != strategy and seconds < _MAX_COUNTED_S
        # A trial's short burst counts like a whole time slice.
        speed.add(tokens, seconds, (_COLD_WEIGHT if cold else 1.0) / share)
        self._clock_s += seconds
        self._previous = strategy
        best = self._fastest(rows)
        if strategy != best:
            lost_s = seconds - self._speeds[size, best].seconds_for(tokens)
            wait_s = min(max(lost_s, 0.0), _MAX_COUNTED_S) / _EXPLORATION
            speed.next_trial_s = max(speed.next_trial_s, self._clock_s) + wait_s

    def _fastest(self, rows: int) -> Strategy:
        return max(self.strategies(rows), key=lambda each: self._speeds[rows.bit_length(), each].tokens_per_s)
