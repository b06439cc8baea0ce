"""Compiled code, kept between processes.

Numba's own cache notices a change of the file that a function is in, and not of those that hold what it calls; here
all source files of the function's package count, and those that they import from. The code is kept beside them, or in
the user's cache folder where that is read-only; an image holds it in GPTBOX_KERNELS, compiled while it was built.
"""

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba

_FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}


def _sources(package: Path) -> str:
    """A hash of what compiled code may come from: the package, what its kernels' files import from, and Numba."""
    top = package
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    files = set(package.glob("*.py"))
    for text in [path.read_text(encoding="utf-8") for path in files]:
        if "kernel_cache" in text:
            for module in re.findall(r"^from ([\w.]+) import", text, re.MULTILINE):
                files.add(top.parent.joinpath(*module.split(".")).with_suffix(".py"))
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(files):
        if path.is_file() and path.is_relative_to(top):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def folder_of(package: Path) -> Path:
    """Where the code of a package's functions is kept; made if need be, and what older versions left there removed."""
    name = f"kernels-{package.name}-{_sources(package)}"
    held = os.environ.get("GPTBOX_KERNELS")
    if held and (Path(held) / name).is_dir():
        # Numba insists on a folder that it can write to.
        copy = tempfile.mkdtemp(prefix="gptbox-kernels-")
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        shutil.copytree(Path(held) / name, copy, dirs_exist_ok=True)
        return Path(copy)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "gptbox"
    for parent in (Path(held) if held else package / "__pycache__", home, Path(tempfile.gettempdir()) / "gptbox"):
        if _writable(parent / name):
            for old in parent.glob(f"kernels-{package.name}-*"):
                if old.name != name:
                    shutil.rmtree(old, ignore_errors=True)
            return parent / name
    return Path(tempfile.mkdtemp(prefix="gptbox-kernels-"))


def kernel(
    function: Callable[..., Any] | None = None,
    /,
    *,
    inline: bool = False,
    exact: bool = False,
    finite: bool = False,
    counted: bool = True,
) -> Any:
    """Compile a function at its first call, to run without Python's lock.

    Sums may go in another order than written, unless `exact`; infinities and NaN may be thought not to occur where
    `finite`.
    """
    if function is None:
        return partial(_compiled, inline=inline, exact=exact, finite=finite, counted=counted)
    return _compiled(function, inline, exact, finite, counted)


def _compiled(function: Callable[..., Any], inline: bool, exact: bool, finite: bool, counted: bool) -> Any:
    former = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder_of(Path(function.__code__.co_filename).parent))
    try:
        return numba.njit(
            nogil=True,
            cache=True,
            error_model="numpy",
            fastmath=False if exact else True if finite else _FAST,
            inline="always" if inline else "never",
            _nrt=counted,
        )(function)
    finally:
        numba.config.CACHE_DIR = former
