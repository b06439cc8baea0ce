"""Keys and values of the tokens that were already seen, so that each new token costs one position and not a window."""

import numpy as np
from numpy.typing import NDArray

from gptbox.model_config import ModelConfig


class KVCache:
    """Room for `rows` sequences of up to context_length tokens; row r holds `lengths[r]` of them.

    Nothing is cleared between sequences. What stands past a row's length is masked where a longer row is read beside
    it, so it must be finite: hence zeros at first, which cost no memory before a row is used.
    """

    def __init__(self, config: ModelConfig, rows: int) -> None:
        shape = (config.n_layer, rows, config.n_kv_head, config.context_length, config.head_dim)
        self.keys: NDArray[np.float32] = np.zeros(shape, np.float32)
        self.values: NDArray[np.float32] = np.zeros(shape, np.float32)
        self.lengths: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.context_length = config.context_length

    def move(self, source: int, target: int) -> None:
        """Copy one row over another, to keep the rows in use side by side."""
        length = int(self.lengths[source])
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
        self.lengths[target] = length
