"""Threads for one step."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Team:
    """Threads that wait for work, and the caller's own, which is the first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._work: list[SimpleQueue[Callable[[int], None] | None]] = [SimpleQueue() for _ in range(size - 1)]
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(rank,), name=f"engine-{rank}", daemon=True)
            for rank in range(1, size)
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self, rank: int) -> None:
        while self._work_once(rank):
            pass  # what the work referred to is not held while the next is waited for

    def _work_once(self, rank: int) -> bool:
        work = self._work[rank - 1].get()
        if work is None:
            return False
        try:
            work(rank)
        except BaseException as error:  # the caller's to handle
            self._done.put(error)
        else:
            self._done.put(None)
        return True

    def run(self, work: Callable[[int], None], size: int | None = None) -> None:
        """Call work(rank) for each rank below `size`, at once; an exception of any is raised when all are done."""
        others = (size or self.size) - 1
        for queue in self._work[:others]:
            queue.put(work)
        error: BaseException | None = None
        try:
            work(0)
        finally:
            for _ in range(others):
                error = self._done.get() or error
        if error is not None:
            raise error

    def close(self) -> None:
        for queue in self._work:
            queue.put(None)
        for thread in self._threads:
            thread.join()
