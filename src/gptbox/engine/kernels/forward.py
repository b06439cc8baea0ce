"""The forward pass of both architectures, over a flat batch of tokens from any slots and positions.

One step may decode a token for each of twenty sequences and prefill a chunk of another's prompt. A token's output is
bit-identical whatever else is in the batch. The functions of a block follow `gptbox.train.gpt`.

Shapes: N tokens, C = n_embd, H query heads, K key and value heads, D = head_dim, V = vocab_size, M the MLP's width.
Activations and caches are accessed by address: see gptbox.jit.pointers.
"""

import numpy as np

from gptbox.engine.buffers import IntArray, Pages, Scratch
from gptbox.engine.kernels.barrier import barrier
from gptbox.engine.kernels.layers import gelu, gelu_new, layer_norm, rms_norm, rotate, swiglu
from gptbox.engine.kernels.matmul import matmul
from gptbox.engine.kernels.paged_attention import matmul_keys, matmul_values
from gptbox.engine.kernels.softmax import softmax
from gptbox.engine.packed_model import PackedModel
from gptbox.engine.packing import PANEL
from gptbox.jit.cache import kernel
from gptbox.jit.pointers import address, float32s, int8s
from gptbox.models.weights import Array

# np.intp, because Numba specialises on literal Python ints.
_QKV, _OUT, _UP, _DOWN = map(np.intp, range(4))
_ATTENTION_NORM, _MLP_NORM, _Q_NORM, _K_NORM = map(np.intp, range(4))
_NONE, _ONE = np.intp(0), np.intp(1)
_SET, _ADD = np.intp(0), np.intp(1)
_PANEL = np.intp(PANEL)


@kernel(nrt=False, inline=True)
def _row(array: Array, n: int) -> int:
    """The address of row n of a contiguous float32 array (N, width)."""
    return address(array) + 4 * n * array.shape[1]


@kernel(nrt=False, inline=True)
def _vector(model: PackedModel, offset: int, size: int) -> Array:
    """View of `size` numbers of model.vectors."""
    return float32s(address(model.vectors) + 4 * offset, size)


