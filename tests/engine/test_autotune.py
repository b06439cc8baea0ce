from collections.abc import Callable

import numpy as np
import pytest

from gptbox.engine.autotune import TRIAL_SHARE, Strategy, StrategyTuner

ROWS, PRODUCTS = Strategy(False, 0), Strategy(True, 0)
ROWS_DRAFT, PRODUCTS_DRAFT = Strategy(False, 5), Strategy(True, 5)
SLICE_S = 0.01


def record(tuner: StrategyTuner, rows: int, strategy: Strategy, tokens_per_s: float, times: int = 5) -> None:
    for _ in range(times):
        tuner.record(rows, strategy, tokens_per_s * SLICE_S, SLICE_S)


def settled(tuner: StrategyTuner) -> Strategy:
    """The strategy of a whole time slice: a trial that is due goes by, unrecorded."""
    return next(strategy for strategy, share in (tuner.choose(1) for _ in range(10)) if share == 1)


def decode(tuner: StrategyTuner, seconds: float, speed: Callable[[Strategy], float]) -> dict[Strategy, float]:
    """The decoding time that each strategy got, for a machine whose speeds in tokens/s are known."""
    spent = dict.fromkeys(tuner.strategies(1), 0.0)
    while sum(spent.values()) < seconds:
        strategy, share = tuner.choose(1)
        tuner.record(1, strategy, speed(strategy) * share * SLICE_S, share * SLICE_S, share)
        spent[strategy] += share * SLICE_S
    return spent


def test_each_strategy_is_tried_in_a_row_first() -> None:
    tuner = StrategyTuner(2, 0)
    for strategy in [ROWS] * 4 + [PRODUCTS] * 4:
        assert tuner.choose(3) == (strategy, TRIAL_SHARE)
        tuner.record(2, strategy, 100, 1)  # two and three rows are of one size
    assert tuner.choose(9) == (ROWS, TRIAL_SHARE)  # nothing is known of other numbers of rows yet


@pytest.mark.parametrize("fastest", [ROWS, PRODUCTS, ROWS_DRAFT, PRODUCTS_DRAFT])
def test_the_fastest_strategy_gets_nearly_all_the_time(fastest: Strategy) -> None:
    tuner = StrategyTuner(2, 5)
    spent = decode(tuner, 10, lambda strategy: 20_000 if strategy == fastest else 10_000)
    assert spent[fastest] > 9.6
    assert all(seconds > 0.03 for seconds in spent.values()), "slower ones are still tried"


def test_trials_cost_half_a_percent_each() -> None:
    tuner = StrategyTuner(2, 5)
    decode(tuner, 1, lambda strategy: 20_000 if strategy == PRODUCTS else 2_000)
    spent = decode(tuner, 30, lambda strategy: 20_000 if strategy == PRODUCTS else 2_000)
    assert all(0.05 < spent[each] < 0.2 for each in (ROWS, ROWS_DRAFT, PRODUCTS_DRAFT))


def test_a_close_second_is_tried_more_often_than_a_slow_one() -> None:
    speeds = {ROWS: 20_000, PRODUCTS: 19_000, ROWS_DRAFT: 2_000, PRODUCTS_DRAFT: 2_000}
    spent = decode(StrategyTuner(2, 5), 20, speeds.__getitem__)
    assert spent[PRODUCTS] > 4 * spent[ROWS_DRAFT]


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_machine_does_not_hide_the_fastest(seed: int) -> None:
    """Speeds as measured on a shared machine of two cores: single bursts of the fastest are often the slower ones."""
    random = np.random.default_rng(seed)
    mean = {ROWS: 15_600, PRODUCTS: 21_600, ROWS_DRAFT: 11_000, PRODUCTS_DRAFT: 15_000}

    def speed(strategy: Strategy) -> float:
        preempted = strategy.tensor_parallel and random.random() < 0.05
        return float(mean[strategy] * random.normal(1, 0.15)) * (0.3 if preempted else 1)

    assert decode(StrategyTuner(2, 5), 10, speed)[PRODUCTS] > 9


