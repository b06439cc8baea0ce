"""Which pieces of the training text a step sees; it depends on the seed and the step alone, so resuming needs no state.

A new way is a function here and a line in SAMPLINGS.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def _random(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))


def crops(tokens: int, length: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Anywhere in the text, each by itself, as nanoGPT has it."""
    return _random(seed, step).integers(tokens - length, size=batch_size)


def epochs(tokens: int, length: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Every window once, in a random order, before any comes again; cut elsewhere each time.

    Every token is seen equally often, which crops leave to chance.
    """
    windows = max(1, (tokens - 1) // length - 1)  # the rest is room for cutting elsewhere
    numbers = step * batch_size + np.arange(batch_size)
    starts = np.empty(batch_size, np.int64)
    for epoch in np.unique(numbers // windows):
        shift, order = _epoch(tokens, length, windows, seed, int(epoch))
        here = numbers // windows == epoch
        starts[here] = shift + length * order(numbers[here] % windows)
    return starts


_LARGEST_PERMUTATION = 2**20


@lru_cache(maxsize=4)
def _epoch(tokens: int, length: int, windows: int, seed: int, epoch: int) -> tuple[int, Callable[[Any], Any]]:
    """Where the first window begins, and which of them comes as the i-th (an array of i)."""
    random = _random(seed, 2**63 + epoch)
    shift = int(random.integers(tokens - windows * length))
    if windows <= _LARGEST_PERMUTATION:
        permutation = random.permutation(windows)
        return shift, lambda i: permutation[i]
    # A permutation that needs no memory: the multiples of a number prime to theirs.
    factor = int(random.integers(windows // 3, windows))
    while math.gcd(factor, windows) > 1:
        factor -= 1
    first = int(random.integers(windows))
    return shift, lambda i: (first + factor * i) % windows


SAMPLINGS: dict[str, Callable[[int, int, int, int, int], NDArray[np.int64]]] = {"crops": crops, "epochs": epochs}


class DataLoader:
    def __init__(
        self, ids: NDArray[np.uint16], batch_size: int, context_length: int, seed: int, sampling: str = "crops"
    ) -> None:
        """`ids` (tokens,), at least context_length + 1 of them; may be a memory map. `sampling`: see SAMPLINGS."""
        self.ids, self.batch_size, self.context_length, self.seed = ids, batch_size, context_length, seed
        self.starts = SAMPLINGS[sampling]
        self.offsets = np.arange(context_length + 1)  # one token more than the context: the last target

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, each (batch_size, context_length) int64; a target is the token after."""
        starts = self.starts(len(self.ids), self.context_length, self.batch_size, self.seed, step)
        pieces = torch.from_numpy(self.ids[starts[:, None] + self.offsets].astype(np.int64))
        return pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()
