"""Loss and gradients of the qwen3 architecture on a CPU without autograd: the results of `GPT` and torch, faster.

A step of a small model is a few hundred operations of microseconds each. The overhead of autograd and Python takes as
long as the arithmetic, and the GIL serialises it over all threads. Here a block is one call of compiled code.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptbox.models.config import ModelConfig
from gptbox.system.memory import allocate
from gptbox.train.gpt import GPT
from gptbox.train.kernels import Floats, blas
from gptbox.train.kernels.attention import QUERY_BLOCK_SIZE
from gptbox.train.kernels.block import (
    BackwardBuffers,
    BlockActivations,
    BlockWeights,
    BranchDropout,
    block_backward,
    block_forward,
)
from gptbox.train.kernels.head import HeadActivations, HeadWeights, head_backward, head_forward
from gptbox.train.kernels.layers import dropout_rows, embed, embed_backward
from gptbox.train.ops import NO_DROPOUT, Dropout, dropout_sites


def supports(model: GPT) -> bool:
    """Whether this backend can compute the model on its current device."""
    weight = model.embedding.weight
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return blas.HAS_SGEMM and on_cpu and model.config.architecture == "qwen3"


def trains_all_parameters(model: GPT) -> bool:
    """Whether all parameters require gradients: `gradients` always computes them for all."""
    return all(p.requires_grad for p in model.parameters())


def weights_of(model: GPT) -> dict[str, Floats]:
    """Views of the model's parameters by name, which the optimizer updates in place."""
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def block_weights(arrays: dict[str, Floats], layer: int) -> BlockWeights:
    """A block's entries of `arrays`, the model's weights or gradients by parameter name."""

    def array(name: str) -> Floats:
        return arrays[f"blocks.{layer}.{name}.weight"]

    return BlockWeights(
        attention_norm=array("attention_norm"), qkv=array("attention.qkv"), q_norm=array("attention.q_norm"),
        k_norm=array("attention.k_norm"), out=array("attention.out"), mlp_norm=array("mlp_norm"), up=array("mlp.up"),
        down=array("mlp.down"),
    )  # fmt: skip


def head_weights(arrays: dict[str, Floats], c: ModelConfig) -> HeadWeights:
    """The head's entries of `arrays`, the model's weights or gradients by parameter name."""
    return HeadWeights(arrays["final_norm.weight"], arrays["embedding.weight" if c.tie_embeddings else "head.weight"])


_Shapes = dict[str, tuple[int, ...]]
"""Shapes of the arrays of a named tuple, by field."""


def _block_shapes(c: ModelConfig, n: int) -> _Shapes:
    """Shapes of BlockActivations for n tokens."""
    heads, kv_heads, width = c.n_head, c.n_kv_head, c.head_dim
    return {
        "attention_x": (n, c.n_embd),
        "attention_scale": (n,),
        "attention_normed": (n, c.n_embd),
        "qkv": (n, (heads + 2 * kv_heads) * width),
        "q": (n, heads, width),
        "k": (n, kv_heads, width),
        "qk_scale": (n, heads + kv_heads),
        "attention_output": (n, heads, width),
        "log_sum": (n, heads),
        "mlp_x": (n, c.n_embd),
        "mlp_scale": (n,),
        "mlp_normed": (n, c.n_embd),
        "up": (n, 2 * c.intermediate_size),
        "hidden": (n, c.intermediate_size),
    }


def _head_shapes(c: ModelConfig, n: int) -> _Shapes:
    """Shapes of HeadActivations for n tokens."""
    return {
        "x": (n, c.n_embd),
        "scale": (n,),
        "normed": (n, c.n_embd),
        "logits": (n, c.vocab_size),
        "grad_logits": (n, c.vocab_size),
    }


def _backward_shapes(c: ModelConfig, n: int, scores: tuple[int, int]) -> _Shapes:
    """Shapes of BackwardBuffers for n tokens; `scores` is the shape of the attention scores."""
    heads, kv_heads, width = c.n_head, c.n_kv_head, c.head_dim
    return {
        "grad_scores": scores,
        "grad_branch": (n, c.n_embd),
        "grad_normed": (n, c.n_embd),
        "grad_hidden": (n, c.intermediate_size),
        "grad_up": (n, 2 * c.intermediate_size),
        "grad_attention_output": (n, heads, width),
        "grad_q": (n, heads, width),
        "grad_k": (n, kv_heads, width),
        "grad_qkv": (n, (heads + 2 * kv_heads) * width),
    }


def _workspace_shapes(c: ModelConfig, rows: int, time: int, backward: bool) -> list[_Shapes]:
    """Shapes for the residual stream, the head and the blocks and, with `backward`, for its buffers and gradients."""
    n, scores = rows * time, (min(time, QUERY_BLOCK_SIZE), time)
    stream: _Shapes = {"x": (n, c.n_embd), "branch": (n, c.n_embd), "scores": scores}
    forward = [stream, _head_shapes(c, n)]
    if not backward:
        return [*forward, _block_shapes(c, n)]
    gradients: _Shapes = {"grad_x": (n, c.n_embd), "gradient": (c.parameters,)}
    return [*forward, *[_block_shapes(c, n)] * c.n_layer, _backward_shapes(c, n, scores), gradients]


def workspace_bytes(c: ModelConfig, rows: int, time: int, backward: bool = True) -> int:
    """Size in bytes of a Workspace's arrays for `rows` rows of `time` tokens."""
    groups = _workspace_shapes(c, rows, time, backward)
    return 4 * sum(math.prod(shape) for group in groups for shape in group.values())


