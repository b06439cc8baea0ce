"""An exclusive lock on a file, and a check of whether a process holds it.

It uses flock(2): the kernel releases the lock even if its holder is killed, and it works between containers on one
machine.
"""

import os
import time
from pathlib import Path
from typing import IO

TIMEOUT_S = 1.0
"""How long `acquire` retries, because `is_held` takes the lock for a moment, too."""


def acquire(path: Path) -> IO[bytes]:
    """Lock the file, creating it and its folder. Closing the returned file releases the lock.

    Raises BlockingIOError if another process holds the lock for longer than TIMEOUT_S.
    """
    import fcntl  # missing on Windows, where the web server runs without locks

    deadline = time.monotonic() + TIMEOUT_S
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            # The folder was deleted between opening and locking: this lock guards nothing.
            file.close()
        except BlockingIOError:
            file.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def is_held(path: Path) -> bool | None:
    """Whether a process holds the lock; None if the file is missing or cannot be opened, or on Windows.

    Needs only read access, such as a read-only mount.
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
