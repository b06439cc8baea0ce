"""The forward pass for both architectures, on tokens of any rows and positions.

A step may decode one token of each of twenty sequences and read a part of the prompt of another. What a token gives
does not depend on what goes beside it, to the last bit. The functions of a block follow `gptbox.train.gpt`.

Shapes: N tokens, C = n_embd, H query heads, K key and value heads, D = head_dim, V = vocab_size, M the MLP's width.
Activations and caches are read and written at their addresses: see gptbox.kernel_memory.
"""

from typing import Any

import numpy as np

from gptbox.engine.kernels.layers import gelu, gelu_new, layer_norm, rms_norm, rotate, swiglu
from gptbox.engine.kernels.meeting import barrier
from gptbox.engine.kernels.paged import multiply_keys, multiply_values
from gptbox.engine.kernels.product import multiply
from gptbox.engine.kernels.softmax import softmax
from gptbox.engine.panels import PANEL
from gptbox.kernel_cache import kernel
from gptbox.kernel_memory import address, floats, small_integers

# Not Python's integers: for each value of those code would be compiled apart.
_QKV, _OUT, _UP, _DOWN = map(np.intp, range(4))
_ATTENTION_NORM, _MLP_NORM, _Q_NORM, _K_NORM = map(np.intp, range(4))
_NONE, _ONE = np.intp(0), np.intp(1)
_SET, _ADD = np.intp(0), np.intp(1)
_PANEL = np.intp(PANEL)


@kernel(counted=False, inline=True)
def _row(array: Any, n: int) -> int:
    """The address of row n of a contiguous float32 array (N, width)."""
    return address(array) + 4 * n * array.shape[1]


@kernel(counted=False, inline=True)
def _vector(net: Any, place: int, count: int) -> Any:
    return floats(address(net.vectors) + 4 * place, count)


