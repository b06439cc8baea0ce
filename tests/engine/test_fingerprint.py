"""The system fingerprint: the same for the same code, and another for whatever may change a text."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gptbox import __version__
from gptbox.engine import fingerprint, native, object_file
from gptbox.engine.fingerprint import system_fingerprint


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    fingerprint._fingerprint.cache_clear()


def test_it_has_the_version_and_a_short_hash() -> None:
    assert re.fullmatch(rf"gptbox-{re.escape(__version__)}-[0-9a-f]{{8}}", system_fingerprint(False) or "")


def test_it_stays_the_same() -> None:
    first = system_fingerprint(False)
    fingerprint._fingerprint.cache_clear()
    assert system_fingerprint(False) == first


def _other_version(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(fingerprint, "__version__", "99.1")


def _other_processor(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(native, "_target", "gptbox-x86-64-v2")


def _other_sources(patch: pytest.MonkeyPatch, folder: Path) -> None:
    source = folder / "sampling.py"
    source.write_text("temperature = 2\n")
    patch.setattr(fingerprint, "_SOURCES", (*fingerprint._SOURCES[:-1], source))


@pytest.mark.parametrize("change", [_other_version, _other_processor, _other_sources])
def test_whatever_may_change_a_text_changes_it(
    change: Callable[[pytest.MonkeyPatch, Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = system_fingerprint(False), system_fingerprint(True)
    assert before[0] != before[1]  # the weights' type
    fingerprint._fingerprint.cache_clear()
    change(monkeypatch, tmp_path)
    assert len({*before, system_fingerprint(False), system_fingerprint(True)}) == 4


def test_the_compilers_target_is_the_processor_that_numba_compiles_for(monkeypatch: pytest.MonkeyPatch) -> None:
    here = object_file.target()
    assert "numba " in here
    assert "llvmlite " in here
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64-v2")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "")
    assert object_file.target() == f"{here.partition(' llvmlite ')[0]} llvmlite {here.split()[3]} x86-64-v2 "


def test_there_is_none_before_the_kernels_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_loaded", {})
    assert system_fingerprint(False) is None


def test_the_sources_exist_and_include_the_kernels() -> None:
    assert all(path.exists() for path in fingerprint._SOURCES)
    assert object_file.KERNELS in fingerprint._SOURCES
