"""The engine's kernels as an object file: compiled in a subprocess, cached on disk, linked in memory.

Compiling takes Numba half a minute and 400 MB. A process that only runs the kernels needs LLVM's linker, from llvmlite:
60 ms and 55 MB, most of it pages of llvmlite's own file.
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
from importlib.metadata import version
from pathlib import Path

from gptbox.engine.abi import VERSION
from gptbox.errors import EngineError
from gptbox.jit.cache import cache_folders, trusted, writable_cache_folder
from gptbox.system.atomic import atomic_file, remove_temporaries

log = logging.getLogger(__name__)

KERNELS = Path(__file__).parent / "kernels"
_BUILD = "gptbox.engine.kernels.build"
_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe")
"""First bytes of object files: ELF (Linux) and Mach-O (macOS)."""
_DIGEST = 32
"""Bytes of the SHA-256 at the end of a cached file."""
_POLL_S = 0.1
"""Interval between checks whether a compilation is still wanted."""


def processor(file: Path = Path("/proc/cpuinfo")) -> set[str]:
    """This processor's features, as Linux names them; empty without /proc/cpuinfo."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()}


def _name() -> str:
    """The file name, unique to this processor, compilation target and binary interface."""
    target = [os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")]
    parts = [platform.system(), platform.machine(), *sorted(processor()), *target, VERSION]
    return f"gptbox-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}.o"


def target() -> str:
    """What an object file is compiled by and for: compiler versions, processor and its features."""
    from llvmlite import binding

    # As in gptbox.engine.kernels.build.
    features = os.environ.get("NUMBA_CPU_FEATURES")
    parts = [
        *(f"{name} {version(name)}" for name in ("numba", "llvmlite")),
        os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten() if features is None else features,
    ]
    return " ".join(parts)


def find() -> bytes | None:
    """The cached object file for this processor and these sources; None if missing, damaged or not trusted."""
    for folder in cache_folders(KERNELS):
        path = folder / _name()
        with suppress(OSError):
            is_trusted = all(trusted(each, KERNELS) for each in (folder.parent, folder, path))
            content = path.read_bytes() if is_trusted else b""
            code, digest = content[:-_DIGEST], content[-_DIGEST:]
            if code and hashlib.sha256(code).digest() == digest:
                return code
    return None


def compile_in_subprocess(
    environment: Mapping[str, str] | None = None, wanted: Callable[[], bool] = lambda: True
) -> bytes:
    """Compile in a subprocess, with `environment` added to its variables; returns the object file.

    The subprocess is killed once `wanted` returns False. Raises EngineError if compilation fails or is stopped.
    """
    command = [sys.executable, "-m", _BUILD, "--object"]
    with subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    code, errors = child.communicate(timeout=_POLL_S)
                    break
                if not wanted():
                    raise EngineError("The engine's compilation was stopped.")
        finally:
            child.kill()
    # Checked, because LLVM aborts the process on anything but an object file.
    if child.returncode != 0 or not code.startswith(_MAGIC):
        last_line = errors.decode(errors="replace").strip().rpartition("\n")[2]
        outcome = f"ended with {child.returncode}" if child.returncode else "wrote no object file"
        reason = last_line or f"its process {outcome}"
        raise EngineError(f"The engine could not be compiled for this processor ({platform.machine()}): {reason}.")
    return code


def save(code: bytes) -> Path | None:
    """Cache an object file for `find`, and return its path; None where no folder is writable or the disk is full."""
    folder = writable_cache_folder(KERNELS)
    if folder is None:
        return None
    try:
        remove_temporaries(folder)
        with atomic_file(folder / _name()) as temporary:
            temporary.write_bytes(code + hashlib.sha256(code).digest())
    except OSError:  # the disk is full
        return None
    return folder / _name()


def compile_and_save(wanted: Callable[[], bool] = lambda: True) -> bytes:
    """Compile and cache the kernels, and log both; returns the object file.

    Raises EngineError if compilation fails or is stopped.
    """
    log.info("compiling the engine for this processor, once: about half a minute")
    began = time.monotonic()
    code = compile_in_subprocess(wanted=wanted)
    seconds = time.monotonic() - began
    if path := save(code):
        log.info("compiled the engine in %.0f s; kept in %s", seconds, path)
    else:
        log.warning(
            "compiled the engine in %.0f s; no folder can be written to, so the next start compiles again", seconds
        )
    return code


def link(code: bytes) -> Callable[[str], int]:
    """Link an object file into this process; returns a function from symbols to addresses.

    Raises EngineError if it cannot be loaded.
    """
    from llvmlite import binding

    try:
        binding.check_jit_execution()
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine()
        # llvmlite's memory manager places sections side by side: the small code model requires them within 2 GB.
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine, use_lmm=True)
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
    except (OSError, RuntimeError) as error:
        raise EngineError(f"The compiled engine cannot be loaded: {error}.") from None

    def address(name: str) -> int:
        found: int = engine.get_function_address(name)
        assert found, f"the object file has no {name}"
        return found

    return address
