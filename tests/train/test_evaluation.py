"""Evaluating a model in torch; tests/engine/test_evaluate.py compares the loss with the engine's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights
from gptbox.train.evaluation import Interrupted, evaluate
from gptbox.train.gpt import GPT


def test_an_interrupted_evaluation_leaves_the_model_in_training_mode(
    config: ModelConfig, make_weights: Callable[..., Weights]
) -> None:
    model = GPT(config)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in make_weights(config).items()})
    model.train()
    with pytest.raises(Interrupted):
        evaluate(model, np.zeros(100, np.uint16), stop=lambda: True)
    assert model.training
