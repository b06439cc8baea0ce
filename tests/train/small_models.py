"""Small qwen3 models in all shapes that the kernels must support, and batches for them."""

import torch

from gptbox.models.config import ModelConfig
from gptbox.train.gpt import GPT

SHAPES = {
    "plain": {},
    "one head, odd sizes": {"n_head": 1, "n_embd": 20, "intermediate_size": 33, "vocab_size": 7},
    "grouped keys": {"n_head": 4, "n_kv_head": 2},
    "wide heads": {"n_head": 2, "head_dim": 48},
    "tied": {"tie_embeddings": True},
    "long": {"context_length": 150},
}


def make_model(**changes: object) -> GPT:
    torch.manual_seed(1)
    values = {"vocab_size": 65, "context_length": 24, "n_layer": 2, "n_head": 4, "n_embd": 64, "intermediate_size": 96}
    values |= {"tie_embeddings": False, **changes}
    model = GPT(ModelConfig(architecture="qwen3", activation="silu", norm_eps=1e-6, **values))  # type: ignore[arg-type]
    with torch.no_grad():
        for p in model.parameters():  # so that gains differ from one and activations from zero
            p.add_(torch.randn_like(p) * 0.1)
    return model


def batch(model: GPT, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    shape = rows, model.config.context_length
    return torch.randint(model.config.vocab_size, shape), torch.randint(model.config.vocab_size, shape)
