"""Random crops of the training text; a batch depends on the seed and the step alone, so resuming needs no state."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class DataLoader:
    def __init__(self, ids: NDArray[np.uint16], batch_size: int, context_length: int, seed: int) -> None:
        """`ids` (tokens,), at least context_length + 1 of them; may be a memory map."""
        self.ids, self.batch_size, self.seed = ids, batch_size, seed
        self.offsets = np.arange(context_length + 1)
        self.starts = len(ids) - context_length  # a crop has one token more than the context: the last target

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, each (batch_size, context_length) int64; a target is the token after."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        starts = random.integers(self.starts, size=(self.batch_size, 1))
        crops = torch.from_numpy(self.ids[starts + self.offsets].astype(np.int64))
        return crops[:, :-1], crops[:, 1:]
