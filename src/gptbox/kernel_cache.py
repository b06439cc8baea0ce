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
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

_FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}
_kept = True


def keep_nothing() -> None:
    """Leave no file behind, whatever this process compiles from now on."""
    global _kept
    _kept = False


@cache
def _name(package: Path) -> str:
    """A folder's name, with a hash of what compiled code may come from.

    That is the package, what its kernels' files import from, and the compiler.
    """
    top = package
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    files = set(package.glob("*.py"))
    for text in [path.read_text(encoding="utf-8") for path in files]:
        if "kernel_cache" in text:
            for module in re.findall(r"^from ([\w.]+) import", text, re.MULTILINE):
                files.add(top.parent.joinpath(*module.split(".")).with_suffix(".py"))
    digest = hashlib.sha256(f"{version('numba')} {version('llvmlite')}".encode())
    for path in sorted(files):
        if path.is_file() and path.is_relative_to(top):
            digest.update(path.read_bytes())
    return f"kernels-{package.name}-{digest.hexdigest()[:16]}"


def places(package: Path) -> list[Path]:
    """The folders where the code of a package's functions may be, whether they are there or not; the best first."""
    held = os.environ.get("GPTBOX_KERNELS")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "gptbox"
    parents = [Path(held) if held else package / "__pycache__", home]
    with suppress(FileNotFoundError):  # there is no folder for temporary files
        parents.append(Path(tempfile.gettempdir()) / "gptbox")
    return [parent / _name(package) for parent in parents]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def trusted(path: Path, package: Path) -> bool:
    """Whether a file or folder is of somebody whose code runs here anyway: one of the places is where all may write."""
    return path.stat().st_uid in (0, os.getuid(), package.stat().st_uid)


def writable_place(package: Path) -> Path | None:
    """The best place that can be written to; made if need be, and what older versions left there removed."""
    for place in places(package):
        if _writable(place) and trusted(place.parent, package) and trusted(place, package):
            for old in place.parent.glob(f"kernels-{package.name}-*"):
                if old != place:
                    shutil.rmtree(old, ignore_errors=True)
            return place
    return None


@cache
def folder_of(package: Path) -> Path | None:
    """Where Numba keeps the code of a package's functions; None where it can be kept nowhere."""
    if not _kept:
        return None
    best = places(package)[0]
    if os.environ.get("GPTBOX_KERNELS") and best.is_dir():
        # Numba insists on a folder that it can write to.
        copy = tempfile.mkdtemp(prefix="gptbox-kernels-")
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        shutil.copytree(best, copy, dirs_exist_ok=True)
        return Path(copy)
    return writable_place(package)


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
    import numba  # a program that only looks for code that is kept needs none

    folder = folder_of(Path(function.__code__.co_filename).parent)
    former = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder or former)
    try:
        return numba.njit(
            nogil=True,
            cache=folder is not None,
            error_model="numpy",
            fastmath=False if exact else True if finite else _FAST,
            inline="always" if inline else "never",
            _nrt=counted,
        )(function)
    finally:
        numba.config.CACHE_DIR = former
