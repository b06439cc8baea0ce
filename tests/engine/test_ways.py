import pytest

from gptbox.engine.ways import Way, Ways

ROWS, PRODUCTS = Way(False, 0), Way(True, 0)


def measured(ways: Ways, rows: int, way: Way, tokens_per_s: float, times: int = 4, seconds: float = 0.01) -> None:
    for _ in range(times):
        ways.measured(rows, way, tokens_per_s * seconds, seconds)


def test_the_way_that_was_the_fastest_one_lately_is_taken_and_the_others_now_and_then() -> None:
    ways = Ways(2, 0)
    for _ in range(4):
        assert ways.choose(3) == (ROWS, True)
        measured(ways, 3, ROWS, 100, 1)
        assert ways.choose(2) == (PRODUCTS, True)  # in turn, at first
        measured(ways, 2, PRODUCTS, 150, 1)
    taken = [ways.choose(3) for _ in range(200)]
    assert set(taken) == {(PRODUCTS, False), (ROWS, True)}
    assert taken.count((ROWS, True)) == 20
    assert [ways.choose(3) for _ in range(200)].count((ROWS, True)) == 4
    measured(ways, 3, PRODUCTS, 80, 20)
    assert [ways.choose(3) for _ in range(49)].count((PRODUCTS, True)) <= 1
    assert ways.choose(9) == (ROWS, True)  # of other numbers of rows nothing is known yet


def test_the_first_burst_of_a_way_is_not_counted() -> None:
    ways = Ways(2, 0)
    measured(ways, 1, ROWS, 100)
    measured(ways, 1, PRODUCTS, 1, 1)
    measured(ways, 1, PRODUCTS, 120, 3)
    assert ways.choose(1) == (PRODUCTS, False)


def test_a_way_that_makes_the_others_wait_is_left_at_once_and_taken_again_in_a_while() -> None:
    ways = Ways(2, 0)
    measured(ways, 1, ROWS, 100, 10)
    measured(ways, 1, PRODUCTS, 150, 10)
    measured(ways, 1, PRODUCTS, 80, 1)
    assert ways.choose(1) == (PRODUCTS, False)  # a little slower once says nothing
    measured(ways, 1, PRODUCTS, 1, 1, seconds=1)
    assert ways.choose(1) == (ROWS, False)
    trials = 0
    while ways.choose(1)[0] == ROWS:
        measured(ways, 1, PRODUCTS, 150, 1, seconds=0.002)
        trials += 1
    assert 5 < trials < 20


def test_all_slower_ways_are_tried_again_in_turn() -> None:
    ways = Ways(2, 5)
    for speed, way in enumerate(ways.possible(1)):
        measured(ways, 1, way, 100 + speed)
    taken = [ways.choose(1)[0] for _ in range(200 + 50 * 9)]
    counts = [taken.count(way) for way in ways.possible(1)]
    assert sum(counts[:3]) == 20 + 9
    assert min(counts[:3]) >= 9


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
    assert {ways.choose(1) for _ in range(100)} == {(ROWS, False)}
