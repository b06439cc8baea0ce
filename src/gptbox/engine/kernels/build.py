"""Compile what the engine runs, ahead of the first start.

    python -m gptbox.engine.kernels.build                 for this processor, kept for its next start; half a minute
    python -m gptbox.engine.kernels.build FOLDER          as libraries for every generation of its architecture

For the second a linker is needed: binutils' ld. Either lets `--object`, in a process of its own, write an object file
to the standard output: for the processor that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name, or this one.
"""

import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from gptbox.engine import object_file
from gptbox.engine.native import ARGUMENTS, GENERATIONS
from gptbox.kernel_cache import keep_nothing


def _object() -> bytes:
    """An object file with nothing in it but the functions and what they call."""
    keep_nothing()
    from llvmlite import binding
    from numba import types

    from gptbox.engine.kernels.entry import FUNCTIONS

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    whole = None
    for name, function in FUNCTIONS.items():
        function.compile((types.int64,) * ARGUMENTS[name])
        (signature,) = function.signatures
        compiled = function.overloads[signature]
        text = function.inspect_llvm(signature).replace(compiled.fndesc.llvm_func_name, name)
        module = binding.parse_assembly(text)
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    assert whole is not None
    for each in [*whole.functions, *whole.global_variables]:
        if not each.is_declaration and each.name not in ARGUMENTS:
            each.linkage = "internal"
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
    manager.run(whole, passes)
    code: bytes = machine.emit_object(whole)
    return code


def build(folder: Path) -> None:
    """Libraries in `folder`."""
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
            target.write_bytes(object_file.compile_apart(environment))
            library = folder / f"gptbox-{name}.so"
            subprocess.run(["ld", "-shared", "-s", "-o", str(library), str(target)], check=True)
            missing = _unknown(library)
            assert not missing, f"the library asks for {missing}"


def _unknown(library: Path) -> list[str]:
    """Functions that no process has."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    return re.findall(r"\b((?:NRT|numba|Py|_Py)\w*)", listed.stdout)


if __name__ == "__main__":
    if sys.argv[1:] == ["--object"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
        with os.fdopen(os.dup(1), "wb") as output:
            os.dup2(2, 1)  # a library's words do not get into it
            output.write(_object())
    elif sys.argv[1:]:
        build(Path(sys.argv[1]))
    elif object_file.find() is None:
        object_file.compile_and_keep()
