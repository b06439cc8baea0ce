"""Showing that a long text is being worked on: nothing for two seconds, then a live bar, or a log's plain lines."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

QUIET_S = 2.0
LOG_EVERY_S = 10.0

Watch = Callable[[str, int, int], None]
"""Called often while something is done: with what ("Reading letters"), how much is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """Watches nothing."""


class Lines:
    """A line now and then: "Reading letters: 35 %, about 12 s left"."""

    def __init__(self, say: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._what, self._done, self._began, self._next = "", 0, 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if what != self._what or done < self._done:
            self._what, self._began, self._next = what, now, now + QUIET_S
        self._done = done
        if now >= self._next and 0 < done < total:
            self._next = now + LOG_EVERY_S
            left = (now - self._began) * (total - done) / done
            self._say(f"{what}: {100 * done // total} %, about {math.ceil(left)} s left")


class Bar:
    """A live line on a terminal for each thing that is done."""

    def __init__(self, end: ExitStack) -> None:
        """Leaving `end` takes the lines off the screen again."""
        self._began = time.monotonic()
        self._end = end
        self._progress: Progress | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._progress is None:
            if time.monotonic() < self._began + QUIET_S:
                return
            # Imported here: the short texts that most people have are ready before this would be.
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeRemainingColumn())
            self._progress = self._end.enter_context(Progress(*columns, transient=True))
        task = next((task.id for task in self._progress.tasks if task.description == what), None)
        if task is None:
            task = self._progress.add_task(what)
        self._progress.update(task, completed=done, total=total)


@contextmanager
def shown() -> Iterator[Watch]:
    """For where standard output goes: a bar on a terminal, lines in a log."""
    with ExitStack() as end:
        yield Bar(end) if sys.stdout.isatty() else Lines(lambda line: print(line, flush=True))
