"""How much of its CPUs training really gets, and what to say where other work takes the rest."""

import time
from collections import deque

_WINDOW_S = 10.0
_LOW, _NORMAL = 0.6, 0.75
"""Training alone on its CPUs gets 0.85 to 1: threads wait for each other, and for the disk."""


class CpuShare:
    """CPU time of this process as a share of what its threads could have had; to be sampled about once a second."""

    def __init__(self, cpus: float) -> None:
        """`cpus` is how many CPUs this process may use at most, fractions of a quota included; with 0 none is low."""
        self.cpus = cpus
        self.is_low = False
        self._samples = deque([(time.monotonic(), time.process_time())])

    def sample(self) -> None:
        """Take the next sample; `is_low` changes where the share of the last ten seconds has."""
        now = time.monotonic()
        self._samples.append((now, time.process_time()))
        while self._samples[1][0] <= now - _WINDOW_S:
            self._samples.popleft()
        if now - self._samples[0][0] >= _WINDOW_S / 2:
            self.is_low = self.recent < (_NORMAL if self.is_low else _LOW)

    @property
    def recent(self) -> float:
        """Over the last ten seconds, 0 to 1."""
        (began, cpu), (now, cpu_now) = self._samples[0], self._samples[-1]
        return self.of(cpu_now - cpu, now - began)

    def of(self, cpu_s: float, wall_s: float) -> float:
        """Of some time, 0 to 1."""
        return min(1.0, cpu_s / max(1e-9, wall_s * self.cpus))

    def is_low_over(self, cpu_s: float, wall_s: float) -> bool:
        """Whether the share of a whole run was low."""
        return wall_s > _WINDOW_S and self.of(cpu_s, wall_s) < _LOW


def slowed(share: float, clock: str) -> str:
    """What to say while training gets this share of its CPUs."""
    so = "so it learns less than planned" if clock == "wall" else "so it takes longer than planned"
    return f"Visitors or other programs are busy: training gets {percent(share)} of its processor time, {so}."


def was_slowed(share: float, clock: str) -> str:
    """What to say of a whole run that got this share."""
    said = f"Training got only {percent(share)} of its processor time, because visitors or other programs were busy"
    if clock == "cpu":
        return f"{said}; it took longer for it."
    return (
        f"{said}, and learned less than planned. Raise the minutes to go on; with TRAIN_CLOCK=cpu they count processor "
        "time, so that a busy machine makes a run longer, not worse."
    )


def percent(share: float) -> str:
    return f"{max(1, round(100 * share))} %"
