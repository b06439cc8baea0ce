"""The configuration: Hugging Face's keys and back, the parameter count, and invalid values."""

import pytest

from gptbox.errors import ModelFolderError
from gptbox.models.config import ModelConfig
from gptbox.models.weights import shapes


def test_huggingface_round_trip(config: ModelConfig) -> None:
    again = ModelConfig.from_huggingface(config.to_huggingface())
    assert again.to_huggingface() == config.to_huggingface()


def test_parameters_are_counted_exactly(config: ModelConfig) -> None:
    count = 0
    for shape in shapes(config).values():
        size = 1
        for n in shape:
            size *= n
        count += size
    assert config.parameters == count


def test_the_lesson_has_0_80_million_parameters() -> None:
    lesson = ModelConfig(architecture="gpt2", vocab_size=65, context_length=64, n_layer=4, n_head=4, n_embd=128)
    # nanoGPT does not count the positions: 795,904, "0.80M".
    assert lesson.parameters - 64 * 128 == 795_904


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_head": 3}, "n_embd 32 is not a multiple of n_head 3"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"architecture": "llama"}, "architecture 'llama'"),
        ({"activation": "relu"}, "activation 'relu'"),
        ({"n_head": 4, "n_kv_head": 3, "head_dim": 8}, "not a multiple of n_kv_head 3"),
        ({"architecture": "qwen3", "activation": "silu", "head_dim": 7}, "head_dim 7 is odd"),
        ({"architecture": "qwen3"}, "qwen3 needs the activation silu"),
        ({"n_kv_head": 1}, "gpt2 needs n_kv_head equal to n_head"),
    ],
)
def test_an_invalid_configuration_is_rejected(changes: dict[str, object], said: str) -> None:
    good: dict[str, object] = {
        "architecture": "gpt2", "vocab_size": 65, "context_length": 32, "n_layer": 2, "n_head": 2, "n_embd": 32,
    }  # fmt: skip
    with pytest.raises(ModelFolderError, match=said):
        ModelConfig(**(good | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llama"}, "'llama'"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "scaled rotary"),
        ({"hidden_size": None}, "n_embd"),
    ],
)
def test_an_unsupported_model_is_rejected_with_the_reason(changes: dict[str, object], said: str) -> None:
    qwen3 = ModelConfig(
        architecture="qwen3", vocab_size=65, context_length=32, n_layer=2, n_head=2, n_embd=32, activation="silu"
    )
    with pytest.raises(ModelFolderError, match=said):
        ModelConfig.from_huggingface(qwen3.to_huggingface() | changes)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelFolderError, match="lacks 'n_layer'"):
        ModelConfig.from_huggingface({"model_type": "gpt2", "vocab_size": 1, "n_positions": 1})
