"""Loss and gradients of the qwen3 architecture on a CPU without autograd: the results of `GPT` and torch, faster.

A step of a small model is a few hundred operations of microseconds each. The overhead of autograd and Python takes as
long as the arithmetic, and the GIL serialises it over all threads. Here a block is one call of compiled code.
"""

import math
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptbox.models.config import ModelConfig
from gptbox.system.memory import allocate
from gptbox.train import kernels
from gptbox.train.gpt import GPT
from gptbox.train.ops import NO_DROPOUT, Dropout, dropout_sites

BLOCK_WEIGHTS = (
    "attention_norm.weight", "attention.qkv.weight", "attention.q_norm.weight", "attention.k_norm.weight",
    "attention.out.weight", "mlp_norm.weight", "mlp.up.weight", "mlp.down.weight",
)  # fmt: skip
"""A block's parameters, in the order of the kernels' arguments."""


def supports(model: GPT) -> bool:
    """Whether this backend can compute the model on its current device."""
    weight = model.embedding.weight
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return kernels.HAS_SGEMM and on_cpu and model.config.architecture == "qwen3"


def weights_of(model: GPT) -> dict[str, NDArray[np.float32]]:
    """Views of the model's parameters by name, which the optimizer updates in place."""
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def head_weight_name(c: ModelConfig) -> str:
    return "embedding.weight" if c.tie_embeddings else "head.weight"


class _Shapes(NamedTuple):
    """Shapes of the arrays in a Workspace for n = rows * time tokens, in the order of the kernels' arguments."""

    forward: list[tuple[int, ...]]
    """x, branch, the attention scores, and `kernels.head`'s total, scale, normed, logits and grad_logits."""
    block: list[tuple[int, ...]]
    """Activations that one block keeps for its backward pass: x1 to hidden of `kernels.block`."""
    backward: list[tuple[int, ...]]
    """grad_a, grad_x, the gradient of all parameters, and `kernels.block_backward`'s buffers from grad_scores on."""

    @classmethod
    def of(cls, c: ModelConfig, rows: int, time: int) -> "_Shapes":
        n, heads, kv_heads, width = rows * time, c.n_head, c.n_kv_head, c.head_dim
        projected, hidden = (heads + 2 * kv_heads) * width, c.intermediate_size
        scores = (min(time, kernels.QUERY_BLOCK_SIZE), time)
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
    """Memory of a Workspace."""
    shapes = _Shapes.of(c, rows, time)
    arrays = [*shapes.forward, *shapes.block * (c.n_layer if backward else 1), *(shapes.backward if backward else [])]
    return 4 * sum(map(math.prod, arrays))


class Workspace:
    """Activations and gradients for batches of one shape, for one thread; overwritten by each step."""

    def __init__(self, model: GPT, rows: int, time: int, backward: bool = True) -> None:
        """Without `backward`, all blocks share the activations of one."""
        self._model, self._time, c = model, time, model.config
        self.weights = weights_of(model)
        self.block_weight_names = [[f"blocks.{i}.{name}" for name in BLOCK_WEIGHTS] for i in range(c.n_layer)]
        self.head_weight_name = head_weight_name(c)
        self.rotary_tables = model.cos[:time].numpy(), model.sin[:time].numpy()
        self.eps = np.float32(c.norm_eps)
        shapes, kept_blocks = _Shapes.of(c, rows, time), c.n_layer if backward else 1
        arrays = iter(allocate(*shapes.forward, *shapes.block * kept_blocks, *(shapes.backward if backward else [])))
        self.x, self.branch, self.scores, *head = islice(arrays, len(shapes.forward))
        self.head_buffers = tuple(head)
        self.block_activations = [tuple(islice(arrays, len(shapes.block))) for _ in range(kept_blocks)]
        if not backward:
            return
        self.grad_a, self.grad_x, self.gradient, *backward_buffers = arrays
        """`gradient` is 1-D: all parameters' gradients concatenated, in the order of `weights`."""
        self.backward_buffers = tuple(backward_buffers)
        parts = np.split(self.gradient, np.cumsum([weight.size for weight in self.weights.values()])[:-1])
        self.gradients = {
            name: part.reshape(weight.shape) for (name, weight), part in zip(self.weights.items(), parts, strict=True)
        }

    def fits(self, model: GPT, time: int) -> bool:
        """Whether it was made for this model and row length."""
        return self._model is model and self._time == time


def _forward(
    model: GPT, workspace: Workspace, inputs: Tensor, targets: Tensor, dropout: Dropout
) -> tuple[float, NDArray[np.uint32]]:
    """The mean loss in nats over ids (B, T), and the dropout keys, which the backward pass needs too."""
    weights, rows = workspace.weights, len(inputs)
    keys = np.zeros((dropout_sites(model.config.n_layer), rows), np.uint32) if dropout.keys is None else dropout.keys
    threshold, dropout_scale = dropout.threshold, dropout.scale
    x = workspace.x
    kernels.embed(inputs.reshape(-1).numpy(), weights["embedding.weight"], x)
    if threshold:
        kernels.dropout_rows(x, keys[0], threshold, dropout_scale, x)
    for i, names in enumerate(workspace.block_weight_names):
        activations = workspace.block_activations[i % len(workspace.block_activations)]
        kernels.block(
            x, workspace.branch, i == 0, *workspace.rotary_tables, workspace.eps, *(weights[name] for name in names),
            *activations, workspace.scores, keys[2 * i + 1], keys[2 * i + 2], threshold, dropout_scale,
        )  # fmt: skip
        x = activations[9]  # x2 of `kernels.block`
    mean: float = kernels.head(
        x, workspace.branch, workspace.eps, weights["final_norm.weight"], weights[workspace.head_weight_name],
        targets.reshape(-1).numpy(), *workspace.head_buffers,
    )  # fmt: skip
    return mean, keys


def loss(model: GPT, workspace: Workspace, inputs: Tensor, targets: Tensor) -> float:
    """The mean loss in nats over ids (B, T)."""
    return _forward(model, workspace, inputs, targets, NO_DROPOUT)[0]


def gradients(model: GPT, workspace: Workspace, inputs: Tensor, targets: Tensor, dropout: Dropout) -> float:
    """The mean loss in nats over ids (B, T); writes its gradient to `workspace.gradient`."""
    mean, keys = _forward(model, workspace, inputs, targets, dropout)
    weights, grads, grad_x, head = workspace.weights, workspace.gradients, workspace.grad_x, workspace.head_weight_name
    threshold, dropout_scale = dropout.threshold, dropout.scale
    total, scale, normed, _, grad_logits = workspace.head_buffers
    kernels.head_backward(
        weights["final_norm.weight"], weights[head], total, scale, normed, grad_logits, workspace.grad_a, grad_x,
        grads["final_norm.weight"], grads[head],
    )  # fmt: skip
    for i, names in reversed(list(enumerate(workspace.block_weight_names))):
        kernels.block_backward(
            grad_x, *workspace.rotary_tables, *(weights[name] for name in names), *(grads[name] for name in names),
            *workspace.block_activations[i], workspace.scores, *workspace.backward_buffers,
            keys[2 * i + 1], keys[2 * i + 2], threshold, dropout_scale,
        )  # fmt: skip
    if threshold:
        kernels.dropout_rows(grad_x, keys[0], threshold, dropout_scale, grad_x)
    if head != "embedding.weight":
        grads["embedding.weight"][:] = 0
    kernels.embed_backward(grad_x, inputs.reshape(-1).numpy(), grads["embedding.weight"])
    return mean
