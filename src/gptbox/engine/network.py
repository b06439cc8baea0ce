"""A model as compiled code takes it: numbers, and all weights in two arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.panels import PANEL, pack, padded, quantize
from gptbox.memory import allocate
from gptbox.model_config import ModelConfig
from gptbox.weights import Array, Weights

# The order of a block's matrices and norms in Network.matrices and Network.norms.
_LINEAR_NAMES = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
_NORM_NAMES = ("attention_norm", "mlp_norm", "attention.q_norm", "attention.k_norm")
_ACTIVATIONS = ("silu", "gelu", "gelu_new")


class Network(NamedTuple):
    """A model as compiled code takes it: numbers, and all weights in two arrays with the places where each begins."""

    gpt2: int
    """1 for that architecture, 0 for qwen3."""
    activation: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_embd: int
    intermediate_size: int
    vocab_size: int
    panels: NDArray[np.int8]
    """Packed matrices, end to end."""
    vectors: Array
    """The norms' epsilon; their weights, biases, quantization steps."""
    matrices: NDArray[np.int64]
    """(n_layer + 1, 4, 3): where each matrix's panels, bias and steps begin, -1 for none; last the head."""
    norms: NDArray[np.int64]
    """(n_layer + 1, 4, 2): where each norm's weight and bias begin; last the final one."""
    embedding: Array
    """(V, C), or empty where the head's panels are read instead."""
    position: Array
    """(context, C), or empty."""
    cos: Array
    """(context, D / 2), or empty."""
    sin: Array


class _Arena:
    """Arrays end to end, each at a multiple of 64 bytes."""

    def __init__(self, size: int) -> None:
        (whole,) = allocate((-(-size // 4),))
        self._whole = whole.view(np.uint8)
        self._end = 0

    def add(self, array: NDArray[np.generic]) -> int:
        """Where it begins, in bytes."""
        place, end = self._end, self._end + array.nbytes
        self._whole[place:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._end = -(-end // 64) * 64
        return place

    @property
    def array(self) -> NDArray[np.uint8]:
        return self._whole[: self._end]


def rotary_tables(config: ModelConfig) -> tuple[Array, Array]:
    """Cosines and sines of every position, each (context_length, D / 2): Su et al., RoFormer, arXiv 2104.09864."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
    angles = np.outer(np.arange(config.context_length), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _interleaved(up: Array) -> Array:
    """SwiGLU's (2 M, C), gates above values, as 16 gates, their 16 values, and so on, filled up with zeros."""
    width = up.shape[0] // 2
    filled = np.zeros((2, -(-width // 16) * 16, up.shape[1]), np.float32)
    filled[:, :width] = up.reshape(2, width, -1)
    return filled.reshape(2, -1, 16, up.shape[1]).transpose(1, 0, 2, 3).reshape(-1, up.shape[1])


def network(config: ModelConfig, weights: Weights, narrow: bool) -> Network:
    c = config
    # The panels' filling up, and the steps of the narrow ones' outputs, are what they take more than the weights.
    panels = _Arena(
        sum((weight.nbytes + 256 * (PANEL + weight.shape[-1])) for weight in weights.values() if weight.ndim == 2)
    )
    vectors = _Arena(sum(256 + 2 * 4 * max(weight.shape) for weight in weights.values()) + 128)
    none = np.zeros((0, 0), np.float32)

    vectors.add(np.array([c.norm_eps], np.float32))

    def vector(name: str, fill: bool = False) -> int:
        values = weights.get(name)
        if values is None:
            return -1
        if fill:
            values = np.concatenate([values, np.zeros(padded(len(values)) - len(values), np.float32)])
        return vectors.add(values) // 4

    def matrix(name: str, bias: str = "") -> tuple[int, int, int]:
        weight = weights[name]
        if name.endswith("mlp.up.weight") and c.architecture == "qwen3":
            weight = _interleaved(weight)
        packed = pack(weight)
        if not narrow:
            return panels.add(packed), vector(bias, fill=True), -1
        whole, steps = quantize(packed)
        return panels.add(whole), vector(bias, fill=True), vectors.add(steps) // 4

    matrices, norms = np.full((c.n_layer + 1, 4, 3), -1), np.full((c.n_layer + 1, 4, 2), -1)
    for i in range(c.n_layer):
        for j, name in enumerate(_LINEAR_NAMES):
            matrices[i, j] = matrix(f"blocks.{i}.{name}.weight", f"blocks.{i}.{name}.bias")
        for j, name in enumerate(_NORM_NAMES):
            norms[i, j] = vector(f"blocks.{i}.{name}.weight"), vector(f"blocks.{i}.{name}.bias")
    matrices[-1, 0] = matrix("embedding.weight" if c.tie_embeddings else "head.weight")
    norms[-1, 0] = vector("final_norm.weight"), vector("final_norm.bias")
    cos, sin = rotary_tables(c) if c.architecture == "qwen3" else (none, none)
    return Network(
        gpt2=int(c.architecture == "gpt2"), activation=_ACTIVATIONS.index(c.activation), n_head=c.n_head,
        n_kv_head=c.n_kv_head, head_dim=c.head_dim, n_embd=c.n_embd, intermediate_size=c.intermediate_size,
        vocab_size=c.vocab_size, panels=panels.array.view(np.int8), vectors=vectors.array.view(np.float32),
        matrices=matrices, norms=norms, embedding=none if c.tie_embeddings else weights["embedding.weight"],
        position=weights.get("position.weight", none), cos=cos, sin=sin,
    )  # fmt: skip
