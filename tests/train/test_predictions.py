"""How often a model is right, and its commonest mistake."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights
from gptbox.train.data_parallel import DataParallel
from gptbox.train.evaluation import evaluate
from gptbox.train.gpt import GPT
from gptbox.train.predictions import Predictions


def predictions_of(pairs: list[tuple[int, int]]) -> Predictions:
    expected, predicted = np.array(pairs, np.int64).reshape(-1, 2).T
    return Predictions(expected, predicted)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.sampled_from([1, 50_000]))
def test_accuracy_and_confusion_are_counted(pairs: list[tuple[int, int]], factor: int) -> None:
    pairs = [(factor * expected, factor * predicted) for expected, predicted in pairs]
    predictions = predictions_of(pairs)
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    assert predictions.accuracy == (pytest.approx(1 - wrong.total() / len(pairs)) if pairs else None)
    confusion = predictions.confusion
    if not wrong:
        assert confusion is None
        return
    assert confusion is not None
    most = max(wrong.values())
    assert (confusion.expected, confusion.predicted) == min(pair for pair, count in wrong.items() if count == most)
    assert confusion.share == pytest.approx(most / wrong.total())


def test_parts_are_joined() -> None:
    parts = [predictions_of([(1, 2), (3, 3)]), predictions_of([(4, 5)])]
    joined = Predictions.concatenate(parts)
    assert joined.expected.tolist() == [1, 3, 4]
    assert joined.predicted.tolist() == [2, 3, 5]
    nothing = Predictions.concatenate([])
    assert (nothing.accuracy, nothing.confusion) == (None, None)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_evaluation_s_predictions_are_the_model_s(
    config: ModelConfig, make_weights: Callable[..., Weights], threads: int
) -> None:
    """Of both architectures, by torch and by compiled code; the loss is that of an evaluation without them."""
    model = GPT(config)
    model.load_weights(make_weights(config))
    ids = np.random.default_rng(3).integers(config.vocab_size, size=5000).astype(np.uint16)
    data_parallel = DataParallel(threads)
    parts: list[Predictions] = []
    assert evaluate(model, ids, data_parallel, predictions=parts) == evaluate(model, ids, data_parallel)
    data_parallel.close()
    predictions = Predictions.concatenate(parts)
    np.testing.assert_array_equal(predictions.expected, ids[1:])
    with torch.inference_mode():
        starts = range(0, len(ids) - 1, config.context_length)
        windows = [ids[start : start + config.context_length].astype(np.int64) for start in starts]
        windows[-1] = windows[-1][: (len(ids) - 1 - starts[-1])]
        logits = torch.cat([model(torch.from_numpy(window)[None])[0] for window in windows]).numpy()
    chosen = np.take_along_axis(logits, predictions.predicted[:, None], 1)[:, 0]
    np.testing.assert_allclose(chosen, logits.max(1), atol=1e-3)  # of two equally likely ones, either
    assert len(set(predictions.predicted.tolist())) > 5
