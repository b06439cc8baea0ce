import pytest

from gptbox.engine.ways import Way, Ways

ROWS, PRODUCTS = Way(False, 0), Way(True, 0)


def test_the_way_that_was_the_fastest_one_lately_is_taken_and_the_others_now_and_then() -> None:
    ways = Ways(2, 0)
    assert ways.choose(3) == ROWS
    ways.measured(3, ROWS, 100.0)
    assert ways.choose(2) == PRODUCTS  # the other way is tried once
    ways.measured(2, PRODUCTS, 150.0)
    assert [ways.choose(3) for _ in range(200)].count(ROWS) == 4
    for _ in range(20):
        ways.measured(3, PRODUCTS, 50.0)
    assert [ways.choose(3) for _ in range(49)].count(PRODUCTS) <= 1
    assert ways.choose(9) == ROWS  # of other numbers of rows nothing is known yet


def test_all_slower_ways_are_tried_again_in_turn() -> None:
    ways = Ways(2, 5)
    for speed, way in enumerate(ways.possible(1)):
        ways.measured(1, way, 100.0 + speed)
    taken = [ways.choose(1) for _ in range(50 * 9)]
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
    ways.measured(1, ROWS, 1.0)
    assert {ways.choose(1) for _ in range(100)} == {ROWS}
