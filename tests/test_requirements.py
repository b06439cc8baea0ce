"""The lock files: complete, with hashes, consistent with pyproject.toml, and without torch or CUDA."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ["web", "train", "dev"]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def entries(name: str) -> list[str]:
    """The requirements of a lock file with their hashes, one per line."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def locked(name: str) -> dict[str, list[Requirement]]:
    """The requirements that apply to this machine's Python, by name."""
    result: dict[str, list[Requirement]] = {}
    for entry in entries(name):
        requirement = Requirement(entry.partition(" --hash=")[0])
        if requirement.marker is None or requirement.marker.evaluate():
            result.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return result


def group(pyproject: dict[str, Any], name: str) -> list[str]:
    result = []
    for item in pyproject["dependency-groups"][name]:
        result += group(pyproject, item["include-group"]) if isinstance(item, dict) else [item]
    return result


@pytest.mark.parametrize("name", [*LOCKS, "hf", "acceptance"])
def test_everything_is_pinned_by_hash_without_a_url(name: str) -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}\s*", line) for line in entries(name))
    assert "://" not in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*LOCKS, "hf", "acceptance"])
def test_neither_torch_nor_cuda_is_locked(name: str) -> None:
    names = {canonicalize_name(re.split("==", line)[0]) for line in entries(name)}
    assert {found for found in names if re.match(r"torch$|nvidia|cuda|triton", found)} == set()


@pytest.mark.parametrize("name", LOCKS)
def test_the_dependencies_of_pyproject_are_locked(name: str, pyproject: dict[str, Any]) -> None:
    wanted = list(pyproject["project"]["dependencies"])
    if name != "web":
        wanted += pyproject["project"]["optional-dependencies"]["train"]
        wanted += group(pyproject, "plays" if name == "train" else "dev")
    there = locked(name)
    for requirement in map(Requirement, wanted):
        if requirement.name == "torch":
            continue
        # The web image contains the compiled kernels, and reads no texts.
        if name == "web" and requirement.name in ("numba", "charset-normalizer"):
            assert not {"numba", "llvmlite", "charset-normalizer"} & there.keys()
            continue
        (pin,) = there[canonicalize_name(requirement.name)]
        (version,) = pin.specifier
        assert requirement.specifier.contains(version.version), f"{pin} does not satisfy {requirement}: make lock"


def test_all_lock_files_agree() -> None:
    dev = locked("dev")
    for name in ("web", "train", "hf", "kernels"):
        for package, pins in locked(name).items():
            assert list(map(str, pins)) == list(map(str, dev[package]))


def test_the_hf_extra_is_locked_in_addition_to_train(pyproject: dict[str, Any]) -> None:
    there = locked("hf")
    for requirement in map(Requirement, pyproject["project"]["optional-dependencies"]["hf"]):
        (pin,) = there[canonicalize_name(requirement.name)]
        (version,) = pin.specifier
        assert requirement.specifier.contains(version.version), f"{pin} does not satisfy {requirement}: make lock"
    assert not there.keys() & locked("train").keys()


def test_the_acceptance_dependencies_are_locked_and_agree_with_dev(pyproject: dict[str, Any]) -> None:
    dev, there = locked("dev"), locked("acceptance")
    for requirement in map(Requirement, group(pyproject, "acceptance")):
        (pin,) = there[canonicalize_name(requirement.name)]
        (version,) = pin.specifier
        assert requirement.specifier.contains(version.version), f"{pin} does not satisfy {requirement}: make lock"
    for package in there.keys() & dev.keys():
        assert list(map(str, there[package])) == list(map(str, dev[package]))


def test_dockerfile_and_makefile_install_the_torch_of_pyproject(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]["train"]
    (torch,) = (name for name in extras if name.startswith("torch"))
    dockerfile = (ROOT / "Dockerfile.train").read_text(encoding="utf-8")
    assert f"ARG TORCH_VERSION={torch.removeprefix('torch==')}\n" in dockerfile
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\nTORCH := {torch.removeprefix('torch==')}\n" in makefile


def test_the_image_takes_the_extra_that_its_override_asks_for() -> None:
    override = (ROOT / "docker-compose.hf.yml").read_text(encoding="utf-8")
    dockerfile = (ROOT / "Dockerfile.train").read_text(encoding="utf-8")
    assert re.search(r"\n        EXTRAS: hf\n", override)
    assert re.search(
        r'ARG EXTRAS=\n.*if \[ "\$EXTRAS" = hf \]; then pip install [^;]*requirements/hf\.txt', dockerfile, re.DOTALL
    )
