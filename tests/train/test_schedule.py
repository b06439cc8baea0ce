"""Learning rate schedules."""

from dataclasses import replace

import pytest

from gptbox.train import recipe
from gptbox.train.config import LESSON
from gptbox.train.schedule import learning_rate, linear, warmup_steps

DEFAULT = recipe.RECIPES[2].config


def test_the_lesson_s_learning_rate_is_nanogpt_s() -> None:
    """The formula of nanoGPT's get_lr with warmup_iters=100, lr_decay_iters=2000."""
    warmup = warmup_steps(LESSON, 2000)
    rates = [learning_rate(LESSON, step, warmup, (step - warmup) / (2000 - warmup)) for step in range(2000)]
    assert rates[0] == pytest.approx(1e-3 / 101)
    assert rates[99] == pytest.approx(1e-3 * 100 / 101)
    assert rates[100] == pytest.approx(1e-3)
    assert rates[1050] == pytest.approx(0.5 * (1e-3 + 1e-4))
    assert rates[1999] == pytest.approx(1e-4, rel=1e-4)
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_a_short_run_warms_up_for_a_tenth() -> None:
    assert warmup_steps(LESSON, 50) == 5
    assert warmup_steps(LESSON, 100_000) == 100


def test_past_the_end_the_rate_stays_at_its_minimum() -> None:
    assert learning_rate(LESSON, 5000, 100, 3.0) == pytest.approx(1e-4)


def test_the_linear_schedule_goes_to_zero() -> None:
    assert [linear(DEFAULT, done) for done in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    late = replace(DEFAULT, cooldown=0.4)
    assert [linear(late, done) for done in (0.0, 0.6, 0.8, 1.0)] == pytest.approx([1.0, 1.0, 0.5, 0.0])