@kernel(counted=False)
def _linear(net: Any, layer: int, which: int, x: int, ldx: int, inputs: int, y: Any, rows: int, outputs: int, add: int,
            rank: int, size: int) -> None:  # fmt: skip
    """This thread's share of y (N, outputs) = x (N, inputs) times a matrix, plus its bias; or that added to y.

    `x` is an address, its rows ldx numbers apart.
    """
    panels_at, bias_at, steps_at = net.matrices[layer, which]
    panels = -(-outputs // PANEL)
    first, last = panels * rank // size, panels * (rank + 1) // size
    steps = address(net.vectors) + 4 * steps_at if steps_at >= 0 else _NONE
    multiply(x, ldx, rows, address(net.panels) + panels_at, steps, inputs, first, last, address(y), y.shape[1],
             add)  # fmt: skip
    if bias_at >= 0:
        bias = _vector(net, bias_at + first * PANEL, (last - first) * PANEL)
        for n in range(rows):
            part = floats(_row(y, n) + 4 * first * PANEL, bias.size)
            for i in range(bias.size):
                part[i] += bias[i]


@kernel(counted=False)
def _norm(net: Any, layer: int, which: int, x: int, ldx: int, rows: int, y: Any) -> None:
    """y (N, C), the norm of x (N, C), which is an address."""
    weight_at, bias_at = net.norms[layer, which]
    weight = _vector(net, weight_at, net.n_embd)
    bias = _vector(net, max(bias_at, 0), net.n_embd if bias_at >= 0 else 0)
    eps = net.vectors[0]
    for n in range(rows):
        source, target = floats(x + 4 * n * ldx, net.n_embd), floats(_row(y, n), net.n_embd)
        if net.gpt2:
            layer_norm(source, weight, bias, eps, target)
        else:
            rms_norm(source, weight, eps, target)


@kernel(counted=False)
def _embed(net: Any, ids: Any, positions: Any, x: Any) -> None:
    for n in range(ids.size):
        token, row = ids[n], floats(_row(x, n), net.n_embd)
        if net.embedding.size:
            for i in range(net.n_embd):
                row[i] = net.embedding[token, i]
        else:
            panels_at, _, steps_at = net.matrices[net.matrices.shape[0] - 1, 0]
            at = (token // PANEL) * net.n_embd * PANEL + token % PANEL
            if steps_at >= 0:
                narrow = small_integers(address(net.panels) + panels_at + at, net.n_embd * PANEL)
                for i in range(net.n_embd):
                    row[i] = np.float32(narrow[i * PANEL]) * net.vectors[steps_at + token]
            else:
                wide = floats(address(net.panels) + panels_at + 4 * at, net.n_embd * PANEL)
                for i in range(net.n_embd):
                    row[i] = wide[i * PANEL]
        if net.gpt2:
            for i in range(net.n_embd):
                row[i] += net.position[positions[n], i]


@kernel(counted=False)
def _remember(net: Any, x: int, keys: int, at: int) -> None:
    """Write the key and the value of one head, at address x of qkv, to position `at` of the page with its keys."""
    width = net.head_dim
    key, panel = floats(x, width), floats(keys, width * PANEL)
    for i in range(width):
        panel[i * PANEL + at] = key[i]
    for first in range(0, width, PANEL):
        some = min(PANEL, width - first)
        source = floats(x + 4 * (net.n_kv_head * width + first), some)
        target = floats(keys + 4 * PANEL * (width + first + at), some)
        for i in range(some):
            target[i] = source[i]


@kernel(counted=False)
def _attention(net: Any, layer: int, cache: Any, slots: Any, positions: Any, s: Any, rank: int, size: int) -> None:
    """This thread's heads: their keys and values into the cache, and what their queries read, into `mixed`."""
    heads, kv, width = net.n_head, net.n_kv_head, net.head_dim
    group, wide, room = heads // kv, s.qkv.shape[1], s.scores.shape[2]
    scores = address(s.scores) + 4 * rank * s.scores.shape[1] * room
    read = address(s.read) + 4 * rank * s.read.shape[1] * PANEL
    page_size = 4 * cache.memory.shape[1]
    head_size = page_size // ((net.norms.shape[0] - 1) * kv)
    q_weight = _vector(net, max(net.norms[layer, _Q_NORM, 0], _NONE), width)
    k_weight = _vector(net, max(net.norms[layer, _K_NORM, 0], _NONE), width)
    scale, half, eps = 1 / np.sqrt(width), width // 2, net.vectors[0]
    n = 0
    while n < slots.size:
        # A slot's tokens that follow each other are read for at once.
        rows = 1
        while n + rows < slots.size and slots[n + rows] == slots[n] and rows < s.scores.shape[1]:
            rows += 1
        length = positions[n + rows - 1] + 1
        pages = address(cache.table) + 8 * slots[n] * cache.table.shape[1]
        for k in range(rank, kv, size):
            keys = address(cache.memory) + head_size * (layer * kv + k)
            for r in range(n, n + rows):
                row = _row(s.qkv, r)
                key = row + 4 * (heads + k) * width
                if not net.gpt2:
                    cos, sin = floats(_row(net.cos, positions[r]), half), floats(_row(net.sin, positions[r]), half)
                    rotate(row + 4 * k * group * width, group, q_weight, eps, cos, sin)
                    rotate(key, _ONE, k_weight, eps, cos, sin)
                page = cache.table[slots[n], positions[r] // PANEL]
                _remember(net, key, keys + page_size * page, positions[r] % PANEL)
            for h in range(k * group, (k + 1) * group):
                multiply_keys(_row(s.qkv, n) + 4 * h * width, wide, rows, keys, pages, page_size, width,
                              -(-length // PANEL), scores, room)  # fmt: skip
                for r in range(rows):
                    softmax(floats(scores + 4 * r * room, length), positions[n + r] + 1, scale)
                for first in range(0, width, PANEL):
                    multiply_values(scores, room, rows, keys + 4 * PANEL * (width + first), pages, page_size, length,
                                    read, _PANEL)  # fmt: skip
                    some = min(PANEL, width - first)
                    for r in range(rows):
                        source = floats(read + 4 * r * PANEL, some)
                        target = floats(_row(s.mixed, n + r) + 4 * (h * width + first), some)
                        for i in range(some):
                            target[i] = source[i]
        n += rows


@kernel(counted=False)
def _activate(net: Any, s: Any, rows: int, rank: int, size: int) -> None:
    """This thread's part of the MLP's hidden layer: that of the panels it has computed of `up`."""
    panels = -(-net.intermediate_size * (1 if net.gpt2 else 2) // PANEL)
    first, last = PANEL * (panels * rank // size), PANEL * (panels * (rank + 1) // size)
    for n in range(rows):
        up = floats(_row(s.up, n) + 4 * first, last - first)
        if net.gpt2:
            hidden = floats(_row(s.hidden, n) + 4 * first, last - first)
            if net.activation == 1:
                gelu(up, hidden)
            else:
                gelu_new(up, hidden)
        else:
            swiglu(up, floats(_row(s.hidden, n) + 2 * first, (last - first) // 2))


@kernel(counted=False)
def blocks(net: Any, cache: Any, ids: Any, slots: Any, positions: Any, s: Any, rank: int, size: int) -> None:
    """From ids (N,) at `positions` of the cache's `slots` to the last block's output, in s.x.

    Run by `size` threads at once, which meet after each part; a row's new tokens stand in their order.
    """
    rows, layers = ids.size, net.norms.shape[0] - 1
    mlp = net.intermediate_size * (1 if net.gpt2 else 2)
    attended = net.n_head * net.head_dim
    x, ldx, normed, wide = address(s.x), s.x.shape[1], s.normed[rank], s.normed.shape[2]
    y = address(normed)
    if rank == 0:
        _embed(net, ids, positions, s.x)
    barrier(s.meeting, size)
    for i in range(layers):
        _norm(net, i, _ATTENTION_NORM, x, ldx, rows, normed)
        _linear(net, i, _QKV, y, wide, net.n_embd, s.qkv, rows, attended + 2 * net.n_kv_head * net.head_dim, _SET,
                rank, size)  # fmt: skip
        barrier(s.meeting, size)
        _attention(net, i, cache, slots, positions, s, rank, size)
        barrier(s.meeting, size)
        _linear(net, i, _OUT, address(s.mixed), s.mixed.shape[1], attended, s.x, rows, net.n_embd, _ADD, rank, size)
        barrier(s.meeting, size)
        _norm(net, i, _MLP_NORM, x, ldx, rows, normed)
        _linear(net, i, _UP, y, wide, net.n_embd, s.up, rows, mlp, _SET, rank, size)
        _activate(net, s, rows, rank, size)
        barrier(s.meeting, size)
        _linear(net, i, _DOWN, address(s.hidden), s.hidden.shape[1], net.intermediate_size, s.x, rows, net.n_embd,
                _ADD, rank, size)  # fmt: skip
        barrier(s.meeting, size)


@kernel(counted=False)
def head(net: Any, x: int, ldx: int, rows: int, s: Any, rank: int, size: int) -> None:
    """s.logits (N, V filled up) of x (N, C), which is an address, its rows ldx numbers apart."""
    layer, normed = net.norms.shape[0] - 1, s.normed[rank]
    _norm(net, layer, _NONE, x, ldx, rows, normed)
    _linear(net, layer, _NONE, address(normed), normed.shape[1], net.n_embd, s.logits, rows, net.vocab_size, _SET, rank,
            size)  # fmt: skip
    barrier(s.meeting, size)
