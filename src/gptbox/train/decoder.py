"""Decoding with a model in training: one token at a time, with a KV cache, in compiled code.

Torch takes 2 ms per token of a small model, nearly all of it overhead: the samples of a run would cost more than its
loss estimates.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gptbox.train.cpu_backend import block_weights, head_weights, weights_of
from gptbox.train.gpt import GPT
from gptbox.train.kernels.decode import decode_block, decode_head


class CompiledDecoder:
    """A `gptbox.train.gpt.Decoder` in compiled code, for models that `cpu_backend.supports`."""

    def __init__(self, model: GPT) -> None:
        c = model.config
        weights = weights_of(model)
        self._blocks = [block_weights(weights, i) for i in range(c.n_layer)]
        self._embedding, self._head = weights["embedding.weight"], head_weights(weights, c)
        self._rotary_tables = model.cos.numpy(), model.sin.numpy()
        self._eps = np.float32(c.norm_eps)
        shape = (c.n_layer, c.context_length, c.n_kv_head, c.head_dim)
        self._keys, self._values = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._x, self._branch = np.empty((1, c.n_embd), np.float32), np.empty((1, c.n_embd), np.float32)
        self.length = 0

    def reset(self) -> None:
        self.length = 0

    def __call__(self, ids: Sequence[int]) -> Tensor:
        for token in ids:
            self._x[0] = self._embedding[token]
            for i, weights in enumerate(self._blocks):
                decode_block(
                    self._x, self._branch, i == 0, self.length, *self._rotary_tables, self._eps, weights, self._keys[i],
                    self._values[i],
                )  # fmt: skip
            self.length += 1
        logits = np.empty((1, self._head.output.shape[0]), np.float32)
        decode_head(self._x, self._branch, self._eps, self._head, logits)
        return torch.from_numpy(logits[0])
