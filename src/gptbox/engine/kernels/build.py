"""Compile the engine's kernels ahead of time.

    python -m gptbox.engine.kernels.build                 for this processor, into the cache; half a minute
    python -m gptbox.engine.kernels.build FOLDER          shared libraries for every generation of this architecture

The second needs a linker, binutils' ld. Both run `--object` in a subprocess, which writes an object file to standard
output, for the processor that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name, or for this one.
"""

import inspect
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from gptbox.engine import object_file
from gptbox.engine.abi import ENTRY_POINTS, symbol
from gptbox.engine.native import GENERATIONS
from gptbox.jit.cache import disable_cache


def _object() -> bytes:
    """The object file of the entry points and their callees, all else stripped."""
    disable_cache()
    from llvmlite import binding
    from numba import types

    from gptbox.engine.kernels.entry import FUNCTIONS

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    linked = None
    for name, function in FUNCTIONS.items():
        parameters = ENTRY_POINTS[name]
        assert tuple(inspect.signature(function.py_func).parameters) == parameters
        function.compile((types.int64,) * len(parameters))
        (signature,) = function.signatures
        compiled = function.overloads[signature]
        text = function.inspect_llvm(signature).replace(compiled.fndesc.llvm_func_name, symbol(name))
        module = binding.parse_assembly(text)
        if linked is None:
            linked = module
        else:
            linked.link_in(module)
    assert linked is not None
    exported = set(map(symbol, ENTRY_POINTS))
    for value in [*linked.functions, *linked.global_variables]:
        if not value.is_declaration and value.name not in exported:
            value.linkage = "internal"
    processor = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    machine = binding.Target.from_triple(binding.get_process_triple()).create_target_machine(
        cpu=processor, features=features, opt=3, reloc="pic", codemodel="small"
    )
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options())
    manager = binding.create_new_module_pass_manager()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(linked, passes)
    code: bytes = machine.emit_object(linked)
    return code


def build(folder: Path) -> None:
    """Write one shared library per generation of this architecture into `folder`."""
    machine = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86-64"
    folder.mkdir(parents=True, exist_ok=True)
    for name in GENERATIONS:
        if not name.startswith(machine):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "gptbox.o"
            processor = "generic" if name == "aarch64" else name
            features = ",".join(f"+{each}" for each in sorted(GENERATIONS[name])) if name == "x86-64-v4" else ""
            environment = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
            target.write_bytes(object_file.compile_in_subprocess(environment))
            library = folder / f"gptbox-{name}.so"
            subprocess.run(["ld", "-shared", "-s", "-o", str(library), str(target)], check=True)
            missing = _unresolved(library)
            assert not missing, f"the library has unresolved symbols: {missing}"


def _unresolved(library: Path) -> list[str]:
    """Undefined symbols that only Python or Numba could resolve."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    return re.findall(r"\b((?:NRT|numba|Py|_Py)\w*)", listed.stdout)


if __name__ == "__main__":
    if sys.argv[1:] == ["--object"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process kills this one
        with os.fdopen(os.dup(1), "wb") as output:
            os.dup2(2, 1)  # what libraries print must not mix into the object file
            output.write(_object())
    elif sys.argv[1:]:
        build(Path(sys.argv[1]))
    elif object_file.find() is None:
        object_file.compile_and_save()
