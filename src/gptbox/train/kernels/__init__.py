"""Numba kernels of training on a CPU: loops that LLVM vectorises, and BLAS for the matrix products.

A chain of small torch operations reads and writes every activation once per operation, a fused kernel only once.
Kernels run on the calling thread and release the GIL; they are compiled on first call and cached.

Arrays are float32 and C-contiguous unless noted. Shapes: N tokens (B rows of T), C the width, H query heads, K key and
value heads, D = head_dim, V = vocab_size, M the MLP's width.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
