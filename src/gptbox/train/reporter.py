"""Progress output of training: a live line on a terminal, plain lines in a log."""

import logging
import sys
import time
from abc import ABC, abstractmethod
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from gptbox.models.runs import Status
from gptbox.system import logs

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
_LOG_FIELDS = (
    "run", "step", "steps", "tokens", "elapsed_s", "eta_s", "train_loss", "val_loss", "val_loss_estimate",
    "tokens_per_s", "latest_snapshot",
)  # fmt: skip
"""Fields of the status in a line of a JSON log."""


def duration(seconds: float | None) -> str:
    """A readable duration: 8 s, 3 min 20 s, 1 h 05 min."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def describe(status: Status) -> str:
    """The status in one line: step, losses, speed, time left."""
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
    """The exact loss with four decimals, or else the estimate with three."""
    if status.val_loss is not None:
        return f"{status.val_loss:.4f}"
    return None if status.val_loss_estimate is None else f"{status.val_loss_estimate:.3f}"


def _log_fields(status: Status) -> dict[str, Any]:
    return {name: getattr(status, name) for name in _LOG_FIELDS}


class Reporter(ABC):
    """Logs the trainer's events. Updates of a terminal's live line are not logged."""

    def say(self, sentence: str) -> None:
        """Log a sentence."""
        log.info("%s", sentence)

    def start(self, status: Status) -> None:
        """Called when training starts."""
        model = f"a {status.architecture} with {status.parameters or 0:,} parameters on {status.device}"
        log.info("Training %s.", model, extra=_log_fields(status))

    @abstractmethod
    def step(self, status: Status) -> None:
        """Called about once per second."""

    @abstractmethod
    def evaluated(self, status: Status) -> None:
        """Called after a validation loss was measured and a snapshot published."""

    def finish(self, status: Status) -> None:
        """Called when training has ended, finished or stopped."""
        log.info("%s", status.message, extra=_log_fields(status))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027  (nothing to do in a log)
        """Restore the terminal."""


class LogReporter(Reporter):
    """A line every ten seconds, for a container's log."""

    def __init__(self) -> None:
        self._next = 0.0

    def step(self, status: Status) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_EVERY_S
            log.info("%s", describe(status), extra=_log_fields(status))

    def evaluated(self, status: Status) -> None:
        self._next = time.monotonic() + LOG_EVERY_S
        log.info("%s · published %s", describe(status), status.latest_snapshot, extra=_log_fields(status))


class _Details(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields["details"]))


class TerminalReporter(Reporter):
    """A live line with a progress bar, below the log.

    The line always fits one row: each log record, also one of `gptbox up`'s server, clears that row (logs.CLEAR_LINE),
    and the line is redrawn below the record.
    """

    def __init__(self, console: Console) -> None:
        bar = BarColumn(None, table_column=Column(ratio=1, min_width=4, max_width=30))
        details = _Details(table_column=Column(no_wrap=True, overflow="ellipsis"))
        self._progress = Progress(bar, details, console=console, refresh_per_second=4)
        self._task = self._progress.add_task("training", total=1.0, details="", visible=False)
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _update(self, status: Status) -> None:
        total = status.elapsed_s + (status.eta_s or 0.0)
        done = status.elapsed_s / total if status.eta_s is not None and total > 0 else 0.0
        self._progress.update(self._task, completed=done, details=describe(status), visible=True)

    def start(self, status: Status) -> None:
        super().start(status)
        self._update(status)

    def step(self, status: Status) -> None:
        self._update(status)

    def evaluated(self, status: Status) -> None:
        log.info("step %6s · val %s · published %s", f"{status.step:,}", _val_loss(status), status.latest_snapshot)
        self._update(status)

    def finish(self, status: Status) -> None:
        self._update(status)
        self._progress.stop()
        super().finish(status)


def make_reporter() -> Reporter:
    """The reporter for standard output, a terminal or a log."""
    return TerminalReporter(Console()) if logs.is_terminal(sys.stdout) and not logs.is_json() else LogReporter()
