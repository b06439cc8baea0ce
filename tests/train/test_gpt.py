"""The model's weights: names, shapes, initialization."""

import torch

from gptbox.models.config import ModelConfig
from gptbox.models.weights import shapes
from gptbox.train.gpt import GPT
from gptbox.train.ops import rotary_heads


def test_state_dict_has_the_names_and_shapes_of_weights(config: ModelConfig) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()} == shapes(config)


def test_previous_token_heads_attend_back() -> None:
    """After initialization, head h of the first layer attends mostly to the token h + 1 positions back."""
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="qwen3", vocab_size=65, context_length=64, n_layer=2, n_head=3, n_embd=96, activation="silu",
        tie_embeddings=False,
    )  # fmt: skip
    model = GPT(config)
    model.initialize("previous")
    block = model.blocks[0]
    ids = torch.randint(65, (4, 64))
    _, normed = block.attention_norm(model.embedding(ids), None)  # type: ignore[union-attr, operator]
    attention = block.attention
    gains = attention.q_norm.weight, attention.k_norm.weight  # type: ignore[union-attr]
    q, k, _ = rotary_heads(attention.qkv(normed), *gains, model.cos, model.sin, 3, 1e-6)  # type: ignore
    scores = torch.einsum("bthd,bshd->bhts", q, k).tril()
    for head in range(3):
        back = scores[:, head, 40].masked_fill(torch.arange(64) > 40, -1e9).mean(0).argmax()
        assert int(back) == 40 - (head + 1)
    assert torch.equal(model(ids), torch.zeros(4, 64, 65)), "the head is zero"
