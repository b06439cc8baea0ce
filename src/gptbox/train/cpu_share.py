"""Measures the share of its CPUs that training receives, and reports when other work takes the rest."""

import time
from collections import deque

_WINDOW_S = 10.0
_LOW, _NORMAL = 0.6, 0.75
"""Hysteresis: the share is low from below `_LOW` until it reaches `_NORMAL`. Training alone on its CPUs receives
0.85 to 1: threads wait for each other and for the disk."""


class CpuShare:
    """CPU time of this process as a share of what its CPUs offer; to be sampled about once per second."""

    def __init__(self, cpus: float) -> None:
        """`cpus` is how many CPUs this process may use, in fractions under a quota; 0 disables the measurement."""
        self.cpus = cpus
        self.is_low = False
        self._samples = deque([(time.monotonic(), time.process_time())])

    def sample(self) -> None:
        """Take a sample, and update `is_low` by the share of the last ten seconds."""
        now = time.monotonic()
        self._samples.append((now, time.process_time()))
        while self._samples[1][0] <= now - _WINDOW_S:
            self._samples.popleft()
        if now - self._samples[0][0] >= _WINDOW_S / 2:
            self.is_low = self.recent < (_NORMAL if self.is_low else _LOW)

    @property
    def recent(self) -> float:
        """Share over the last ten seconds, 0 to 1."""
        (began, began_cpu), (now, now_cpu) = self._samples[0], self._samples[-1]
        return self.over(now_cpu - began_cpu, now - began)

    def over(self, cpu_s: float, wall_s: float) -> float:
        """Share in an interval of `wall_s` seconds that gave `cpu_s` CPU seconds, 0 to 1."""
        return min(1.0, cpu_s / max(1e-9, wall_s * self.cpus))

    def is_low_over(self, cpu_s: float, wall_s: float) -> bool:
        """Whether the share over a whole run was low; false for runs too short to tell."""
        return wall_s > _WINDOW_S and self.over(cpu_s, wall_s) < _LOW


def slowdown_warning(share: float, clock: str) -> str:
    """The message while training receives only this share of its CPUs."""
    consequence = "so it learns less than planned" if clock == "wall" else "so it takes longer than planned"
    return f"Visitors or other programs are busy: training gets {percent(share)} of its processor time, {consequence}."


def slowdown_summary(share: float, clock: str) -> str:
    """The final message on a run that received only this share of its CPUs."""
    cause = f"Training got only {percent(share)} of its processor time, because visitors or other programs were busy"
    if clock == "cpu":
        return f"{cause}, so it took longer."
    return (
        f"{cause}, and learned less than planned. Raise the minutes to go on; with TRAIN_CLOCK=cpu they count "
        "processor time, so that a busy machine makes a run longer, not worse."
    )


def percent(share: float) -> str:
    return f"{max(1, round(100 * share))} %"
