"""The kernels compiled for this machine: cached, found again, and linked."""

import ctypes
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptbox.engine import native, object_file
from gptbox.engine.abi import ENTRY_POINTS, symbol
from gptbox.errors import EngineError
from gptbox.jit import cache as kernel_cache


@pytest.fixture(scope="module")
def code() -> bytes:
    """The object file that the tests themselves run with."""
    found = object_file.find()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder in these tests."""
    monkeypatch.setenv("GPTBOX_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "kernels"


def test_a_saved_file_is_found(code: bytes, folder: Path) -> None:
    assert object_file.find() is None
    saved = object_file.save(code)
    assert saved is not None
    assert saved.is_relative_to(folder)
    assert object_file.find() == code
    assert [path for path in folder.rglob("*") if path.is_file()] == [saved]


def test_a_damaged_file_is_ignored(code: bytes) -> None:
    saved = object_file.save(code)
    assert saved is not None
    content = saved.read_bytes()
    for damaged in (b"", content[:1000], content[:-1], content[:1000] + b"?" + content[1001:]):
        saved.write_bytes(damaged)
        assert object_file.find() is None


def test_a_file_for_another_processor_is_ignored(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    object_file.save(code)
    with monkeypatch.context() as patch:
        patch.setattr(object_file, "processor", lambda: {"sse4_2"})
        assert object_file.find() is None
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_CPU_NAME", "generic")
        assert object_file.find() is None
    assert object_file.find() == code


def test_a_file_for_another_binary_interface_is_ignored(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    object_file.save(code)
    monkeypatch.setattr(object_file, "VERSION", "0123456789abcdef")
    assert object_file.find() is None


def test_a_file_of_other_sources_is_ignored_and_removed(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    previous = object_file.save(code)
    assert previous is not None
    monkeypatch.setattr(kernel_cache, "_folder_name", lambda package: "kernels-kernels-other")
    assert object_file.find() is None
    assert object_file.save(code) == previous.parent.with_name("kernels-kernels-other") / previous.name
    assert not previous.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="changes the owner of a file")
def test_a_file_of_another_user_is_not_run(code: bytes) -> None:
    saved = object_file.save(code)
    assert saved is not None
    for path in (saved, saved.parent, saved.parent.parent):
        os.chown(path, 12_345, 12_345)
        assert object_file.find() is None
        os.chown(path, 0, 0)
    assert object_file.find() == code
    os.chown(saved.parent.parent, 12_345, 12_345)
    other = object_file.save(code)
    assert other is not None
    assert not other.is_relative_to(saved.parent.parent)


@pytest.mark.parametrize("full", [False, True])
def test_without_a_writable_folder_the_engine_warns_and_works(
    code: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, full: bool
) -> None:
    if full:
        monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    else:
        monkeypatch.setattr(kernel_cache, "_writable", lambda folder: False)  # root may write everywhere
    monkeypatch.setattr(object_file, "compile_in_subprocess", lambda wanted: code)
    monkeypatch.setattr(native, "_loaded", {})
    with caplog.at_level(logging.INFO):
        assert native.load()
    assert "no folder can be written to, so the next start compiles again" in caplog.text
    assert set(native._loaded) == set(ENTRY_POINTS)
    assert object_file.find() is None


def test_load_does_not_compile_unless_allowed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_loaded", {})
    assert not native.load(compile_too=False)
    assert not native._loaded


def test_a_linked_file_has_all_functions(code: bytes) -> None:
    address = object_file.link(code)
    assert len({ctypes.string_at(address(symbol(name)), 64) for name in ENTRY_POINTS}) == len(ENTRY_POINTS)


def test_a_failed_compilation_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llvmlite.py").write_text("raise RuntimeError('not supported here')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with pytest.raises(EngineError, match=r"for this processor \(.+\): RuntimeError: not supported here\."):
        object_file.compile_in_subprocess({"PYTHONPATH": path})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match="its process ended with 1"):
        object_file.compile_in_subprocess()
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    with pytest.raises(EngineError, match="its process wrote no object file"):
        object_file.compile_in_subprocess()


def test_a_compilation_that_is_no_longer_wanted_stops_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match="was stopped"):
        object_file.compile_in_subprocess(wanted=lambda: time.monotonic() < began + 0.3)
    assert time.monotonic() - began < 2
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True)
    assert "kernels.build" not in children.stdout
