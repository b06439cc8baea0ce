"""The rule that keeps the newest quarter of a full context."""

import numpy as np

from gptbox.models.context_window import slide_window


def test_the_newest_quarter_is_kept() -> None:
    assert slide_window(np.arange(64), 64).tolist() == list(range(48, 64))


def test_at_least_one_token_is_kept() -> None:
    assert slide_window(np.array([1, 2]), 1).tolist() == [2]
