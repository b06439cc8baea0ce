"""A full disk does not end a run: it is told once, and training goes on until there is space again."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gptbox.train.progress import Reporter


class Disk:
    """The disk that a run is written to."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.is_full = False
        """Whether something could not be written since the last checkpoint was."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around what writes: a full disk ends the block and raises nothing."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not self.is_full:
                self._reporter.say("The disk is full: nothing can be saved or published until there is space.")
            self.is_full = True
