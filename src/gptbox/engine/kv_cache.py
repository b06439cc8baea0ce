"""Keys and values of the tokens that were already seen, so that each new token costs one position and not a window."""

import numpy as np
from numpy.typing import NDArray

from gptbox.model_config import ModelConfig


class KVCache:
    """Room for `rows` sequences of up to context_length tokens; row r holds `lengths[r]` of them.

    Nothing is cleared: what stands past a row's length is never read. The arrays are not touched before they are
    used, so that unused rows cost address space and no memory.
    """

    def __init__(self, config: ModelConfig, rows: int) -> None:
        shape = (config.n_layer, rows, config.n_kv_head, config.context_length, config.head_dim)
        self.keys: NDArray[np.float32] = np.empty(shape, np.float32)
        self.values: NDArray[np.float32] = np.empty(shape, np.float32)
        self.lengths: NDArray[np.int64] = np.zeros(rows, np.int64)
        self.context_length = config.context_length

    def move(self, source: int, target: int) -> None:
        """Copy one row over another, to keep the rows in use side by side."""
        length = int(self.lengths[source])
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
        self.lengths[target] = length
