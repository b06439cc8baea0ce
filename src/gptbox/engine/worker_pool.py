"""The threads that share a decoding step."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class WorkerPool:
    """`size` threads: the caller's own, which has rank 0, and size - 1 that wait for work."""

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
            pass  # a method of its own, so that waiting keeps no reference to the last work

    def _work_once(self, rank: int) -> bool:
        work = self._work[rank - 1].get()
        if work is None:
            return False
        try:
            work(rank)
        except BaseException as error:  # run() raises it in the caller
            self._done.put(error)
        else:
            self._done.put(None)
        return True

    def run(self, work: Callable[[int], None], size: int | None = None) -> None:
        """Call work(rank) for each rank below `size` in parallel.

        Returns once all are done; raises one of their exceptions if any failed.
        """
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
        """End the threads and wait for them."""
        for queue in self._work:
            queue.put(None)
        for thread in self._threads:
            thread.join()
