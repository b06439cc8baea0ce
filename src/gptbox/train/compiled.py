"""Loss and gradients of the qwen3 architecture on a CPU without autograd: what `GPT` and torch would give, faster.

A step of a small model is a few hundred operations of microseconds each; autograd's and Python's share of them is as
long as the arithmetic, and Python's lock keeps threads from sharing it. Here a block is one call of compiled code.
"""

import math
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptbox.memory import allocate
from gptbox.model_config import ModelConfig
from gptbox.train import kernels
from gptbox.train.fused import NO_DROPOUT, Dropout, sites
from gptbox.train.gpt import GPT

_BLOCK_WEIGHTS = (
    "attention_norm.weight", "attention.qkv.weight", "attention.q_norm.weight", "attention.k_norm.weight",
    "attention.out.weight", "mlp_norm.weight", "mlp.up.weight", "mlp.down.weight",
)  # fmt: skip


def supports(model: GPT) -> bool:
    """Whether this model, where it is, can be computed here."""
    weight = model.embedding.weight
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return kernels.HAS_SGEMM and on_cpu and model.config.architecture == "qwen3"


class _Shapes(NamedTuple):
    """Of the arrays that a workspace has, for n tokens in rows of `time`."""

    ahead: list[tuple[int, ...]]
    layer: list[tuple[int, ...]]
    """Of each block that is kept."""
    back: list[tuple[int, ...]]

    @classmethod
    def of(cls, c: ModelConfig, rows: int, time: int) -> "_Shapes":
        n, heads, kv_heads, width = rows * time, c.n_head, c.n_kv_head, c.head_dim
        projected, hidden = (heads + 2 * kv_heads) * width, c.intermediate_size
        scores = (min(time, kernels.QUERIES_AT_ONCE), time)
        return cls(
            [(n, c.n_embd), (n, c.n_embd), scores,
             (n, c.n_embd), (n,), (n, c.n_embd), (n, c.vocab_size), (n, c.vocab_size)],
            [(n, c.n_embd), (n,), (n, c.n_embd), (n, projected), (n, heads, width), (n, kv_heads, width),
             (n, heads + kv_heads), (n, heads, width), (n, heads), (n, c.n_embd), (n,), (n, c.n_embd),
             (n, 2 * hidden), (n, hidden)],
            [(n, c.n_embd), (n, c.n_embd), (c.parameters,),
             scores, (n, c.n_embd), (n, c.n_embd), (n, hidden), (n, 2 * hidden), (n, heads, width), (n, heads, width),
             (n, kv_heads, width), (n, projected)],
        )  # fmt: skip


def workspace_bytes(c: ModelConfig, rows: int, time: int, backward: bool = True) -> int:
    """What a Workspace takes of memory."""
    shapes = _Shapes.of(c, rows, time)
    kept = [*shapes.ahead, *shapes.layer * (c.n_layer if backward else 1), *(shapes.back if backward else [])]
    return 4 * sum(map(math.prod, kept))


class Workspace:
    """Activations and gradients for batches of one shape, on one thread; written anew at each step."""

    def __init__(self, model: GPT, rows: int, time: int, backward: bool = True) -> None:
        """Without the way back all blocks share one block's activations."""
        self._model, self._time, c = model, time, model.config
        self.weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
        """The model's own, which its optimizer changes in place."""
        self.layers = [[f"blocks.{i}.{name}" for name in _BLOCK_WEIGHTS] for i in range(c.n_layer)]
        """The names of each block's weights, as the kernels take them."""
        self.head_name = "embedding.weight" if c.tie_embeddings else "head.weight"
        self.tables = model.cos[:time].numpy(), model.sin[:time].numpy()
        self.eps = np.float32(c.norm_eps)
        shapes, layers = _Shapes.of(c, rows, time), c.n_layer if backward else 1
        arrays = iter(allocate(*shapes.ahead, *shapes.layer * layers, *(shapes.back if backward else [])))
        self.x, self.branch, self.scores, *head = islice(arrays, len(shapes.ahead))
        self.head = tuple(head)
        self.blocks = [tuple(islice(arrays, len(shapes.layer))) for _ in range(layers)]
        if not backward:
            return
        self.grad_a, self.grad_x, self.gradient, *back = arrays
        """The last: of all parameters in their order, end to end."""
        self.back = tuple(back)
        parts = np.split(self.gradient, np.cumsum([weight.size for weight in self.weights.values()])[:-1])
        self.gradients = {
            name: part.reshape(weight.shape) for (name, weight), part in zip(self.weights.items(), parts, strict=True)
        }

    def fits(self, model: GPT, time: int) -> bool:
        """Whether it was made for this model and length of rows."""
        return self._model is model and self._time == time


def _forward(
    model: GPT, space: Workspace, inputs: Tensor, targets: Tensor, dropout: Dropout
) -> tuple[float, NDArray[np.uint32]]:
    """The mean loss in nats over ids (B, T), and dropout's keys, which the way back needs too."""
    weights, rows = space.weights, len(inputs)
    keys = np.zeros((sites(model.config.n_layer), rows), np.uint32) if dropout.keys is None else dropout.keys
    threshold, kept = dropout.threshold, dropout.scale
    x = space.x
    kernels.embed(inputs.reshape(-1).numpy(), weights["embedding.weight"], x)
    if threshold:
        kernels.drop(x, keys[0], threshold, kept, x)
    for i, names in enumerate(space.layers):
        saved = space.blocks[i % len(space.blocks)]
        kernels.block(
            x, space.branch, i == 0, *space.tables, space.eps, *(weights[name] for name in names), *saved,
            space.scores, keys[2 * i + 1], keys[2 * i + 2], threshold, kept,
        )  # fmt: skip
        x = saved[9]
    mean: float = kernels.head(
        x, space.branch, space.eps, weights["final_norm.weight"], weights[space.head_name],
        targets.reshape(-1).numpy(), *space.head,
    )  # fmt: skip
    return mean, keys


def loss(model: GPT, space: Workspace, inputs: Tensor, targets: Tensor) -> float:
    """The mean loss in nats over ids (B, T)."""
    return _forward(model, space, inputs, targets, NO_DROPOUT)[0]


def gradients(model: GPT, space: Workspace, inputs: Tensor, targets: Tensor, dropout: Dropout) -> float:
    """The mean loss in nats over ids (B, T); its gradient is left in `space.gradient`."""
    mean, keys = _forward(model, space, inputs, targets, dropout)
    weights, grads, grad_x, head = space.weights, space.gradients, space.grad_x, space.head_name
    threshold, kept = dropout.threshold, dropout.scale
    total, scale, normed, _, grad_logits = space.head
    kernels.head_backward(
        weights["final_norm.weight"], weights[head], total, scale, normed, grad_logits, space.grad_a, grad_x,
        grads["final_norm.weight"], grads[head],
    )  # fmt: skip
    for i, names in reversed(list(enumerate(space.layers))):
        kernels.block_backward(
            grad_x, *space.tables, *(weights[name] for name in names), *(grads[name] for name in names),
            *space.blocks[i], space.scores, *space.back, keys[2 * i + 1], keys[2 * i + 2], threshold, kept,
        )  # fmt: skip
    if threshold:
        kernels.drop(grad_x, keys[0], threshold, kept, grad_x)
    if head != "embedding.weight":
        grads["embedding.weight"][:] = 0
    kernels.embed_backward(grad_x, inputs.reshape(-1).numpy(), grads["embedding.weight"])
    return mean
