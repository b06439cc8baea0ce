from collections.abc import Callable

import numpy as np
import pytest

from gptbox.engine.autotune import TRIAL_SHARE, Strategy, StrategyTuner

DATA_PARALLEL, TENSOR_PARALLEL = Strategy(False, 0), Strategy(True, 0)
DATA_PARALLEL_DRAFT, TENSOR_PARALLEL_DRAFT = Strategy(False, 5), Strategy(True, 5)
SLICE_S = 0.01


def record(tuner: StrategyTuner, rows: int, strategy: Strategy, tokens_per_s: float, times: int = 5) -> None:
    for _ in range(times):
        tuner.record(rows, strategy, tokens_per_s * SLICE_S, SLICE_S)


def settled(tuner: StrategyTuner) -> Strategy:
    """The strategy that gets a whole time slice; skips a trial that is due."""
    return next(strategy for strategy, share in (tuner.choose(1) for _ in range(10)) if share == 1)


def decode(tuner: StrategyTuner, seconds: float, speed: Callable[[Strategy], float]) -> dict[Strategy, float]:
    """The decoding time that each strategy got, for a machine whose speeds in tokens/s are known."""
    spent = dict.fromkeys(tuner.strategies(1), 0.0)
    while sum(spent.values()) < seconds:
        strategy, share = tuner.choose(1)
        tuner.record(1, strategy, speed(strategy) * share * SLICE_S, share * SLICE_S, share)
        spent[strategy] += share * SLICE_S
    return spent


def test_each_strategy_is_tried_a_few_times_first() -> None:
    tuner = StrategyTuner(2, 0)
    for strategy in [DATA_PARALLEL] * 4 + [TENSOR_PARALLEL] * 4:
        assert tuner.choose(3) == (strategy, TRIAL_SHARE)
        tuner.record(2, strategy, 100, 1)  # two and three rows share their timings
    assert tuner.choose(9) == (DATA_PARALLEL, TRIAL_SHARE)  # other numbers of rows have no timings yet


@pytest.mark.parametrize("fastest", [DATA_PARALLEL, TENSOR_PARALLEL, DATA_PARALLEL_DRAFT, TENSOR_PARALLEL_DRAFT])
def test_the_fastest_strategy_gets_nearly_all_the_time(fastest: Strategy) -> None:
    tuner = StrategyTuner(2, 5)
    spent = decode(tuner, 10, lambda strategy: 20_000 if strategy == fastest else 10_000)
    assert spent[fastest] > 9.6
    assert all(seconds > 0.03 for seconds in spent.values()), "slower ones are still tried"


def test_trials_cost_half_a_percent_each() -> None:
    tuner = StrategyTuner(2, 5)
    decode(tuner, 1, lambda strategy: 20_000 if strategy == TENSOR_PARALLEL else 2_000)
    spent = decode(tuner, 30, lambda strategy: 20_000 if strategy == TENSOR_PARALLEL else 2_000)
    assert all(0.05 < spent[each] < 0.2 for each in (DATA_PARALLEL, DATA_PARALLEL_DRAFT, TENSOR_PARALLEL_DRAFT))


def test_a_close_second_is_tried_more_often_than_a_slow_one() -> None:
    speeds = {DATA_PARALLEL: 20_000, TENSOR_PARALLEL: 19_000, DATA_PARALLEL_DRAFT: 2_000, TENSOR_PARALLEL_DRAFT: 2_000}
    spent = decode(StrategyTuner(2, 5), 20, speeds.__getitem__)
    assert spent[TENSOR_PARALLEL] > 4 * spent[DATA_PARALLEL_DRAFT]


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_machine_does_not_hide_the_fastest(seed: int) -> None:
    """Speeds as measured on a shared machine of two cores: a single burst of the fastest is often a slow one."""
    random = np.random.default_rng(seed)
    mean = {DATA_PARALLEL: 15_600, TENSOR_PARALLEL: 21_600, DATA_PARALLEL_DRAFT: 11_000, TENSOR_PARALLEL_DRAFT: 15_000}

    def speed(strategy: Strategy) -> float:
        preempted = strategy.tensor_parallel and random.random() < 0.05
        return float(mean[strategy] * random.normal(1, 0.15)) * (0.3 if preempted else 1)

    assert decode(StrategyTuner(2, 5), 10, speed)[TENSOR_PARALLEL] > 9


