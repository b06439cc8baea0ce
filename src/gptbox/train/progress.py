"""Showing people how training goes: a live line on a terminal, plain lines in a log."""

import sys
import time
from abc import ABC, abstractmethod
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from gptbox.run_folder import Status

LOG_EVERY_S = 10.0


def duration(seconds: float | None) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 1 h 05 min."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def describe(status: Status) -> str:
    """One line: step, losses, speed, time left."""
    steps = "" if status.steps is None else f"/{status.steps:,}"
    parts = [f"step {status.step:,}{steps}"]
    if status.train_loss is not None:
        parts.append(f"train {status.train_loss:.3f}")
    if (val_loss := _val_loss(status)) is not None:
        parts.append(f"val {val_loss}")
    if status.tokens_per_s is not None:
        parts.append(f"{status.tokens_per_s:,.0f} tokens/s")
    if status.eta_s is not None:
        parts.append(f"{duration(status.eta_s)} left")
    return " · ".join(parts)


def _val_loss(status: Status) -> str | None:
    """Exact with four digits, estimated with three."""
    if status.val_loss is not None:
        return f"{status.val_loss:.4f}"
    return None if status.val_loss_estimate is None else f"{status.val_loss_estimate:.3f}"


class Reporter(ABC):
    """What the trainer tells while it works."""

    @abstractmethod
    def say(self, sentence: str) -> None:
        """Something worth a line of its own."""

    @abstractmethod
    def start(self, status: Status) -> None:
        """Training begins."""

    @abstractmethod
    def step(self, status: Status) -> None:
        """About once a second."""

    @abstractmethod
    def evaluated(self, status: Status) -> None:
        """A validation loss was measured and a snapshot published."""

    @abstractmethod
    def finish(self, status: Status) -> None:
        """Training is over, finished or stopped."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027  (nothing to do in a log)
        """Leave the terminal as it was found."""


class LogReporter(Reporter):
    """Plain lines, as a container's log keeps them."""

    def __init__(self) -> None:
        self._next = 0.0

    def say(self, sentence: str) -> None:
        print(sentence, flush=True)

    def start(self, status: Status) -> None:
        self.say(f"Training {_model(status)}.")

    def step(self, status: Status) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_EVERY_S
            self.say(describe(status))

    def evaluated(self, status: Status) -> None:
        self._next = time.monotonic() + LOG_EVERY_S
        self.say(f"{describe(status)} · published {status.latest_snapshot}")

    def finish(self, status: Status) -> None:
        self.say(status.message)


class _Details(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields["details"]))


class TerminalReporter(Reporter):
    """One live line with a bar, and a line for each evaluation above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(30), _Details(), console=console)
        self._task = self._progress.add_task("training", total=1.0, details="", visible=False)
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, sentence: str) -> None:
        self._progress.console.print(sentence, highlight=False, markup=False)

    def _update(self, status: Status) -> None:
        total = status.elapsed_s + (status.eta_s or 0.0)
        done = status.elapsed_s / total if status.eta_s is not None and total > 0 else 0.0
        self._progress.update(self._task, completed=done, details=describe(status), visible=True)

    def start(self, status: Status) -> None:
        self.say(f"Training {_model(status)}.")
        self._update(status)

    def step(self, status: Status) -> None:
        self._update(status)

    def evaluated(self, status: Status) -> None:
        self.say(f"step {status.step:>6,} · val {_val_loss(status)} · published {status.latest_snapshot}")
        self._update(status)

    def finish(self, status: Status) -> None:
        self._update(status)
        self._progress.stop()
        self.say(status.message)


def _model(status: Status) -> str:
    return f"a {status.architecture} with {status.parameters or 0:,} parameters on {status.device}"


def make_reporter() -> Reporter:
    """For where standard output goes: a terminal or a log."""
    console = Console()
    return TerminalReporter(console) if console.is_terminal and sys.stdout.isatty() else LogReporter()
