"""Both clocks of a run, turned by the test."""

import pytest

from gptbox.train import budget, cpu_share


class Clock:
    """`now` and `cpu` are seconds; `busy` is the share of the CPU that other work takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int = 1) -> None:
        self.now, self.cpu, self.busy, self.threads = 1000.0, 50.0, 0.0, threads
        for module in (budget, cpu_share):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
            monkeypatch.setattr(module.time, "process_time", lambda: self.cpu)

    def work(self, cpu_s: float) -> None:
        """Compute for CPU seconds of all threads together."""
        self.cpu += cpu_s
        self.now += cpu_s / self.threads / (1 - self.busy)

    def wait(self, seconds: float) -> None:
        """Let time pass without work."""
        self.now += seconds