class Workspace:
    """Activations and gradients for batches of one shape, for one thread; overwritten by each step."""

    def __init__(self, model: GPT, rows: int, time: int, backward: bool = True) -> None:
        """For `rows` rows of `time` tokens. Without `backward`, all blocks share one set of activations."""
        self._model, self._time, c = model, time, model.config
        self.weights = weights_of(model)
        self.block_weights = [block_weights(self.weights, i) for i in range(c.n_layer)]
        self.head_weights = head_weights(self.weights, c)
        self.rotary_tables = model.cos[:time].numpy(), model.sin[:time].numpy()
        self.eps = np.float32(c.norm_eps)
        groups = _workspace_shapes(c, rows, time, backward)
        arrays = iter(allocate(*(shape for group in groups for shape in group.values())))
        stream, head, *blocks = ({name: next(arrays) for name in group} for group in groups)
        self.x, self.branch, self.scores = stream["x"], stream["branch"], stream["scores"]
        self.head_activations = HeadActivations(**head)
        if not backward:
            self.block_activations = [BlockActivations(**blocks[0])] * c.n_layer
            return
        *blocks, buffers, gradients = blocks
        self.block_activations = [BlockActivations(**block) for block in blocks]
        self.buffers = BackwardBuffers(**buffers)
        self.grad_x, self.gradient = gradients["grad_x"], gradients["gradient"]
        """`gradient` is 1-D: all parameters' gradients concatenated, in the order of `weights`."""
        parts = np.split(self.gradient, np.cumsum([weight.size for weight in self.weights.values()])[:-1])
        self.gradients = {
            name: part.reshape(weight.shape) for (name, weight), part in zip(self.weights.items(), parts, strict=True)
        }
        self.block_gradients = [block_weights(self.gradients, i) for i in range(c.n_layer)]
        self.head_gradients = head_weights(self.gradients, c)

    def fits(self, model: GPT, time: int) -> bool:
        """Whether the workspace was made for this model and rows of `time` tokens."""
        return self._model is model and self._time == time


def _dropout_keys(model: GPT, dropout: Dropout, rows: int) -> NDArray[np.uint32]:
    """Dropout keys (sites, B); without dropout, zeros of the same type, so that kernels are compiled once."""
    if dropout.keys is None:
        return np.zeros((dropout_sites(model.config.n_layer), rows), np.uint32)
    keys: NDArray[np.uint32] = dropout.keys
    return keys


def _branch_dropout(dropout: Dropout, keys: NDArray[np.uint32], layer: int) -> BranchDropout:
    return BranchDropout(keys[2 * layer + 1], keys[2 * layer + 2], dropout.threshold, dropout.scale)


def _forward(
    workspace: Workspace, inputs: Tensor, targets: Tensor, dropout: Dropout, keys: NDArray[np.uint32]
) -> float:
    """The mean loss over ids (B, T), in nats per token."""
    w, x = workspace, workspace.x
    embed(inputs.reshape(-1).numpy(), w.weights["embedding.weight"], x)
    if dropout.threshold:
        dropout_rows(x, keys[0], dropout.threshold, dropout.scale, x)
    for i, (weights, activations) in enumerate(zip(w.block_weights, w.block_activations, strict=True)):
        block_forward(
            x, w.branch, i == 0, *w.rotary_tables, w.eps, weights, activations, w.scores,
            _branch_dropout(dropout, keys, i),
        )  # fmt: skip
        x = activations.mlp_x
    flat_targets = targets.reshape(-1).numpy()
    mean: float = head_forward(x, w.branch, w.eps, w.head_weights, flat_targets, w.head_activations)
    return mean


def loss(model: GPT, workspace: Workspace, inputs: Tensor, targets: Tensor) -> float:
    """The mean loss over ids (B, T), in nats per token."""
    return _forward(workspace, inputs, targets, NO_DROPOUT, _dropout_keys(model, NO_DROPOUT, len(inputs)))


def likeliest(workspace: Workspace) -> NDArray[np.int64]:
    """The likeliest token at each position of the ids whose loss was computed last, (B * T,)."""
    ids: NDArray[np.int64] = workspace.head_activations.logits.argmax(1)
    return ids


def gradients(model: GPT, workspace: Workspace, inputs: Tensor, targets: Tensor, dropout: Dropout) -> float:
    """The mean loss over ids (B, T), in nats per token; writes its gradient to `workspace.gradient`."""
    w, grad_x, keys = workspace, workspace.grad_x, _dropout_keys(model, dropout, len(inputs))
    mean = _forward(w, inputs, targets, dropout, keys)
    head_backward(w.head_weights, w.head_gradients, w.head_activations, w.buffers.grad_normed, grad_x)
    for i in reversed(range(len(w.block_weights))):
        block_backward(
            grad_x, *w.rotary_tables, w.block_weights[i], w.block_gradients[i], w.block_activations[i], w.scores,
            w.buffers, _branch_dropout(dropout, keys, i),
        )  # fmt: skip
    if dropout.threshold:
        dropout_rows(grad_x, keys[0], dropout.threshold, dropout.scale, grad_x)
    embedding_gradient = w.gradients["embedding.weight"]
    if not model.config.tie_embeddings:
        embedding_gradient[:] = 0
    embed_backward(grad_x, inputs.reshape(-1).numpy(), embedding_gradient)
    return mean
