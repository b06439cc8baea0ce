"""Numba compilation with an on-disk cache that a change of any source file invalidates.

Numba's own cache checks only the file of the compiled function, not the files of its callees. Here the cache folder's
name hashes every source file of the function's package and the modules these import from. Code is cached beside the
sources, or in the user's cache folder where they are read-only; an image has it in GPTBOX_KERNELS, compiled at build.
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

_FASTMATH = {"reassoc", "contract", "arcp", "nsz", "afn"}
"""LLVM's fast-math flags except nnan and ninf: infinities and NaN keep their meaning."""
_cache_enabled = True


def disable_cache() -> None:
    """From now on, cache nothing that this process compiles."""
    global _cache_enabled
    _cache_enabled = False


def _top(package: Path) -> Path:
    """The outermost package that contains `package`."""
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    return package


def _prefix(package: Path) -> str:
    """What the names of a package's cache folders begin with: its full name, as packages share GPTBOX_KERNELS."""
    return f"kernels-{'.'.join(package.relative_to(_top(package).parent).parts)}-"


@cache
def _folder_name(package: Path) -> str:
    """Name of a package's cache folder: hashes its sources, the modules its kernels import, and compiler versions."""
    top = _top(package)
    files = set(package.glob("*.py"))
    for text in [path.read_text(encoding="utf-8") for path in files]:
        if "gptbox.jit" in text:
            for module in re.findall(r"^from ([\w.]+) import", text, re.MULTILINE):
                files.add(top.parent.joinpath(*module.split(".")).with_suffix(".py"))
    digest = hashlib.sha256(f"{version('numba')} {version('llvmlite')}".encode())
    for path in sorted(files):
        if path.is_file() and path.is_relative_to(top):
            digest.update(path.read_bytes())
    return f"{_prefix(package)}{digest.hexdigest()[:16]}"


def cache_folders(package: Path) -> list[Path]:
    """Folders that may cache a package's compiled code, best first; they need not exist."""
    configured = os.environ.get("GPTBOX_KERNELS")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "gptbox"
    parents = [Path(configured) if configured else package / "__pycache__", home]
    with suppress(FileNotFoundError):  # there is no folder for temporary files
        parents.append(Path(tempfile.gettempdir()) / "gptbox")
    return [parent / _folder_name(package) for parent in parents]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def trusted(path: Path, package: Path) -> bool:
    """Whether a file or folder belongs to root, this user or the package's owner: in /tmp anyone could plant code."""
    return path.stat().st_uid in (0, os.getuid(), package.stat().st_uid)


def writable_cache_folder(package: Path) -> Path | None:
    """The best writable cache folder, created if missing; removes those of older versions beside it."""
    for folder in cache_folders(package):
        if _writable(folder) and trusted(folder.parent, package) and trusted(folder, package):
            for old in folder.parent.glob(f"{_prefix(package)}*"):
                if old != folder:
                    shutil.rmtree(old, ignore_errors=True)
            return folder
    return None


@cache
def folder_of(package: Path) -> Path | None:
    """The folder in which Numba caches a package's functions; None where none is writable."""
    if not _cache_enabled:
        return None
    best = cache_folders(package)[0]
    if os.environ.get("GPTBOX_KERNELS") and best.is_dir():
        # A copy, because Numba insists on a writable folder.
        copy = tempfile.mkdtemp(prefix="gptbox-kernels-")
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        shutil.copytree(best, copy, dirs_exist_ok=True)
        return Path(copy)
    return writable_cache_folder(package)


def kernel(
    function: Callable[..., Any] | None = None,
    /,
    *,
    inline: bool = False,
    fastmath: bool | set[str] = _FASTMATH,
    nrt: bool = True,
) -> Any:
    """Compile a function at its first call; it runs without the GIL. Works with and without parentheses.

    `inline` inlines it into every caller. `fastmath` is Numba's: by default sums may be reordered, False keeps IEEE 754
    and the written order, True also assumes that neither infinities nor NaN occur. `nrt=False` compiles without
    Numba's runtime: no array can be allocated, and none is reference-counted.
    """
    if function is None:
        return partial(_compile, inline=inline, fastmath=fastmath, nrt=nrt)
    return _compile(function, inline, fastmath, nrt)


def _compile(function: Callable[..., Any], inline: bool, fastmath: bool | set[str], nrt: bool) -> Any:
    import numba  # here: finding cached code needs no Numba

    folder = folder_of(Path(function.__code__.co_filename).parent)
    former = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder or former)
    try:
        return numba.njit(
            nogil=True,
            cache=folder is not None,
            error_model="numpy",
            fastmath=fastmath,
            inline="always" if inline else "never",
            _nrt=nrt,
        )(function)
    finally:
        numba.config.CACHE_DIR = former
