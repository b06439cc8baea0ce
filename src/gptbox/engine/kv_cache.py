"""Keys and values of the tokens that were already seen, so that each new token costs one position and not a window."""

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.panels import PANEL, padded
from gptbox.memory import allocate
from gptbox.model_config import ModelConfig


class KVCache:
    """Room for sequences of up to context_length tokens, one a slot; slot s holds `lengths[s]` of them.

    Both are laid out as the weights of a product (`gptbox.engine.panels`): the positions are a query's outputs and
    what it reads of the values its inputs. Nothing is cleared between sequences. A slot costs memory once it is used.
    """

    def __init__(self, config: ModelConfig, slots: int) -> None:
        context, width = padded(config.context_length), config.head_dim
        shape = (slots, config.n_layer, config.n_kv_head)
        self.keys, self.values = allocate(
            (*shape, context // PANEL, width, PANEL), (*shape, padded(width) // PANEL, context, PANEL)
        )
        self.lengths: NDArray[np.int64] = np.zeros(slots, np.int64)

    @staticmethod
    def slot_bytes(config: ModelConfig) -> int:
        """What a slot costs once its context is full."""
        width = config.head_dim + padded(config.head_dim)
        return 4 * config.n_layer * config.n_kv_head * width * padded(config.context_length)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let slot `target` hold the first `length` tokens of slot `source`."""
        panels = padded(length) // PANEL
        self.keys[target, :, :, :panels] = self.keys[source, :, :, :panels]
        self.values[target, :, :, :, :length] = self.values[source, :, :, :, :length]
        self.lengths[target] = length
