"""A model's likeliest tokens beside those of a text: how often it is right, and its commonest mistake."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class Confusion(NamedTuple):
    """The commonest pair of ids among wrong predictions; of equally common ones, the lowest ids."""

    expected: int
    """The text's token."""
    predicted: int
    """What the model thought likeliest in its place."""
    share: float
    """Share of the pair among all wrong predictions, 0 to 1."""


class Predictions(NamedTuple):
    """The tokens of a text and, for each, the likeliest one of a model that has read what is before it."""

    expected: NDArray[np.int64]
    """(N,), in any order."""
    predicted: NDArray[np.int64]
    """(N,)."""

    @classmethod
    def concatenate(cls, parts: "Sequence[Predictions]") -> Self:
        """All predictions of `parts`, which may be none."""
        none = np.empty(0, np.int64)
        expected, predicted = zip((none, none), *parts, strict=True)
        return cls(np.concatenate(expected), np.concatenate(predicted))

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions, 0 to 1; None without any prediction."""
        return float((self.expected == self.predicted).mean()) if len(self.expected) else None

    @property
    def confusion(self) -> Confusion | None:
        """The commonest wrong prediction; None if none is wrong."""
        wrong = self.expected != self.predicted
        pairs, counts = np.unique(self.expected[wrong] << 32 | self.predicted[wrong], return_counts=True)
        if not len(counts):
            return None
        most = int(counts.argmax())
        expected, predicted = divmod(int(pairs[most]), 1 << 32)
        return Confusion(expected, predicted, float(counts[most] / counts.sum()))
