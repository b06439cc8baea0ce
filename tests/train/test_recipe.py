"""Which configuration is chosen for a budget and a text."""

import pytest

from gptbox.datasets import health
from gptbox.train import recipe
from gptbox.train.config import TrainConfig
from gptbox.train.data_parallel import DataParallel


def choose(seconds: float, tokens: int = 1_000_000) -> TrainConfig:
    return recipe.choose_config(seconds, tokens, tokens // 10).config


def test_more_time_gives_a_larger_model_and_a_lower_loss() -> None:
    budgets = [6.5, 8.0, 30.0, 75.0, 290.0, 1740.0, 3500.0]
    sizes = [choose(seconds).model.parameters for seconds in budgets]
    assert sizes == sorted(sizes)
    assert sizes[0] < 150_000
    assert sizes[-1] > 2_000_000
    losses = [recipe.choose_config(seconds, 1_000_000, 100_000).expected_loss or 9.0 for seconds in budgets]
    assert losses == sorted(losses, reverse=True)


def test_a_loss_is_expected_only_of_measured_configurations() -> None:
    def expected(seconds: float, tokens: int = 1_000_000) -> float | None:
        return recipe.choose_config(seconds, tokens, tokens // 10).expected_loss

    assert expected(299) == pytest.approx(1.405)
    assert expected(3.0) is expected(7200.0) is None, "outside the measured range"
    assert expected(290, 200_000) is None, "a small text gets dropout"
    assert expected(290, 1_000) is None, "a tiny text gets a shorter context"


def test_a_small_text_gets_dropout() -> None:
    assert choose(290).dropout == 0.0
    assert choose(290, 400_000).dropout == choose(600).dropout == 0.05
    assert choose(290, 200_000).dropout > 0.1
    assert choose(290, 10_000).dropout > choose(290, 400_000).dropout


@pytest.mark.parametrize("tokens", [200, 700, 3_000])
def test_the_context_fits_a_tiny_text(tokens: int) -> None:
    config = recipe.choose_config(290, tokens, tokens // 10).config
    assert 8 <= config.model.context_length < tokens // 10
    assert config.ramp == ()


def test_a_lower_loss_is_expected_to_take_longer() -> None:
    times = [recipe.seconds_to_reach(loss) for loss in (2.5, 1.7, 1.5, 1.4, 1.0)]
    assert times == sorted(times)
    assert 1 < times[0] < 20
    assert times[-1] >= 3600


def test_the_measured_speed_is_plausible() -> None:
    data_parallel = DataParallel(1)
    speeds = [recipe.measure_speed(data_parallel) for _ in range(3)]
    assert all(0.01 < speed < 20 for speed in speeds)


def test_the_health_report_expects_what_the_recipes_do() -> None:
    """Its figures are its own, because datasets know nothing of training."""
    config = choose(300)
    assert config.model.context_length == health.CONTEXT_LENGTH
    read = 130e9 * 300 / (6 * config.model.parameters)
    assert read == pytest.approx(health.RUN_TOKENS, rel=0.25)
    for tokens, is_memorised in ((180_000, True), (1_000_000, False)):
        assert ("by heart" in health.outlook(tokens, tokens // 9, "character")[0]) == is_memorised
        assert (choose(300, tokens).dropout >= 0.25) == is_memorised
