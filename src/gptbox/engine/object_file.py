"""The engine's kernels as an object file: compiled by a process of its own, kept on the disk, linked in memory.

Numba takes half a minute and 400 MB to compile them. A process that only runs them needs LLVM's linker, which llvmlite
has: 60 ms and 55 MB, most of it pages of llvmlite's own file.
"""

import hashlib
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from gptbox.atomic import atomic_file, remove_temporaries
from gptbox.errors import EngineError
from gptbox.kernel_cache import places, trusted, writable_place

log = logging.getLogger(__name__)

KERNELS = Path(__file__).parent / "kernels"
_BUILD = "gptbox.engine.kernels.build"
_BEGINNINGS = (b"\x7fELF", b"\xcf\xfa\xed\xfe")
"""Of object files, on Linux and on macOS."""
_DIGEST = 32
"""Bytes of the SHA-256 that a kept file ends with."""
_LOOK_S = 0.1
"""How often a compilation is asked whether it is still wanted."""


def processor(file: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What this processor has, in Linux' words; nothing where there is no such file."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()}


def _name() -> str:
    """The file's, which another processor's or another target's has not."""
    target = [os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")]
    parts = [platform.system(), platform.machine(), *sorted(processor()), *target]
    return f"gptbox-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}.o"


def find() -> bytes | None:
    """What was compiled for this processor from these sources, where it was kept."""
    for place in places(KERNELS):
        path = place / _name()
        with suppress(OSError):
            mine = all(trusted(each, KERNELS) for each in (place.parent, place, path))
            content = path.read_bytes() if mine else b""
            code, digest = content[:-_DIGEST], content[-_DIGEST:]
            if code and hashlib.sha256(code).digest() == digest:
                return code
    return None


def compile_apart(environment: Mapping[str, str] | None = None, wanted: Callable[[], bool] = lambda: True) -> bytes:
    """Compile in a process of its own, until `wanted` says no more.

    Raises EngineError where that fails.
    """
    command = [sys.executable, "-m", _BUILD, "--object"]
    with subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code, said = child.communicate(timeout=_LOOK_S)
                    break
                if not wanted():
                    raise EngineError("The engine's compilation was stopped.")
        finally:
            child.kill()
    # LLVM ends the process that gives it anything else.
    if child.returncode != 0 or not code.startswith(_BEGINNINGS):
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        ended = f"ended with {child.returncode}" if child.returncode else "wrote no object file"
        reason = last or f"its process {ended}"
        raise EngineError(f"The engine could not be compiled for this processor ({platform.machine()}): {reason}.")
    return code


def keep(code: bytes) -> Path | None:
    """Write what was compiled to where `find` looks; None where nothing can be written to."""
    place = writable_place(KERNELS)
    if place is None:
        return None
    try:
        remove_temporaries(place)
        with atomic_file(place / _name()) as temporary:
            temporary.write_bytes(code + hashlib.sha256(code).digest())
    except OSError:  # the disk is full
        return None
    return place / _name()


def compile_and_keep(wanted: Callable[[], bool] = lambda: True) -> bytes:
    """Compile and keep, and say so.

    Raises EngineError.
    """
    log.info("compiling the engine for this processor, once: about half a minute")
    began = time.monotonic()
    code = compile_apart(wanted=wanted)
    took = time.monotonic() - began
    if kept := keep(code):
        log.info("compiled the engine in %.0f s; kept in %s", took, kept)
    else:
        log.warning(
            "compiled the engine in %.0f s; no folder can be written to, so the next start compiles again", took
        )
    return code


def link(code: bytes) -> Callable[[str], int]:
    """Where a function of an object file is, by its name: link it into this process.

    Raises EngineError.
    """
    from llvmlite import binding

    try:
        binding.check_jit_execution()
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine()
        # llvmlite's own memory manager, which lays sections side by side: the code's model expects them within 2 GB.
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine, use_lmm=True)
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
    except (OSError, RuntimeError) as error:
        raise EngineError(f"The compiled engine cannot be loaded: {error}.") from None

    def address(name: str) -> int:
        found: int = engine.get_function_address(name)
        assert found, f"there is no {name}"
        return found

    return address
