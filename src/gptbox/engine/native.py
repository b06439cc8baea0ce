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

from gptbox.engine import object_file
from gptbox.engine.abi import ENTRY_POINTS, symbol
from gptbox.engine.object_file import processor
from gptbox.errors import EngineError

GENERATIONS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "fma", "bmi2", "f16c"},
    "x86-64-v2": {"sse4_2"},
    "aarch64": {"asimd"},
}
"""CPU features, as in /proc/cpuinfo, that each library requires; best first."""

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
        arguments = [ctypes.c_int64] * len(ENTRY_POINTS[name])
        function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *arguments)
        self._function = function(address(symbol(name)))

    def __call__(self, *arguments: int) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        if self._function(ctypes.byref(result), ctypes.byref(error), *arguments) != 0:
            raise EngineError(f"{self._name} failed.")
        return result.value


_loaded: dict[str, Function] = {}
_target: str | None = None
_loading = threading.Lock()


def _from_library(path: Path) -> Callable[[str], int]:
    """Open a shared library; returns a function from symbols to addresses that raises EngineError."""
    library = ctypes.CDLL(str(path))

    def address(name: str) -> int:
        try:
            return ctypes.cast(library[name], ctypes.c_void_p).value or 0
        except AttributeError:
            raise EngineError(
                f"{path} was compiled from another version of gptbox. Compile it again: "
                f"python -m gptbox.engine.kernels.build {path.parent}"
            ) from None

    return address


def load(compile_too: bool = True, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Load the kernels; returns whether they are loaded.

    If they are not compiled yet, compiles them in a subprocess, which takes about half a minute; without `compile_too`
    returns False instead. Raises EngineError if compiling or loading fails, and if `wanted` returns False meanwhile.
    """
    global _target
    with _loading:
        if _loaded:
            return True
        folder = os.environ.get("GPTBOX_LIBRARIES")
        if path := find_library(Path(folder)) if folder else None:
            address, compiled_for = _from_library(path), path.stem
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
            address, compiled_for = object_file.link(code), object_file.target()
        functions = {name: _Function(name, address) for name in ENTRY_POINTS}
        _target = compiled_for
        _loaded.update(functions)
        return True


def target() -> str | None:
    """What the loaded kernels were compiled for: a library's name, or `object_file.target`. None until they are."""
    return _target if _loaded else None


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
