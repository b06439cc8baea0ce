"""The number of CPUs available to this process, from its cgroup's quota and its affinity mask.

torch and NumPy's BLAS size their thread pools by the host's core count. In a container with a CPU limit, that many
threads contend for the quota (ollama #17916: 0.27 tokens/s instead of 12).
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
    """The CPU quota, in cores, of the cgroup mounted at `root` (version 2, else version 1); None if unlimited."""
    quota, _, period = _read(root / "cpu.max").partition(" ")
    if not quota:
        quota = _read(root / "cpu" / "cpu.cfs_quota_us")
        period = _read(root / "cpu" / "cpu.cfs_period_us")
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or the file is missing
        return None
    return cores if cores > 0 else None


def available_cpus(root: Path = CGROUP) -> int:
    """The quota or the affinity mask, whichever is smaller, in whole CPUs: at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(root)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))
