"""Where compiled kernels are kept between processes: beside their source, or in NUMBA_CACHE_DIR, as Numba has it.

An image holds them in the read-only folder GPTBOX_KERNELS, compiled while it was built.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def use_what_an_image_holds() -> None:
    """Before Numba is imported: give it a copy of GPTBOX_KERNELS, since it insists on a folder it can write to."""
    held = os.environ.get("GPTBOX_KERNELS")
    if held and Path(held).is_dir() and "NUMBA_CACHE_DIR" not in os.environ:
        copy = tempfile.mkdtemp(prefix="gptbox-kernels-")
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        shutil.copytree(held, copy, dirs_exist_ok=True)
        os.environ["NUMBA_CACHE_DIR"] = copy
