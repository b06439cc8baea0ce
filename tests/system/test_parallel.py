"""`parallel_map` gives what `map` gives, on several threads, and reads only a little ahead."""

import threading
from collections.abc import Iterator

import pytest

from gptbox.system.parallel import parallel_map


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_results_are_in_the_order_of_the_items(workers: int, count: int) -> None:
    assert list(parallel_map(lambda item: item * item, range(count), workers)) == [i * i for i in range(count)]


def test_calls_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=30)
    assert list(parallel_map(lambda item: together.wait() >= 0 and item, [1, 2, 3], 3)) == [1, 2, 3]


def test_items_are_drawn_a_little_ahead_on_the_thread_of_the_caller() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            assert threading.current_thread() is threading.main_thread()
            drawn.append(i)
            yield i

    results = parallel_map(lambda item: item, items(), 2)
    for i, result in enumerate(results):
        assert result == i
        assert len(drawn) <= i + 2 * 2 + 1


def test_an_error_of_a_call_reaches_the_caller() -> None:
    def fail_at_three(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = parallel_map(fail_at_three, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