@kernel(nrt=False)
def _linear(
    model: PackedModel, layer: int, index: int, x: int, ldx: int, inputs: int, y: Array, rows: int, outputs: int,
    add: int, rank: int, size: int,
) -> None:  # fmt: skip
    """This thread's panels of y (N, outputs) = x (N, inputs) @ matrix + bias; accumulated into y where `add` is 1.

    `x` is an address, with rows ldx numbers apart.
    """
    panels_offset, bias_offset, scales_offset = model.matrices[layer, index]
    panels = -(-outputs // PANEL)
    first, last = panels * rank // size, panels * (rank + 1) // size
    scales = address(model.vectors) + 4 * scales_offset if scales_offset >= 0 else _NONE
    matmul(x, ldx, rows, address(model.panels) + panels_offset, scales, inputs, first, last, address(y), y.shape[1],
           add)  # fmt: skip
    if bias_offset >= 0:
        bias = _vector(model, bias_offset + first * PANEL, (last - first) * PANEL)
        for n in range(rows):
            part = float32s(_row(y, n) + 4 * first * PANEL, bias.size)
            for i in range(bias.size):
                part[i] += bias[i]


@kernel(nrt=False)
def _norm(model: PackedModel, layer: int, index: int, x: int, ldx: int, rows: int, y: Array) -> None:
    """y (N, C) = norm of x (N, C), which is an address with rows ldx numbers apart."""
    weight_offset, bias_offset = model.norms[layer, index]
    weight = _vector(model, weight_offset, model.n_embd)
    bias = _vector(model, max(bias_offset, 0), model.n_embd if bias_offset >= 0 else 0)
    eps = model.vectors[0]
    for n in range(rows):
        source, target = float32s(x + 4 * n * ldx, model.n_embd), float32s(_row(y, n), model.n_embd)
        if model.gpt2:
            layer_norm(source, weight, bias, eps, target)
        else:
            rms_norm(source, weight, eps, target)


@kernel(nrt=False)
def _embed(model: PackedModel, ids: IntArray, positions: IntArray, x: Array) -> None:
    """x (N, C) = token embeddings, plus gpt2's learned position embeddings."""
    for n in range(ids.size):
        token, row = ids[n], float32s(_row(x, n), model.n_embd)
        if model.embedding.size:
            for i in range(model.n_embd):
                row[i] = model.embedding[token, i]
        else:
            panels_offset, _, scales_offset = model.matrices[model.matrices.shape[0] - 1, 0]
            offset = (token // PANEL) * model.n_embd * PANEL + token % PANEL
            if scales_offset >= 0:
                int8_column = int8s(address(model.panels) + panels_offset + offset, model.n_embd * PANEL)
                for i in range(model.n_embd):
                    row[i] = np.float32(int8_column[i * PANEL]) * model.vectors[scales_offset + token]
            else:
                column = float32s(address(model.panels) + panels_offset + 4 * offset, model.n_embd * PANEL)
                for i in range(model.n_embd):
                    row[i] = column[i * PANEL]
        if model.gpt2:
            for i in range(model.n_embd):
                row[i] += model.position[positions[n], i]


@kernel(nrt=False)
def _write_kv(model: PackedModel, qkv: int, keys: int, offset: int) -> None:
    """Write one head's key and value to position `offset` of a page.

    `qkv` is the address of the key in scratch.qkv, `keys` that of the head's keys in the page.
    """
    width = model.head_dim
    key, panel = float32s(qkv, width), float32s(keys, width * PANEL)
    for i in range(width):
        panel[i * PANEL + offset] = key[i]
    for first in range(0, width, PANEL):
        num_columns = min(PANEL, width - first)
        source = float32s(qkv + 4 * (model.n_kv_head * width + first), num_columns)
        target = float32s(keys + 4 * PANEL * (width + first + offset), num_columns)
        for i in range(num_columns):
            target[i] = source[i]


@kernel(nrt=False)
def _attention(
    model: PackedModel, layer: int, cache: Pages, slots: IntArray, positions: IntArray, scratch: Scratch, rank: int,
    size: int,
) -> None:  # fmt: skip
    """This thread's heads: append their keys and values to the cache, and write scratch.attention_output."""
    heads, kv, width = model.n_head, model.n_kv_head, model.head_dim
    group, ld_qkv, ld_scores = heads // kv, scratch.qkv.shape[1], scratch.scores.shape[2]
    scores = address(scratch.scores) + 4 * rank * scratch.scores.shape[1] * ld_scores
    head_output = address(scratch.head_output) + 4 * rank * scratch.head_output.shape[1] * PANEL
    page_size = 4 * cache.memory.shape[1]
    head_size = page_size // ((model.norms.shape[0] - 1) * kv)
    q_weight = _vector(model, max(model.norms[layer, _Q_NORM, 0], _NONE), width)
    k_weight = _vector(model, max(model.norms[layer, _K_NORM, 0], _NONE), width)
    scale, half, eps = 1 / np.sqrt(width), width // 2, model.vectors[0]
    n = 0
    while n < slots.size:
        # Consecutive tokens of one slot attend together.
        rows = 1
        while n + rows < slots.size and slots[n + rows] == slots[n] and rows < scratch.scores.shape[1]:
            rows += 1
        length = positions[n + rows - 1] + 1
        pages = address(cache.table) + 8 * slots[n] * cache.table.shape[1]
        for k in range(rank, kv, size):
            keys = address(cache.memory) + head_size * (layer * kv + k)
            for r in range(n, n + rows):
                row = _row(scratch.qkv, r)
                key = row + 4 * (heads + k) * width
                if not model.gpt2:
                    cos, sin = (
                        float32s(_row(model.cos, positions[r]), half), float32s(_row(model.sin, positions[r]), half),
                    )  # fmt: skip
                    rotate(row + 4 * k * group * width, group, q_weight, eps, cos, sin)
                    rotate(key, _ONE, k_weight, eps, cos, sin)
                page = cache.table[slots[n], positions[r] // PANEL]
                _write_kv(model, key, keys + page_size * page, positions[r] % PANEL)
            for h in range(k * group, (k + 1) * group):
                matmul_keys(_row(scratch.qkv, n) + 4 * h * width, ld_qkv, rows, keys, pages, page_size, width,
                            -(-length // PANEL), scores, ld_scores)  # fmt: skip
                for r in range(rows):
                    softmax(float32s(scores + 4 * r * ld_scores, length), positions[n + r] + 1, scale)
                for first in range(0, width, PANEL):
                    matmul_values(scores, ld_scores, rows, keys + 4 * PANEL * (width + first), pages, page_size, length,
                                  head_output, _PANEL)  # fmt: skip
                    num_columns = min(PANEL, width - first)
                    for r in range(rows):
                        source = float32s(head_output + 4 * r * PANEL, num_columns)
                        target = float32s(_row(scratch.attention_output, n + r) + 4 * (h * width + first), num_columns)
                        for i in range(num_columns):
                            target[i] = source[i]
        n += rows


@kernel(nrt=False)
def _activate(model: PackedModel, scratch: Scratch, rows: int, rank: int, size: int) -> None:
    """This thread's part of the MLP's activation: the panels of `up` that it has computed itself."""
    panels = -(-model.intermediate_size * (1 if model.gpt2 else 2) // PANEL)
    first, last = PANEL * (panels * rank // size), PANEL * (panels * (rank + 1) // size)
    for n in range(rows):
        up = float32s(_row(scratch.up, n) + 4 * first, last - first)
        if model.gpt2:
            hidden = float32s(_row(scratch.mlp_hidden, n) + 4 * first, last - first)
            if model.activation == 1:
                gelu(up, hidden)
            else:
                gelu_new(up, hidden)
        else:
            swiglu(up, float32s(_row(scratch.mlp_hidden, n) + 2 * first, (last - first) // 2))


@kernel(nrt=False)
def blocks(
    model: PackedModel, cache: Pages, ids: IntArray, slots: IntArray, positions: IntArray, scratch: Scratch, rank: int,
    size: int,
) -> None:  # fmt: skip
    """Run tokens ids (N,), at `positions` (N,) of the cache's `slots` (N,), through all blocks, into scratch.x (N, C).

    Run by `size` threads at once, with a barrier after each stage. A slot's new tokens are adjacent and in order.
    """
    rows, layers = ids.size, model.norms.shape[0] - 1
    mlp = model.intermediate_size * (1 if model.gpt2 else 2)
    attention_width = model.n_head * model.head_dim
    x, ldx, normed, ldy = address(scratch.x), scratch.x.shape[1], scratch.normed[rank], scratch.normed.shape[2]
    y = address(normed)
    if rank == 0:
        _embed(model, ids, positions, scratch.x)
    barrier(scratch.sync, size)
    for i in range(layers):
        _norm(model, i, _ATTENTION_NORM, x, ldx, rows, normed)
        _linear(model, i, _QKV, y, ldy, model.n_embd, scratch.qkv, rows,
                attention_width + 2 * model.n_kv_head * model.head_dim, _SET, rank, size)  # fmt: skip
        barrier(scratch.sync, size)
        _attention(model, i, cache, slots, positions, scratch, rank, size)
        barrier(scratch.sync, size)
        _linear(model, i, _OUT, address(scratch.attention_output), scratch.attention_output.shape[1], attention_width,
                scratch.x, rows, model.n_embd, _ADD, rank, size)  # fmt: skip
        barrier(scratch.sync, size)
        _norm(model, i, _MLP_NORM, x, ldx, rows, normed)
        _linear(model, i, _UP, y, ldy, model.n_embd, scratch.up, rows, mlp, _SET, rank, size)
        _activate(model, scratch, rows, rank, size)
        barrier(scratch.sync, size)
        _linear(model, i, _DOWN, address(scratch.mlp_hidden), scratch.mlp_hidden.shape[1], model.intermediate_size,
                scratch.x, rows, model.n_embd, _ADD, rank, size)  # fmt: skip
        barrier(scratch.sync, size)


@kernel(nrt=False)
def head(model: PackedModel, x: int, ldx: int, rows: int, scratch: Scratch, rank: int, size: int) -> None:
    """Final norm and head: scratch.logits (N, V padded) of x (N, C), an address with rows ldx numbers apart."""
    layer, normed = model.norms.shape[0] - 1, scratch.normed[rank]
    _norm(model, layer, _NONE, x, ldx, rows, normed)
    _linear(model, layer, _NONE, address(normed), normed.shape[1], model.n_embd, scratch.logits, rows,
            model.vocab_size, _SET, rank, size)  # fmt: skip
    barrier(scratch.sync, size)
