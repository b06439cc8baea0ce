"""Loads the compiled kernels: from a shared library in an image, else from an object file compiled on this machine.

An image has libraries for several generations of its architecture in the folder GPTBOX_LIBRARIES, made by
`gptbox.engine.kernels.build`; they need neither Numba nor llvmlite. Elsewhere the kernels are compiled at installation
or at the first start: see `gptbox.engine.object_file`.
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

ARGUMENTS = {"gptbox_decode_steps": 11, "gptbox_score": 4, "gptbox_forward": 2}
"""Number of int64 arguments of each function."""
GENERATIONS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "fma", "bmi2", "f16c"},
    "x86-64-v2": {"sse4_2"},
    "aarch64": {"asimd"},
}
"""CPU features, as in /proc/cpuinfo, that each library requires; best first."""
_ENTRY_SIZE = 4
"""int64s per entry of an argument table."""

Function = Callable[..., int]


def find_library(folder: Path) -> Path | None:
    """The best library in `folder` that this processor can run; None if there is none."""
    available = processor()
    machine = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86-64"
    for name, required in GENERATIONS.items():
        path = folder / f"gptbox-{name}.so"
        if name.startswith(machine) and required <= available and path.is_file():
            return path
    return None


class _Function:
    """A compiled function as a Python callable of integers.

    Raises EngineError where the function reports an error.
    """

    def __init__(self, name: str, address: Callable[[str], int]) -> None:
        self._name, self._code = name, address  # the closure keeps the code in memory
        # Numba's calling convention: returns a status; the result and an error description are output pointers.
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
    """Open a shared library; returns a function from names to addresses."""
    library = ctypes.CDLL(str(path))

    def address(name: str) -> int:
        return ctypes.cast(library[name], ctypes.c_void_p).value or 0

    return address


def load(compile_too: bool = True, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Load the kernels; returns whether they are loaded.

    If they are not compiled yet, compiles them in a subprocess, for about half a minute; without `compile_too` returns
    False instead. Compilation stops once `wanted` returns False. Raises EngineError if compiling or loading fails.
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
                code = object_file.compile_and_save(wanted)
            address = object_file.link(code)
        _loaded.update({name: _Function(name, address) for name in ARGUMENTS})
        return True


def _function(name: str) -> Function:
    if not _loaded:
        load()
    return _loaded[name]


def decode_steps(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _function("gptbox_decode_steps")(*arguments)


def score(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _function("gptbox_score")(*arguments)


def forward(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _function("gptbox_forward")(*arguments)


def argument_table(*parts: tuple[Any, ...]) -> NDArray[np.int64]:
    """(fields, 4): each field a number, or the address and shape of an array. The caller keeps the arrays alive.

    `gptbox.engine.kernels.entry` has the order of the fields.
    """
    fields = [field for part in parts for field in part]
    table = np.zeros((len(fields), _ENTRY_SIZE), np.int64)
    for row, field in zip(table, fields, strict=True):
        if isinstance(field, np.ndarray):
            assert field.flags.c_contiguous
            row[: 1 + field.ndim] = field.ctypes.data, *field.shape
        else:
            row[0] = field
    return table
