"""The compiled functions that the engine calls: from a library that was compiled ahead, or by Numba in this process.

An image holds libraries in the folder GPTBOX_LIBRARIES, for several generations of its processor's architecture, made
by `gptbox.engine.kernels.build`; with one of those neither Numba nor a compiler is needed: 130 MB of memory less.
"""

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def _processor(file: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What this processor has."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()}


def find_library(folder: Path) -> Path | None:
    """The best library in a folder that this processor can run."""
    has = _processor()
    machine = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86-64"
    for name, needed in GENERATIONS.items():
        path = folder / f"gptbox-{name}.so"
        if name.startswith(machine) and needed <= has and path.is_file():
            return path
    return None


def _from_library(path: Path) -> dict[str, Function]:
    library = ctypes.CDLL(str(path))
    found: dict[str, Function] = {}
    for name, count in ARGUMENTS.items():
        function = getattr(library, name)
        # Numba's own convention: a status, then by address the result and what there is to say of an error.
        function.restype = ctypes.c_int
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * count]
        found[name] = _Checked(function, name)
    return found


class _Checked:
    """A library's function as one of Python."""

    def __init__(self, function: Any, name: str) -> None:
        self._function, self._name = function, name

    def __call__(self, *arguments: int) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        if self._function(ctypes.byref(result), ctypes.byref(error), *arguments) != 0:
            raise EngineError(f"{self._name} failed.")
        return result.value


@cache
def _functions() -> dict[str, Function]:
    folder = os.environ.get("GPTBOX_LIBRARIES")
    path = find_library(Path(folder)) if folder else None
    if path is not None:
        return _from_library(path)
    try:
        from gptbox.engine.kernels.entry import FUNCTIONS
    except ModuleNotFoundError as error:
        raise EngineError(
            f"There is no library for this processor ({platform.machine()}) in {folder}, and {error.name}, which could "
            "compile one, is not installed. Build the image on this machine, or install numba."
        ) from None
    return FUNCTIONS


def burst(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _functions()["gptbox_burst"](*arguments)


def score(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _functions()["gptbox_score"](*arguments)


def forward(*arguments: int) -> int:
    """See `gptbox.engine.kernels.entry`."""
    return _functions()["gptbox_forward"](*arguments)


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
