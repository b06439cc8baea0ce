"""The number of CPUs from the affinity mask and from real cgroup files of both versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptbox.system.cpus import available_cpus, cgroup_quota


def version_1(root: Path, quota: str, period: str) -> None:
    (root / "cpu").mkdir()
    (root / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (root / "cpu" / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("200000 100000\n", 2.0),
        ("50000 100000\n", 0.5),
        ("150000 50000", 3.0),
        ("max 100000\n", None),
        ("max\n", None),
        ("", None),
        ("0 100000\n", None),
        ("100000 0\n", None),
        ("100000\n", None),
        ("rubbish\n", None),
    ],
)
def test_quota_of_version_2(tmp_path: Path, content: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cgroup_quota(tmp_path) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"), [("150000", "100000", 1.5), ("-1", "100000", None), ("100000", "", None)]
)
def test_quota_of_version_1(tmp_path: Path, quota: str, period: str, cores: float | None) -> None:
    version_1(tmp_path, quota, period)
    assert cgroup_quota(tmp_path) == cores


def test_version_2_takes_precedence_if_both_are_mounted(tmp_path: Path) -> None:
    version_1(tmp_path, "100000", "100000")
    (tmp_path / "cpu.max").write_text("300000 100000")
    assert cgroup_quota(tmp_path) == 3.0


def test_no_cgroup_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path / "nowhere") is None


def test_the_smaller_of_quota_and_affinity_counts(tmp_path: Path) -> None:
    affinity = len(os.sched_getaffinity(0))
    assert available_cpus(tmp_path) == affinity
    (tmp_path / "cpu.max").write_text("max 100000")
    assert available_cpus(tmp_path) == affinity
    (tmp_path / "cpu.max").write_text("10000000 100000")
    assert available_cpus(tmp_path) == affinity


@pytest.mark.parametrize(("quota", "cpus"), [(1_000, 1), (50_000, 1), (100_000, 1), (100_001, 2), (150_000, 2)])
def test_a_fraction_of_a_cpu_counts_as_one(tmp_path: Path, quota: int, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000")
    assert available_cpus(tmp_path) == min(cpus, len(os.sched_getaffinity(0)))


def test_the_affinity_mask_counts(tmp_path: Path) -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, {{{one}}})\n"
        "from pathlib import Path\nfrom gptbox.system.cpus import available_cpus\n"
        f"print(available_cpus(Path({str(tmp_path)!r})))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n"
