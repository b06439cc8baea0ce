"""The compiled functions that the engine calls: from a library in an image, or from an object file of this machine's.

An image holds libraries in the folder GPTBOX_LIBRARIES, for several generations of its processor's architecture, made
by `gptbox.engine.kernels.build`: with one of those neither Numba nor llvmlite is needed. Elsewhere the first start
compiles, or an installation does: see `gptbox.engine.object_file`.
"""

import ctypes
import os
import platform
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptbox.engine import object_file
from gptbox.engine.object_file import processor
from gptbox.errors import EngineError

ARGUMENTS = {"gptbox_burst": 11, "gptbox_score": 4, "gptbox_forward": 2}
"""How many integers each function takes."""
GENERATIONS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "fma", "bmi2", "f16c"},
    "x86-64-v2": {"sse4_2"},
    "aarch64": {"asimd"},
}
"""What a processor must have, by /proc/cpuinfo, for each library; the best first."""
_ENTRY = 4

Function = Callable[..., int]


def find_library(folder: Path) -> Path | None:
    """The best library in a folder that this processor can run."""
    has = processor()
    machine = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86-64"
    for name, needed in GENERATIONS.items():
        path = folder / f"gptbox-{name}.so"
        if name.startswith(machine) and needed <= has and path.is_file():
            return path
    return None


class _Function:
    """A compiled function as one of Python."""

    def __init__(self, name: str, address: Callable[[str], int]) -> None:
        self._name, self._code = name, address  # which holds the code in memory
        # Numba's own convention: a status, then by address the result and what there is to say of an error.
        arguments = [ctypes.c_int64] * ARGUMENTS[name]
        self._function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *arguments)(address(name))

    def __call__(self, *arguments: int) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        if self._function(ctypes.byref(result), ctypes.byref(error), *arguments) != 0:
            raise EngineError(f"{self._name} failed.")
        return result.value


_loaded: dict[str, Function] = {}
_loading = threading.Lock()


def _from_library(path: Path) -> Callable[[str], int]:
    library = ctypes.CDLL(str(path))

    def address(name: str) -> int:
        return ctypes.cast(library[name], ctypes.c_void_p).value or 0

    return address


def load(compile_too: bool = True, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Have the functions ready; whether they are.

    Where they are not compiled yet, that is done in a process of its own, for half a minute, unless `compile_too` says
    otherwise, and until `wanted` says no more. Raises EngineError where it cannot be done.
    """
    with _loading:
        if _loaded:
            return True
        folder = os.environ.get("GPTBOX_LIBRARIES")
        if path := find_library(Path(folder)) if folder else None:
            address = _from_library(path)
        else:
            if not all(map(find_spec, ("numba", "llvmlite"))):
                raise EngineError(
                    f"The engine is not compiled for this processor ({platform.machine()}), and numba, which compiles "
                    "it, is not installed. Build the image on this machine, or install numba."
                )
            code = object_file.find()
            if code is None:
                if not compile_too:
                    return False
                code = object_file.compile_and_keep(wanted)
            address = object_file.link(code)
        _loaded.update({name: _Function(name, address) for name in ARGUMENTS})
        return True


def _function(name: str) -> Function:
    if not _loaded:
        load()
    return _loaded[name]


def burst(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _function("gptbox_burst")(*arguments)


def score(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _function("gptbox_score")(*arguments)


def forward(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _function("gptbox_forward")(*arguments)


def table(*parts: tuple[Any, ...]) -> NDArray[np.int64]:
    """Numbers and arrays as compiled code finds them; whoever holds it must hold the arrays, too."""
    fields = [field for part in parts for field in part]
    result = np.zeros((len(fields), _ENTRY), np.int64)
    for row, field in zip(result, fields, strict=True):
        if isinstance(field, np.ndarray):
            assert field.flags.c_contiguous
            row[: 1 + field.ndim] = field.ctypes.data, *field.shape
        else:
            row[0] = field
    return result
