"""A map over threads, for work that does not hold Python's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """As `map`, with calls of `function` on `workers` threads; results come in the order of the items.

    The items are drawn on the caller's thread, up to 2 * workers + 1 ahead of the results, so that memory does not grow
    with their number. One item, or one worker, needs no thread. Raises what `function` or `items` raises.
    """
    items = iter(items)
    head = list(islice(items, 2))
    if workers == 1 or len(head) < 2:
        yield from map(function, chain(head, items))
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, "parallel_map") as executor:
        for item in chain(head, items):
            pending.append(executor.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
