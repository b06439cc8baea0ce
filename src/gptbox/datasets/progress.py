"""Progress of long operations on a text: silent for two seconds, then a bar on a terminal, or lines in a log."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

DELAY_S = 2.0
"""Seconds before the first report."""
LOG_INTERVAL_S = 10.0

ProgressCallback = Callable[[str, int, int], None]
"""Called often during an operation with its name (such as "Reading letters"), the amount done and the total."""


def no_progress(operation: str, done: int, total: int) -> None:
    """Report nothing."""


class ProgressLines:
    """Reports progress in a line every LOG_INTERVAL_S: "Reading letters: 35 %, about 12 s left"."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._operation, self._done, self._started, self._next_report = "", 0, 0.0, 0.0

    def __call__(self, operation: str, done: int, total: int) -> None:
        now = self._clock()
        if operation != self._operation or done < self._done:
            self._operation, self._started, self._next_report = operation, now, now + DELAY_S
        self._done = done
        if now >= self._next_report and 0 < done < total:
            self._next_report = now + LOG_INTERVAL_S
            seconds_left = (now - self._started) * (total - done) / done
            self._say(f"{operation}: {100 * done // total} %, about {math.ceil(seconds_left)} s left")


class ProgressBar:
    """Reports progress on a terminal, with a live bar for each operation."""

    def __init__(self, exit_stack: ExitStack) -> None:
        """Closing `exit_stack` removes the bars from the screen."""
        self._started = time.monotonic()
        self._exit_stack = exit_stack
        self._progress: Progress | None = None

    def __call__(self, operation: str, done: int, total: int) -> None:
        if self._progress is None:
            if time.monotonic() < self._started + DELAY_S:
                return
            # Imported here, because most texts are processed in less time than the import takes.
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeRemainingColumn())
            self._progress = self._exit_stack.enter_context(Progress(*columns, transient=True))
        task = next((task.id for task in self._progress.tasks if task.description == operation), None)
        if task is None:
            task = self._progress.add_task(operation)
        self._progress.update(task, completed=done, total=total)


@contextmanager
def show_progress() -> Iterator[ProgressCallback]:
    """Report progress on standard output: a bar on a terminal, lines elsewhere."""
    with ExitStack() as exit_stack:
        yield ProgressBar(exit_stack) if sys.stdout.isatty() else ProgressLines(lambda line: print(line, flush=True))
