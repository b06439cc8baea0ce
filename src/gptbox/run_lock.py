"""The lock on a run's folder: one trainer at a time, and readers can tell whether there is one.

An flock: the kernel releases it however its holder ends, and it holds between containers on one machine.
"""

import os
import time
from pathlib import Path
from typing import IO

PATIENCE_S = 1.0
"""How long a trainer tries: a reader's look holds the lock for an instant."""


def acquire(path: Path) -> IO[bytes]:
    """Lock the file, creating it and its folder; closing the result releases the lock.

    Raises BlockingIOError where another process holds it.
    """
    import fcntl  # not on Windows, where web runs without this

    end = time.monotonic() + PATIENCE_S
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            # The folder was deleted between opening and locking: what we hold guards nothing.
            file.close()
        except BlockingIOError:
            file.close()
            if time.monotonic() >= end:
                raise
            time.sleep(0.02)


def is_held(path: Path) -> bool | None:
    """Whether a process holds the lock; None where that cannot be told: no such file, or no right to open it.

    Needs no more than a read-only mount.
    """
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return None
    return False