def test_a_change_of_the_machine_is_noticed() -> None:
    tuner = StrategyTuner(2, 0)
    decode(tuner, 5, lambda strategy: 15_000 if strategy == ROWS else 20_000)
    spent = decode(tuner, 5, lambda strategy: 15_000 if strategy == ROWS else 5_000)  # another process has come
    assert spent[ROWS] > 4.5
    spent = decode(tuner, 5, lambda strategy: 15_000 if strategy == ROWS else 20_000)  # and gone
    assert spent[PRODUCTS] > 2.5


def test_the_first_burst_after_another_strategy_counts_little() -> None:
    tuner = StrategyTuner(2, 0)
    record(tuner, 1, ROWS, 100)
    record(tuner, 1, PRODUCTS, 1, 1)
    record(tuner, 1, PRODUCTS, 120, 3)
    assert settled(tuner) == PRODUCTS


def test_bursts_that_always_follow_another_strategy_are_counted_all_the_same() -> None:
    tuner = StrategyTuner(2, 0)
    for _ in range(5):
        record(tuner, 1, ROWS, 100, 1)
        record(tuner, 1, PRODUCTS, 150, 1)
    assert settled(tuner) == PRODUCTS


def test_a_stall_is_left_at_once_and_tried_again_after_some_seconds() -> None:
    tuner = StrategyTuner(2, 0)
    record(tuner, 1, ROWS, 100, 10)
    record(tuner, 1, PRODUCTS, 150, 10)
    record(tuner, 1, PRODUCTS, 80, 1)
    assert settled(tuner) == PRODUCTS, "one slow burst says nothing"
    tuner.record(1, PRODUCTS, 1, 1.0)
    assert settled(tuner) == ROWS
    waited = 0.0
    while tuner.choose(1) == (ROWS, 1.0):
        record(tuner, 1, ROWS, 100, 1)
        waited += SLICE_S
    assert 5 < waited < 25
    spent = decode(tuner, 10, lambda strategy: 100 if strategy == ROWS else 150)
    assert spent[PRODUCTS] > 5


def test_a_trial_whose_bursts_give_no_timing_ends() -> None:
    tuner = StrategyTuner(2, 0)
    record(tuner, 1, ROWS, 100)
    record(tuner, 1, PRODUCTS, 150)
    taken = [tuner.choose(1)[0] for _ in range(50)]  # a single step each: never recorded
    assert taken.count(ROWS) <= 2


def test_a_trial_is_for_its_number_of_rows() -> None:
    tuner = StrategyTuner(2, 5)
    for strategy in tuner.strategies(1):
        record(tuner, 1, strategy, 200 if strategy == ROWS_DRAFT else 100)
    for strategy in tuner.strategies(3):
        record(tuner, 3, strategy, 200 if strategy == PRODUCTS else 100)
    while tuner.choose(1)[1] == 1:
        record(tuner, 1, ROWS_DRAFT, 200, 1)
    strategy, share = tuner.choose(3)
    assert (strategy in tuner.strategies(3), share) == (True, 1.0)


@pytest.mark.parametrize(
    ("threads", "draft", "rows", "expected"),
    [
        (1, 0, 1, {ROWS}),
        (1, 5, 1, {ROWS, ROWS_DRAFT}),
        (1, 5, 2, {ROWS}),
        (2, 5, 1, {ROWS, PRODUCTS, ROWS_DRAFT, PRODUCTS_DRAFT}),
        (2, 5, 2, {ROWS, PRODUCTS, ROWS_DRAFT}),
        (2, 5, 3, {ROWS, PRODUCTS}),
    ],
)
def test_a_draft_is_for_threads_with_one_row(threads: int, draft: int, rows: int, expected: set[Strategy]) -> None:
    assert set(StrategyTuner(threads, draft).strategies(rows)) == expected


def test_a_single_strategy_is_no_trial() -> None:
    tuner = StrategyTuner(1, 0)
    assert {tuner.choose(1) for _ in range(100)} == {(ROWS, 1.0)}
