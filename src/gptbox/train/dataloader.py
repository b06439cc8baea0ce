"""Batches of the training text. They depend only on the seed and the step, so resuming needs no state.

To add a sampling, write a function of (tokens, length, batch_size, seed, step) that returns the start indices of the
batch's crops, (batch_size,), and enter it in SAMPLINGS.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


def crops(tokens: int, length: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Independent crops, uniform over the text, as in nanoGPT."""
    return _generator(seed, step).integers(tokens - length, size=batch_size)


def epochs(tokens: int, length: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Epochs of non-overlapping windows: each window once per epoch in random order, at a random offset per epoch.

    Every token is seen equally often, which `crops` leaves to chance.
    """
    windows = max(1, (tokens - 1) // length - 1)  # one window less than fit, as room for the offset
    indices = step * batch_size + np.arange(batch_size)  # of the windows, counted over all epochs
    starts = np.empty(batch_size, np.int64)
    for epoch in np.unique(indices // windows):
        offset, order = _epoch(tokens, length, windows, seed, int(epoch))
        in_epoch = indices // windows == epoch
        starts[in_epoch] = offset + length * order(indices[in_epoch] % windows)
    return starts


_MAX_PERMUTATION = 2**20
"""Largest number of windows whose order is stored as an array."""


@lru_cache(maxsize=4)
def _epoch(tokens: int, length: int, windows: int, seed: int, epoch: int) -> tuple[int, Callable[[Any], Any]]:
    """The offset of an epoch's windows in the text, and its order: a function from positions to windows, on arrays."""
    random = _generator(seed, 2**63 + epoch)
    offset = int(random.integers(tokens - windows * length))
    if windows <= _MAX_PERMUTATION:
        permutation = random.permutation(windows)
        return offset, lambda i: permutation[i]
    # A permutation that takes no memory: the multiples of a number coprime to `windows`.
    factor = int(random.integers(windows // 3, windows))
    while math.gcd(factor, windows) > 1:
        factor -= 1
    first = int(random.integers(windows))
    return offset, lambda i: (first + factor * i) % windows


SAMPLINGS: dict[str, Callable[[int, int, int, int, int], NDArray[np.int64]]] = {"crops": crops, "epochs": epochs}


class DataLoader:
    """Draws the batches of one shape from the training text."""

    def __init__(
        self, ids: NDArray[np.unsignedinteger], batch_size: int, context_length: int, seed: int, sampling: str = "crops"
    ) -> None:
        """`ids` (tokens,), at least context_length + 1, may be a memory map; `sampling` is a name in SAMPLINGS."""
        self.ids, self.batch_size, self.context_length, self.seed = ids, batch_size, context_length, seed
        self.starts = SAMPLINGS[sampling]
        self.offsets = np.arange(context_length + 1)  # one more than the context: the last target

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, int64 (batch_size, context_length); targets are the inputs shifted by one."""
        starts = self.starts(len(self.ids), self.context_length, self.batch_size, self.seed, step)
        crops = torch.from_numpy(self.ids[starts[:, None] + self.offsets].astype(np.int64))
        return crops[:, :-1].contiguous(), crops[:, 1:].contiguous()
