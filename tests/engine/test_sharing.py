from gptbox.engine.sharing import Sharing


def test_threads_share_work_in_the_way_that_was_the_faster_one_lately() -> None:
    sharing = Sharing(2)
    assert not sharing.products(3)
    sharing.measured(3, False, 100.0)
    assert sharing.products(2)  # the other way is tried once
    sharing.measured(2, True, 150.0)
    ways = [sharing.products(3) for _ in range(200)]
    assert ways.count(False) == 4  # and the slower one now and then
    for _ in range(20):
        sharing.measured(3, True, 50.0)
    assert [sharing.products(3) for _ in range(49)].count(True) <= 1
    assert not sharing.products(9)  # of other numbers of rows nothing is known yet


def test_a_single_thread_has_nobody_to_share_with() -> None:
    sharing = Sharing(1)
    sharing.measured(1, False, 1.0)
    assert not any(sharing.products(1) for _ in range(100))
