"""Functions of arrays that NumPy lacks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def ranges(start: Ints, size: Ints) -> Ints:
    """The integers from start[i] to start[i] + size[i] for each i, concatenated."""
    ends = np.cumsum(size)
    return np.repeat(start - (ends - size), size) + np.arange(ends[-1] if len(ends) else 0)


def group_begins(values: NDArray[Any]) -> Ints:
    """The indices at which a new value begins in values of which equal ones stand together, shape (groups,)."""
    if not len(values):
        return np.empty(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
