"""Loss and gradients of the qwen3 architecture on a CPU without autograd: what `GPT` and torch would give, faster.

A step of a small model is a few hundred operations of microseconds each; autograd's and Python's share of them is as
long as the arithmetic, and Python's lock keeps threads from sharing it. Here a block is one call of compiled code.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


class Workspace:
    """Activations and gradients for batches of one shape, on one thread; written anew at each step."""

    def __init__(self, model: GPT, rows: int, time: int, backward: bool = True) -> None:
        """Without the way back all blocks share one block's activations."""
        self._model, self._time, c = model, time, model.config
        n, heads, kv_heads, width = rows * time, c.n_head, c.n_kv_head, c.head_dim
        projected = (heads + 2 * kv_heads) * width

        def empty(*shape: int) -> NDArray[np.float32]:
            return np.empty(shape, np.float32)

        self.x, self.branch = empty(n, c.n_embd), empty(n, c.n_embd)
        self.blocks = [
            (
                empty(n, c.n_embd), empty(n), empty(n, c.n_embd), empty(n, projected), empty(n, heads, width),
                empty(n, kv_heads, width), empty(n, heads + kv_heads), empty(n, heads, width), empty(n, heads),
                empty(n, c.n_embd), empty(n), empty(n, c.n_embd), empty(n, 2 * c.intermediate_size),
                empty(n, c.intermediate_size),
            )
            for _ in range(c.n_layer if backward else 1)
        ]  # fmt: skip
        block = min(time, kernels.QUERIES_AT_ONCE)
        self.scores = empty(block, time)
        self.head = (
            empty(n, c.n_embd), empty(n), empty(n, c.n_embd), empty(n, c.vocab_size), empty(n, c.vocab_size),
            empty(n, c.n_embd),
        )  # fmt: skip
        if not backward:
            return
        self.back = (
            empty(block, time), empty(n, c.n_embd), empty(n, c.n_embd), empty(n, c.intermediate_size),
            empty(n, 2 * c.intermediate_size), empty(n, heads, width), empty(n, heads, width),
            empty(n, kv_heads, width), empty(n, projected),
        )  # fmt: skip
        self.grad_x = empty(n, c.n_embd)
        self.gradient = empty(sum(p.numel() for p in model.parameters()))
        """Of all parameters in their order, end to end."""
        self.gradients = {}
        at = 0
        for name, p in model.named_parameters():
            self.gradients[name] = self.gradient[at : at + p.numel()].reshape(p.shape)
            at += p.numel()

    def fits(self, model: GPT, time: int) -> bool:
        """Whether it was made for this model and length of rows."""
        return self._model is model and self._time == time


class _Common(NamedTuple):
    weights: dict[str, NDArray[np.float32]]
    eps: np.float32
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    keys: NDArray[np.uint32]
    threshold: np.uint32
    kept: np.float32
    layers: list[list[str]]
    """The names of each block's weights, as the kernels take them."""


def _forward(
    model: GPT, space: Workspace, ids: NDArray[np.int64], rows: int, dropout: Dropout
) -> tuple[NDArray[np.float32], _Common]:
    """The residual stream before the last branch, which is left in `space.branch`, and what the way back needs too."""
    c = model.config
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    time = len(ids) // rows
    keys = np.zeros((sites(c.n_layer), rows), np.uint32) if dropout.keys is None else dropout.keys
    common = _Common(
        weights, np.float32(c.norm_eps), model.cos[:time].numpy(), model.sin[:time].numpy(), keys, dropout.threshold,
        dropout.scale, [[f"blocks.{i}.{name}" for name in _BLOCK_WEIGHTS] for i in range(c.n_layer)],
    )  # fmt: skip
    x = space.x
    kernels.embed(ids, weights["embedding.weight"], x)
    if common.threshold:
        kernels.drop(x, keys[0], common.threshold, common.kept, x)
    for i, names in enumerate(common.layers):
        saved = space.blocks[i % len(space.blocks)]
        kernels.block(
            x, space.branch, i == 0, common.cos, common.sin, common.eps, *(weights[name] for name in names), *saved,
            space.scores, keys[2 * i + 1], keys[2 * i + 2], common.threshold, common.kept,
        )  # fmt: skip
        x = saved[9]
    return x, common


def loss(model: GPT, space: Workspace, inputs: Tensor, targets: Tensor) -> float:
    """The mean loss in nats over ids (B, T)."""
    x, common = _forward(model, space, inputs.reshape(-1).numpy(), len(inputs), NO_DROPOUT)
    head = "embedding.weight" if model.config.tie_embeddings else "head.weight"
    total, scale, normed, logits, unused, _ = space.head
    norm = common.weights["final_norm.weight"]
    kernels.add_rms_norm(x, space.branch, norm, common.eps, total, normed, scale)
    kernels.linear(normed, common.weights[head], logits)
    mean: float = kernels.cross_entropy(logits, targets.reshape(-1).numpy(), unused)
    return mean


def gradients(model: GPT, space: Workspace, inputs: Tensor, targets: Tensor, dropout: Dropout) -> float:
    """The mean loss in nats over ids (B, T); its gradient is left in `space.gradient`."""
    ids, grads = inputs.reshape(-1).numpy(), space.gradients
    x, common = _forward(model, space, ids, len(inputs), dropout)
    weights, keys, threshold, kept = common.weights, common.keys, common.threshold, common.kept
    head = "embedding.weight" if model.config.tie_embeddings else "head.weight"
    grad_x = space.grad_x
    mean: float = kernels.head(
        x, space.branch, common.eps, weights["final_norm.weight"], weights[head], targets.reshape(-1).numpy(),
        *space.head, grad_x, grads["final_norm.weight"], grads[head],
    )  # fmt: skip
    for i, names in reversed(list(enumerate(common.layers))):
        kernels.block_backward(
            grad_x, common.cos, common.sin, *(weights[name] for name in names), *(grads[name] for name in names),
            *space.blocks[i], space.scores, *space.back, keys[2 * i + 1], keys[2 * i + 2], threshold, kept,
        )  # fmt: skip
    if threshold:
        kernels.drop(grad_x, keys[0], threshold, kept, grad_x)
    if not model.config.tie_embeddings:
        grads["embedding.weight"][:] = 0
    kernels.embed_backward(grad_x, ids, grads["embedding.weight"])
    return mean
