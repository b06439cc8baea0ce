import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptbox.jit import cache as kernel_cache

SOURCE = """
from gptbox.jit.cache import kernel
from package.inner import twice

@kernel
def outer(x):
    return twice(x) + 1
"""
INNER = """
from gptbox.jit.cache import kernel

@kernel
def twice(x):
    return {factor} * x
"""
RUN = """
from package.outer import outer
print(outer(5), dict(outer.stats.cache_hits))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "outer.py").write_text(SOURCE)
    (folder / "inner.py").write_text(INNER.format(factor=2))
    return folder


def run(package: Path, **environment: str) -> str:
    command = [sys.executable, "-c", RUN]
    variables = os.environ | {"PYTHONPATH": str(package.parent), **environment}
    return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.strip()


def cached(package: Path) -> list[Path]:
    return list((package / "__pycache__").glob("kernels-*"))


def test_code_is_compiled_once_and_cached_beside_its_source(package: Path) -> None:
    assert run(package) == "11 {}"
    assert len(cached(package)) == 1
    assert "(int64,)" in run(package)


def test_a_changed_callee_in_another_package_invalidates_the_cache(package: Path) -> None:
    inside = package / "inside"
    inside.mkdir()
    (inside / "__init__.py").touch()
    (inside / "outer.py").write_text(SOURCE)
    (package / "outer.py").write_text("from package.inside.outer import outer")
    assert run(package) == "11 {}"
    (package / "inner.py").write_text(INNER.format(factor=3))
    assert run(package) == "16 {}"


def test_a_changed_callee_in_another_file_invalidates_the_cache(package: Path) -> None:
    run(package)
    [before] = cached(package)
    (package / "inner.py").write_text(INNER.format(factor=3))
    assert run(package) == "16 {}"
    [after] = cached(package)
    assert after != before


def test_packages_of_the_same_name_share_a_folder(package: Path, tmp_path: Path) -> None:
    """Neither takes the other's code for that of an older version and removes it."""
    image = tmp_path / "image"
    for name in ("first", "second"):
        kernels = package / name / "package"
        kernels.mkdir(parents=True)
        for folder in (kernels.parent, kernels):
            (folder / "__init__.py").touch()
        (kernels / "outer.py").write_text(SOURCE)
        (package / "outer.py").write_text(f"from package.{name}.package.outer import outer")
        assert run(package, GPTBOX_KERNELS=str(image)) == "11 {}"
    prefixes = {path.name.rpartition("-")[0] for path in image.iterdir()}
    assert {"kernels-package.first.package", "kernels-package.second.package"} <= prefixes


def test_the_folder_of_an_image_is_used_and_not_written_to(package: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    assert run(package, GPTBOX_KERNELS=str(image)) == "11 {}"
    before = {path: path.stat().st_mtime_ns for path in image.rglob("*")}
    assert len(before) > 2
    assert "(int64,)" in run(package, GPTBOX_KERNELS=str(image))
    assert {path: path.stat().st_mtime_ns for path in image.rglob("*")} == before
    assert cached(package) == []


def test_the_user_s_cache_is_used_where_the_source_is_read_only(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    writable = kernel_cache._writable
    monkeypatch.setattr(
        kernel_cache, "_writable", lambda folder: package not in folder.parents and writable(folder)
    )  # root may write everywhere
    kernel_cache.folder_of.cache_clear()
    assert kernel_cache.folder_of(package).parent == tmp_path / "cache" / "gptbox"
    kernel_cache.folder_of.cache_clear()
