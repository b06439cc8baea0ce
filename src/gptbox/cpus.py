"""How many CPUs this process may really use: the cgroup's quota and the affinity mask, not the host's core count.

Both torch and the BLAS under NumPy size their thread pools from the host's cores, which in a container with a CPU
limit makes the threads fight for their quota (ollama #17916: 0.27 tokens/s instead of 12).
"""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def cgroup_quota(root: Path = CGROUP) -> float | None:
    """The CPU quota in cores of the cgroup mounted at `root` (version 2, then version 1); None without a limit."""
    quota, _, period = _read(root / "cpu.max").partition(" ")
    if not quota:
        quota = _read(root / "cpu" / "cpu.cfs_quota_us")
        period = _read(root / "cpu" / "cpu.cfs_period_us")
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return cores if cores > 0 else None


def available_cpus(root: Path = CGROUP) -> int:
    """Whole CPUs to compute on, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(root)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))
