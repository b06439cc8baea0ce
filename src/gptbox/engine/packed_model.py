"""A model in the form that compiled code takes: numbers, and packed weights in flat arrays."""

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.packing import PANEL, pack, padded, quantize
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Array, Weights
from gptbox.system.memory import allocate

# The order of a block's matrices and norms in PackedModel.matrices and PackedModel.norms.
_LINEAR_NAMES = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
_NORM_NAMES = ("attention_norm", "mlp_norm", "attention.q_norm", "attention.k_norm")
_ACTIVATIONS = ("silu", "gelu", "gelu_new")


class PackedModel(NamedTuple):
    """Hyperparameters, weights in two flat arrays, and the offset of each weight in them."""

    gpt2: int
    """1 for gpt2, 0 for qwen3."""
    activation: int
    """Index into _ACTIVATIONS."""
    n_head: int
    n_kv_head: int
    head_dim: int
    n_embd: int
    intermediate_size: int
    vocab_size: int
    panels: Annotated[NDArray[np.int8], "bytes"]
    """Packed matrices, float32 or int8, concatenated, as bytes."""
    vectors: Annotated[Array, "floats"]
    """The norms' epsilon, then norm weights, biases and quantization scales, concatenated."""
    matrices: Annotated[NDArray[np.int64], "n_layer+1 4 3"]
    """Offsets of each matrix's panels (bytes), bias and scales, -1 for none; last the head."""
    norms: Annotated[NDArray[np.int64], "n_layer+1 4 2"]
    """Offsets of each norm's weight and bias, -1 for none; last the final norm."""
    embedding: Annotated[Array, "V C"]
    """Empty where embeddings are tied: then rows are read from the head's panels."""
    position: Annotated[Array, "context C"]
    """Empty for qwen3."""
    cos: Annotated[Array, "context D/2"]
    """Empty for gpt2."""
    sin: Annotated[Array, "context D/2"]


class _Arena:
    """Concatenates arrays, each aligned to 64 bytes."""

    def __init__(self, size: int) -> None:
        (memory,) = allocate((-(-size // 4),))
        self._memory = memory.view(np.uint8)
        self._end = 0

    def add(self, array: NDArray[np.generic]) -> int:
        """Append an array; returns its offset in bytes."""
        begin, end = self._end, self._end + array.nbytes
        self._memory[begin:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._end = -(-end // 64) * 64
        return begin

    @property
    def array(self) -> NDArray[np.uint8]:
        return self._memory[: self._end]


def rotary_tables(config: ModelConfig) -> tuple[Array, Array]:
    """Cosines and sines by position, each (context_length, D / 2): Su et al., RoFormer, arXiv 2104.09864."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
    angles = np.outer(np.arange(config.context_length), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _interleave_gates(up: Array) -> Array:
    """SwiGLU's (2 M, C), gates then values, reordered to alternate 16 gates and their 16 values, padded with zeros."""
    width = up.shape[0] // 2
    padded_up = np.zeros((2, -(-width // 16) * 16, up.shape[1]), np.float32)
    padded_up[:, :width] = up.reshape(2, width, -1)
    return padded_up.reshape(2, -1, 16, up.shape[1]).transpose(1, 0, 2, 3).reshape(-1, up.shape[1])


def pack_model(config: ModelConfig, weights: Weights, int8: bool) -> PackedModel:
    """Pack `weights` (see `gptbox.models.weights`, float32); `int8` quantizes the matrices."""
    c = config
    # Upper bounds: the weights, padding to whole panels, alignment, and the scales of int8 outputs.
    panels = _Arena(
        sum((weight.nbytes + 256 * (PANEL + weight.shape[-1])) for weight in weights.values() if weight.ndim == 2)
    )
    vectors = _Arena(sum(256 + 2 * 4 * max(weight.shape) for weight in weights.values()) + 128)
    empty = np.zeros((0, 0), np.float32)

    vectors.add(np.array([c.norm_eps], np.float32))

    def vector(name: str, pad: bool = False) -> int:
        """Add a vector; returns its offset in floats, or -1 if the model has no such vector."""
        values = weights.get(name)
        if values is None:
            return -1
        if pad:
            values = np.concatenate([values, np.zeros(padded(len(values)) - len(values), np.float32)])
        return vectors.add(values) // 4

    def matrix(name: str, bias: str = "") -> tuple[int, int, int]:
        """Add a matrix and its bias; returns their row of PackedModel.matrices."""
        weight = weights[name]
        if name.endswith("mlp.up.weight") and c.architecture == "qwen3":
            weight = _interleave_gates(weight)
        packed = pack(weight)
        if not int8:
            return panels.add(packed), vector(bias, pad=True), -1
        quantized, scales = quantize(packed)
        return panels.add(quantized), vector(bias, pad=True), vectors.add(scales) // 4

    matrices, norms = np.full((c.n_layer + 1, 4, 3), -1), np.full((c.n_layer + 1, 4, 2), -1)
    for i in range(c.n_layer):
        for j, name in enumerate(_LINEAR_NAMES):
            matrices[i, j] = matrix(f"blocks.{i}.{name}.weight", f"blocks.{i}.{name}.bias")
        for j, name in enumerate(_NORM_NAMES):
            norms[i, j] = vector(f"blocks.{i}.{name}.weight"), vector(f"blocks.{i}.{name}.bias")
    matrices[-1, 0] = matrix("embedding.weight" if c.tie_embeddings else "head.weight")
    norms[-1, 0] = vector("final_norm.weight"), vector("final_norm.bias")
    cos, sin = rotary_tables(c) if c.architecture == "qwen3" else (empty, empty)
    return PackedModel(
        gpt2=int(c.architecture == "gpt2"), activation=_ACTIVATIONS.index(c.activation), n_head=c.n_head,
        n_kv_head=c.n_kv_head, head_dim=c.head_dim, n_embd=c.n_embd, intermediate_size=c.intermediate_size,
        vocab_size=c.vocab_size, panels=panels.array.view(np.int8), vectors=vectors.array.view(np.float32),
        matrices=matrices, norms=norms, embedding=empty if c.tie_embeddings else weights["embedding.weight"],
        position=weights.get("position.weight", empty), cos=cos, sin=sin,
    )  # fmt: skip
