"""Keeps a run going on a full disk: warns once, and training continues until there is space again."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gptbox.train.reporter import Reporter


class DiskFullGuard:
    """Suppresses the errors of a full disk, and remembers whether there was one."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.is_full = False
        """Whether a write has failed since the last saved checkpoint."""

    @contextmanager
    def suppress_full(self) -> Iterator[None]:
        """Context for writing: a full disk ends the block without an exception; other errors are raised."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not self.is_full:
                self._reporter.say("The disk is full: nothing can be saved or published until there is space.")
            self.is_full = True
