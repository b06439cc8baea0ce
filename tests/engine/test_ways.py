import pytest

from gptbox.engine.ways import Way, Ways

ROWS, PRODUCTS = Way(False, 0), Way(True, 0)


def measured(ways: Ways, rows: int, way: Way, tokens_per_s: float, times: int = 3) -> None:
    for _ in range(times):
        ways.measured(rows, way, tokens_per_s)


def test_the_way_that_was_the_fastest_one_lately_is_taken_and_the_others_now_and_then() -> None:
    ways = Ways(2, 0)
    for _ in range(3):
        assert ways.choose(3) == (ROWS, True)
        ways.measured(3, ROWS, 100.0)
    assert ways.choose(2) == (PRODUCTS, True)  # the other way is tried at first, too
    measured(ways, 2, PRODUCTS, 150.0)
    taken = [ways.choose(3) for _ in range(200)]
    assert set(taken) == {(PRODUCTS, False), (ROWS, True)}
    assert taken.count((ROWS, True)) == 4
    measured(ways, 3, PRODUCTS, 80.0, 20)
    assert [ways.choose(3) for _ in range(49)].count((PRODUCTS, True)) <= 1
    assert ways.choose(9) == (ROWS, True)  # of other numbers of rows nothing is known yet


def test_of_the_first_trials_the_best_counts() -> None:
    ways = Ways(2, 0)
    measured(ways, 1, ROWS, 100.0)
    for tokens_per_s in (30.0, 120.0, 60.0):
        ways.measured(1, PRODUCTS, tokens_per_s)
    assert ways.choose(1) == (PRODUCTS, False)


def test_a_way_that_becomes_twice_as_slow_is_left_at_once_and_one_that_recovers_taken_again() -> None:
    ways = Ways(2, 0)
    measured(ways, 1, ROWS, 100.0)
    measured(ways, 1, PRODUCTS, 150.0)
    ways.measured(1, PRODUCTS, 80.0)
    assert ways.choose(1) == (PRODUCTS, False)  # a little slower once says nothing
    ways.measured(1, PRODUCTS, 20.0)
    assert ways.choose(1) == (ROWS, False)
    ways.measured(1, PRODUCTS, 150.0)
    assert ways.choose(1) == (PRODUCTS, False)


def test_all_slower_ways_are_tried_again_in_turn() -> None:
    ways = Ways(2, 5)
    for speed, way in enumerate(ways.possible(1)):
        measured(ways, 1, way, 100.0 + speed)
    taken = [ways.choose(1)[0] for _ in range(50 * 9)]
    assert [taken.count(way) for way in ways.possible(1)] == [3, 3, 3, 50 * 9 - 9]


@pytest.mark.parametrize(
    ("threads", "ahead", "rows", "expected"),
    [
        (1, 0, 1, {ROWS}),
        (1, 5, 1, {ROWS, Way(False, 5)}),
        (1, 5, 2, {ROWS}),
        (2, 5, 1, {ROWS, PRODUCTS, Way(False, 5), Way(True, 5)}),
        (2, 5, 2, {ROWS, PRODUCTS, Way(False, 5)}),
        (2, 5, 3, {ROWS, PRODUCTS}),
    ],
)
def test_a_draft_writes_for_rows_that_are_alone(threads: int, ahead: int, rows: int, expected: set[Way]) -> None:
    assert set(Ways(threads, ahead).possible(rows)) == expected


def test_where_there_is_one_way_it_is_taken() -> None:
    ways = Ways(1, 0)
    measured(ways, 1, ROWS, 1.0)
    assert {ways.choose(1) for _ in range(100)} == {(ROWS, False)}
