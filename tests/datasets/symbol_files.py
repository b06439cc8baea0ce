"""Texts as files of symbols."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import numpy as np

from gptbox.datasets.winnowing import SymbolFile


@contextmanager
def symbol_file(text: bytes, num_train: int = 0, dtype: type[np.unsignedinteger] = np.uint8) -> Iterator[SymbolFile]:
    with TemporaryFile() as file:
        file.write(text)
        file.flush()
        yield SymbolFile(file, np.dtype(dtype), len(text) // np.dtype(dtype).itemsize, num_train)
