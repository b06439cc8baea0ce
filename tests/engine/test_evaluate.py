from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from gptbox.engine.evaluate import evaluate
from gptbox.engine.gpt import GPT
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights
from gptbox.train.evaluation import evaluate as torch_evaluate
from gptbox.train.gpt import GPT as TorchGPT  # noqa: N811


def make(config: ModelConfig, weights: Weights) -> tuple[GPT, TorchGPT]:
    twin = TorchGPT(config)
    twin.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    return GPT(config, weights), twin


@pytest.mark.parametrize("tokens", [2, 32, 33, 34, 65, 1000])
def test_every_token_but_the_first_is_predicted_once(
    config: ModelConfig, make_weights: Callable[..., Weights], tokens: int
) -> None:
    """Against the plainest loop, one window after another."""
    model, twin = make(config, make_weights(config))
    ids = np.random.default_rng(2).integers(0, 65, tokens).astype(np.uint16)
    losses = []
    with torch.inference_mode():
        for start in range(0, tokens - 1, 32):
            window = torch.from_numpy(ids[start : start + 33].astype(np.int64))
            losses += F.cross_entropy(twin(window[None, :-1])[0], window[1:], reduction="none").tolist()
    assert len(losses) == tokens - 1
    assert evaluate(model, ids) == pytest.approx(np.mean(losses), abs=1e-5)
    assert torch_evaluate(twin, ids) == pytest.approx(np.mean(losses), abs=1e-5)


def test_a_shorter_window_sees_less(config: ModelConfig, make_weights: Callable[..., Weights]) -> None:
    model, _ = make(config, make_weights(config))
    ids = np.random.default_rng(2).integers(0, 65, 500).astype(np.uint16)
    assert evaluate(model, ids, window=8) != pytest.approx(evaluate(model, ids), abs=1e-4)
    assert evaluate(model, ids, window=9999) == evaluate(model, ids)


def test_with_a_limit_torch_and_engine_measure_the_same_windows(
    config: ModelConfig, make_weights: Callable[..., Weights]
) -> None:
    model, twin = make(config, make_weights(config))
    ids = np.random.default_rng(2).integers(0, 65, 1000).astype(np.uint16)
    spread = np.mean([evaluate(model, ids[start : start + 33]) for start in range(0, 6 * 166, 166)])
    assert evaluate(model, ids, limit=200) == pytest.approx(spread, abs=1e-5)
    assert torch_evaluate(twin, ids, limit=200) == pytest.approx(spread, abs=1e-5)
    assert evaluate(model, ids, limit=1000) == evaluate(model, ids) != pytest.approx(spread, abs=1e-5)
