"""Biases that publishing adds to a gpt2 that has none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gptbox.models import folder as model_folder
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights, drop_zero_biases


def test_a_published_model_is_read_back_as_it_was_trained(
    tmp_path: Path, config: ModelConfig, write_model: Callable[..., Path], make_weights: Callable[..., Weights]
) -> None:
    folder = model_folder.load(write_model(tmp_path / "step-000001", config))
    assert folder.config == replace(config, bias=config.architecture == "gpt2")
    weights, found = drop_zero_biases(folder.weights, folder.config)
    assert found == config
    expected = make_weights(config)
    assert set(weights) == set(expected)
    for name, weight in expected.items():
        np.testing.assert_array_equal(weights[name], weight)
