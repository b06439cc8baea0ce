import threading

import pytest

from gptbox.engine.worker_pool import WorkerPool


def test_each_rank_runs_on_its_own_thread() -> None:
    pool, seen = WorkerPool(3), {}
    barrier = threading.Barrier(3)

    def work(rank: int) -> None:
        barrier.wait(5)
        seen[rank] = threading.current_thread()

    pool.run(work)
    assert sorted(seen) == [0, 1, 2]
    assert len(set(seen.values())) == 3
    assert seen[0] is threading.current_thread()
    pool.close()


def test_work_can_use_fewer_threads() -> None:
    pool, seen = WorkerPool(3), []
    pool.run(seen.append, 1)
    assert seen == [0]
    pool.close()


@pytest.mark.parametrize("failing", [0, 1])
def test_an_exception_on_any_thread_is_raised_and_the_pool_goes_on(failing: int) -> None:
    pool = WorkerPool(2)

    def work(rank: int) -> None:
        if rank == failing:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.run(work)
    pool.run(lambda rank: None)
    pool.close()
