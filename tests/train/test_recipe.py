"""Which configuration is chosen for a budget, a text and its tokenizer."""

import pytest

from gptbox.datasets import health
from gptbox.tokenizers import TOKENIZERS
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer
from gptbox.train import recipe
from gptbox.train.config import TINY_SHAKESPEARE_CHARACTERS, TrainConfig
from gptbox.train.data_parallel import DataParallel

CHARACTERS = CharTokenizer([chr(33 + i) for i in range(TINY_SHAKESPEARE_CHARACTERS)])
SUBWORDS = BPETokenizer([bytes((i,)) for i in range(256)])


def choose(seconds: float, tokens: int = 1_000_000) -> TrainConfig:
    return recipe.choose_config(seconds, tokens, tokens // 10, CHARACTERS).config


@pytest.mark.parametrize("tokenizer", [CHARACTERS, SUBWORDS])
def test_more_time_gives_a_larger_model_and_a_lower_loss(tokenizer: CharTokenizer | BPETokenizer) -> None:
    budgets = [6.5, 8.0, 30.0, 75.0, 290.0, 1740.0, 3500.0]
    chosen = [recipe.choose_config(seconds, 4_000_000, 400_000, tokenizer) for seconds in budgets]
    sizes = [choice.config.model.parameters for choice in chosen]
    assert sizes == sorted(sizes)
    assert sizes[0] < 200_000
    assert sizes[-1] > 2_000_000
    losses = [choice.expected_loss.nats_per_letter for choice in chosen if choice.expected_loss is not None]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) > 3


def test_a_loss_is_expected_only_of_measured_configurations() -> None:
    def expected(seconds: float, tokens: int = 1_000_000) -> recipe.ExpectedLoss | None:
        return recipe.choose_config(seconds, tokens, tokens // 10, CHARACTERS).expected_loss

    loss = expected(299)
    assert loss is not None
    assert loss.text == "Tiny Shakespeare"
    assert loss.nats_per_letter == pytest.approx(1.405)
    assert expected(3.0) is expected(7200.0) is None, "outside the measured range"
    assert expected(290, 200_000) is None, "a small text gets dropout"
    assert expected(290, 1_000) is None, "a tiny text gets a shorter context"


@pytest.mark.parametrize("tokenizer", [CHARACTERS, ByteTokenizer(), SUBWORDS])
def test_the_model_has_the_vocabulary_of_the_text(tokenizer: CharTokenizer | ByteTokenizer | BPETokenizer) -> None:
    chosen = recipe.choose_config(60, 4_000_000, 400_000, tokenizer)
    assert chosen.config.model.vocab_size == tokenizer.vocab_size
    assert chosen.expected_loss is not None
    assert chosen.expected_loss.text == recipe.measured_losses(tokenizer).text


def test_the_losses_of_each_tokenizer_were_measured() -> None:
    assert set(recipe._MEASURED) == set(TOKENIZERS)


def test_a_small_text_gets_dropout() -> None:
    assert choose(290).dropout == 0.0
    assert choose(290, 400_000).dropout == choose(600).dropout == 0.05
    assert choose(290, 200_000).dropout > 0.1
    assert choose(290, 10_000).dropout > choose(290, 400_000).dropout


@pytest.mark.parametrize("tokens", [200, 700, 3_000])
def test_the_context_fits_a_tiny_text(tokens: int) -> None:
    config = choose(290, tokens)
    assert 8 <= config.model.context_length < tokens // 10
    assert config.ramp == ()


@pytest.mark.parametrize("tokenizer", [CHARACTERS, SUBWORDS])
def test_a_lower_loss_is_expected_to_take_longer(tokenizer: CharTokenizer | BPETokenizer) -> None:
    times = [recipe.measured_losses(tokenizer).seconds_to_reach(loss) for loss in (2.5, 1.7, 1.5, 1.4, 1.0)]
    assert times == sorted(times)
    assert 1 < times[0] < 20
    assert times[-1] > 10 * times[0]


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
