"""Atomic writes: under a temporary name, fsynced, then renamed, so that a file or folder is complete or absent."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def temporary_beside(path: Path) -> Path:
    """A new name in the same folder, hidden by a leading dot from the code that lists finished files."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Delete the temporary files and folders of killed writers. No other process may be writing to the folder."""
    for leftover in folder.glob(".*.tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until the content of a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to. It is renamed to `path` at the end of the block, or deleted if the block raises."""
    temporary = temporary_beside(path)
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill. It is renamed to `path` at the end of the block, or deleted if the block raises.

    Raises OSError if `path` is a folder that is not empty.
    """
    temporary = temporary_beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            fsync(file)
        fsync(temporary)
        temporary.rename(path)
        fsync(path.parent)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Replace a JSON file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent) + "\n", "utf-8")


def replace_symlink(path: Path, target: str) -> None:
    """Point the symlink `path` at the relative `target`, atomically."""
    temporary = temporary_beside(path)
    try:
        temporary.symlink_to(target)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
