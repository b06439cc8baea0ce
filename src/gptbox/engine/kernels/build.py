"""Compile what the engine runs, ahead of the first start.

    python -m gptbox.engine.kernels.build                 for this processor, into Numba's cache; half a minute
    python -m gptbox.engine.kernels.build FOLDER          as libraries for every generation of its architecture

For the second a linker is needed: binutils' ld.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gptbox.engine.native import ARGUMENTS, GENERATIONS


def _compile() -> Any:
    """The functions, compiled for the processor that NUMBA_CPU_NAME names, or this one."""
    from numba import types

    from gptbox.engine.kernels.entry import FUNCTIONS

    for name, function in FUNCTIONS.items():
        function.compile((types.int64,) * ARGUMENTS[name])
    return FUNCTIONS


def _write_object(path: Path) -> None:
    """One object file, with nothing in it but the functions and what they call."""
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    name = os.environ["NUMBA_CPU_NAME"]
    whole = None
    for function in _compile().values():
        (signature,) = function.signatures
        compiled = function.overloads[signature]
        text = function.inspect_llvm(signature).replace(compiled.fndesc.llvm_func_name, function.__name__)
        module = binding.parse_assembly(text)
        if whole is None:
            whole = module
        else:
            whole.link_in(module)
    assert whole is not None
    for each in [*whole.functions, *whole.global_variables]:
        if not each.is_declaration and each.name not in ARGUMENTS:
            each.linkage = "internal"
    machine = binding.Target.from_triple(binding.get_process_triple()).create_target_machine(
        cpu=name, features=os.environ["NUMBA_CPU_FEATURES"], opt=3, reloc="pic", codemodel="small"
    )
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options())
    manager = binding.create_new_module_pass_manager()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(whole, passes)
    path.write_bytes(machine.emit_object(whole))


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
            environment = os.environ | {
                "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features, "GPTBOX_KERNELS": scratch,
            }  # fmt: skip
            subprocess.run([sys.executable, "-m", __spec__.name, "--object", str(target)], env=environment, check=True)
            library = folder / f"gptbox-{name}.so"
            subprocess.run(["ld", "-shared", "-s", "-o", str(library), str(target)], check=True)
            missing = _unknown(library)
            assert not missing, f"the library asks for {missing}"


def _unknown(library: Path) -> list[str]:
    """Functions that no process has."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    return re.findall(r"\b((?:NRT|numba|Py|_Py)\w*)", listed.stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--object"]:
        _write_object(Path(sys.argv[2]))
    elif sys.argv[1:]:
        build(Path(sys.argv[1]))
    else:
        _compile()
