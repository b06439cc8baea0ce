"""What is compiled for this machine: kept, found again where it fits, and linked."""

import ctypes
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptbox import kernel_cache
from gptbox.engine import native, object_file
from gptbox.errors import EngineError


@pytest.fixture(scope="module")
def code() -> bytes:
    """What the tests run with."""
    found = object_file.find()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept in these tests."""
    monkeypatch.setenv("GPTBOX_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "kernels"


def test_what_is_kept_is_found(code: bytes, folder: Path) -> None:
    assert object_file.find() is None
    kept = object_file.keep(code)
    assert kept is not None
    assert kept.is_relative_to(folder)
    assert object_file.find() == code
    assert [path for path in folder.rglob("*") if path.is_file()] == [kept]


def test_a_damaged_file_is_none(code: bytes) -> None:
    kept = object_file.keep(code)
    assert kept is not None
    content = kept.read_bytes()
    for damaged in (b"", content[:1000], content[:-1], content[:1000] + b"?" + content[1001:]):
        kept.write_bytes(damaged)
        assert object_file.find() is None


def test_another_processor_s_is_not_taken(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    object_file.keep(code)
    with monkeypatch.context() as patch:
        patch.setattr(object_file, "processor", lambda: {"sse4_2"})
        assert object_file.find() is None
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_CPU_NAME", "generic")
        assert object_file.find() is None
    assert object_file.find() == code


def test_that_of_other_sources_is_not_taken_and_goes(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    former = object_file.keep(code)
    assert former is not None
    monkeypatch.setattr(kernel_cache, "_name", lambda package: "kernels-kernels-other")
    assert object_file.find() is None
    assert object_file.keep(code) == former.parent.with_name("kernels-kernels-other") / former.name
    assert not former.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="gives a file to somebody else")
def test_what_somebody_else_has_put_there_is_not_run(code: bytes) -> None:
    kept = object_file.keep(code)
    assert kept is not None
    for path in (kept, kept.parent, kept.parent.parent):
        os.chown(path, 12_345, 12_345)
        assert object_file.find() is None
        os.chown(path, 0, 0)
    assert object_file.find() == code
    os.chown(kept.parent.parent, 12_345, 12_345)
    other = object_file.keep(code)
    assert other is not None
    assert not other.is_relative_to(kept.parent.parent)


@pytest.mark.parametrize("full", [False, True])
def test_where_nothing_can_be_kept_it_is_said_and_works(
    code: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, full: bool
) -> None:
    if full:
        monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    else:
        monkeypatch.setattr(kernel_cache, "_writable", lambda folder: False)  # root may write everywhere
    monkeypatch.setattr(object_file, "compile_apart", lambda wanted: code)
    monkeypatch.setattr(native, "_loaded", {})
    with caplog.at_level(logging.INFO):
        assert native.load()
    assert "no folder can be written to, so the next start compiles again" in caplog.text
    assert set(native._loaded) == set(native.ARGUMENTS)
    assert object_file.find() is None


def test_what_is_not_compiled_is_not_compiled_against_one_s_will(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_loaded", {})
    assert not native.load(compile_too=False)
    assert not native._loaded


def test_what_is_linked_has_the_functions(code: bytes) -> None:
    address = object_file.link(code)
    assert len({ctypes.string_at(address(name), 64) for name in native.ARGUMENTS}) == len(native.ARGUMENTS)


def test_a_compilation_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llvmlite.py").write_text("raise RuntimeError('it does not go here')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with pytest.raises(EngineError, match=r"for this processor \(.+\): RuntimeError: it does not go here\."):
        object_file.compile_apart({"PYTHONPATH": path})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match="its process ended with 1"):
        object_file.compile_apart()
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    with pytest.raises(EngineError, match="its process wrote no object file"):
        object_file.compile_apart()


def test_a_compilation_that_is_not_wanted_any_more_ends_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match="was stopped"):
        object_file.compile_apart(wanted=lambda: time.monotonic() < began + 0.3)
    assert time.monotonic() - began < 2
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True)
    assert "kernels.build" not in children.stdout
