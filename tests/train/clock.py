"""Fake clocks: wall time and CPU time that a test advances."""

import pytest

from gptbox.train import budget, cpu_share


class Clock:
    """Replaces time.monotonic (`now`) and time.process_time (`cpu`); other work takes the share `busy` of each CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int = 1) -> None:
        self.now, self.cpu, self.busy, self.threads = 1000.0, 50.0, 0.0, threads
        for module in (budget, cpu_share):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
            monkeypatch.setattr(module.time, "process_time", lambda: self.cpu)

    def work(self, cpu_s: float) -> None:
        """Compute for `cpu_s` CPU seconds, summed over the threads."""
        self.cpu += cpu_s
        self.now += cpu_s / self.threads / (1 - self.busy)

    def wait(self, seconds: float) -> None:
        """Let wall time pass without work."""
        self.now += seconds
