"""The rule that keeps the newest quarter of a full context."""

import numpy as np
import pytest

from gptbox.models.context_window import prediction_windows, slide_window


def test_the_newest_quarter_is_kept() -> None:
    assert slide_window(np.arange(64), 64).tolist() == list(range(48, 64))


def test_at_least_one_token_is_kept() -> None:
    assert slide_window(np.array([1, 2]), 1).tolist() == [2]


@pytest.mark.parametrize("context", [1, 3, 8])
@pytest.mark.parametrize("num_prompt", [1, 5, 8, 9, 20])
def test_prediction_windows_are_those_of_generation(num_prompt: int, context: int) -> None:
    """Checked against a loop that slides a list as the engine does."""
    window = list(range(num_prompt))[-context:]
    expected = []
    for i in range(num_prompt, 40):
        expected.append(list(window))
        window.append(i)
        if len(window) > context:
            window = slide_window(window[-context:], context)
    seen = [
        list(range(start, i))
        for start, first, stop in prediction_windows(num_prompt, 40, context)
        for i in range(first, stop)
    ]
    assert seen == expected


def test_a_prompt_alone_has_no_prediction_window() -> None:
    assert list(prediction_windows(5, 5, 8)) == []