def test_a_change_of_the_machine_s_load_is_noticed() -> None:
    tuner = StrategyTuner(2, 0)
    decode(tuner, 5, lambda strategy: 15_000 if strategy == DATA_PARALLEL else 20_000)
    spent = decode(tuner, 5, lambda strategy: 15_000 if strategy == DATA_PARALLEL else 5_000)  # another process starts
    assert spent[DATA_PARALLEL] > 4.5
    spent = decode(tuner, 5, lambda strategy: 15_000 if strategy == DATA_PARALLEL else 20_000)  # and ends
    assert spent[TENSOR_PARALLEL] > 2.5


def test_the_first_burst_after_another_strategy_counts_little() -> None:
    tuner = StrategyTuner(2, 0)
    record(tuner, 1, DATA_PARALLEL, 100)
    record(tuner, 1, TENSOR_PARALLEL, 1, 1)
    record(tuner, 1, TENSOR_PARALLEL, 120, 3)
    assert settled(tuner) == TENSOR_PARALLEL


def test_cold_bursts_alone_still_count() -> None:
    tuner = StrategyTuner(2, 0)
    for _ in range(5):
        record(tuner, 1, DATA_PARALLEL, 100, 1)
        record(tuner, 1, TENSOR_PARALLEL, 150, 1)
    assert settled(tuner) == TENSOR_PARALLEL


def test_a_stalled_strategy_is_left_at_once_and_tried_again_after_some_seconds() -> None:
    tuner = StrategyTuner(2, 0)
    record(tuner, 1, DATA_PARALLEL, 100, 10)
    record(tuner, 1, TENSOR_PARALLEL, 150, 10)
    record(tuner, 1, TENSOR_PARALLEL, 80, 1)
    assert settled(tuner) == TENSOR_PARALLEL, "one slow burst says nothing"
    tuner.record(1, TENSOR_PARALLEL, 1, 1.0)
    assert settled(tuner) == DATA_PARALLEL
    waited = 0.0
    while tuner.choose(1) == (DATA_PARALLEL, 1.0):
        record(tuner, 1, DATA_PARALLEL, 100, 1)
        waited += SLICE_S
    assert 5 < waited < 25
    spent = decode(tuner, 10, lambda strategy: 100 if strategy == DATA_PARALLEL else 150)
    assert spent[TENSOR_PARALLEL] > 5


def test_a_trial_whose_bursts_give_no_timing_ends() -> None:
    tuner = StrategyTuner(2, 0)
    record(tuner, 1, DATA_PARALLEL, 100)
    record(tuner, 1, TENSOR_PARALLEL, 150)
    chosen = [tuner.choose(1)[0] for _ in range(50)]  # a single step each: never recorded
    assert chosen.count(DATA_PARALLEL) <= 2


def test_a_trial_is_for_its_number_of_rows() -> None:
    tuner = StrategyTuner(2, 5)
    for strategy in tuner.strategies(1):
        record(tuner, 1, strategy, 200 if strategy == DATA_PARALLEL_DRAFT else 100)
    for strategy in tuner.strategies(3):
        record(tuner, 3, strategy, 200 if strategy == TENSOR_PARALLEL else 100)
    while tuner.choose(1)[1] == 1:
        record(tuner, 1, DATA_PARALLEL_DRAFT, 200, 1)
    strategy, share = tuner.choose(3)
    assert (strategy in tuner.strategies(3), share) == (True, 1.0)


@pytest.mark.parametrize(
    ("threads", "draft", "rows", "expected"),
    [
        (1, 0, 1, {DATA_PARALLEL}),
        (1, 5, 1, {DATA_PARALLEL, DATA_PARALLEL_DRAFT}),
        (1, 5, 2, {DATA_PARALLEL}),
        (2, 5, 1, {DATA_PARALLEL, TENSOR_PARALLEL, DATA_PARALLEL_DRAFT, TENSOR_PARALLEL_DRAFT}),
        (2, 5, 2, {DATA_PARALLEL, TENSOR_PARALLEL, DATA_PARALLEL_DRAFT}),
        (2, 5, 3, {DATA_PARALLEL, TENSOR_PARALLEL}),
    ],
)
def test_drafts_are_for_threads_with_one_row(threads: int, draft: int, rows: int, expected: set[Strategy]) -> None:
    assert set(StrategyTuner(threads, draft).strategies(rows)) == expected


def test_a_single_strategy_is_no_trial() -> None:
    tuner = StrategyTuner(1, 0)
    assert {tuner.choose(1) for _ in range(100)} == {(DATA_PARALLEL, 1.0)}
