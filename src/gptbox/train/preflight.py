"""Estimates a run's memory and disk space before it starts, and refuses a run that does not fit."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from gptbox.errors import DoesNotFitError
from gptbox.models.evaluation import EVAL_BATCH_TOKENS
from gptbox.system.cpus import CGROUP
from gptbox.train.config import TrainConfig
from gptbox.train.cpu_backend import workspace_bytes
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.publish import snapshots_that_fit

MB = 1_000_000
_BASE_MEMORY = 420 * MB
"""Resident memory without a model: Python, torch's libraries, the compiled kernels."""


@dataclass(frozen=True)
class Requirements:
    """Resources of a run, in bytes."""

    memory: int
    """Peak memory."""
    disk: int
    """Disk space at the end: all snapshots and checkpoints."""


def estimate_requirements(config: TrainConfig, num_workers: int, snapshots_kept: int) -> Requirements:
    """Estimate a run's memory and disk space; `num_workers` micro-batches are computed at once."""
    model = config.model
    weights = 4 * model.parameters
    checkpoint = (1 + OPTIMIZERS[config.optimizer].moments) * weights
    initial = weights if config.init is not None else 0
    stages = [(config.batch_size, model.context_length), *((s.batch_size, s.context_length) for s in config.ramp)]
    training = 0
    for rows, time in stages:
        workers = min(num_workers, rows)
        micro_batches = min(rows, -(-config.accumulate // workers) * workers)
        training = max(training, workers * workspace_bytes(model, -(-rows // micro_batches), time))
    length = model.context_length
    evaluation = num_workers * workspace_bytes(model, max(1, EVAL_BATCH_TOKENS // length), length, backward=False)
    if model.architecture != "qwen3":  # trained by autograd, which keeps the inputs of each operation
        training *= 2
    # Weights and moments and, while a checkpoint is written, a copy of them; a gradient per worker.
    memory = _BASE_MEMORY + 2 * checkpoint + num_workers * weights + initial + training + evaluation
    return Requirements(memory, (snapshots_that_fit(snapshots_kept, weights) + 2) * weights + 2 * checkpoint)


def available_memory(cgroup: Path = CGROUP) -> int | None:
    """Bytes that a process can still allocate, within the machine's memory and the container's; None if unknown."""
    found = []
    try:
        meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(meminfo["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError):  # not Linux
        pass
    for limit, used, cache in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            reclaimable = 0
            for line in (cgroup / cache).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name in ("inactive_file", "total_inactive_file"):
                    reclaimable = int(value)
            found.append(int((cgroup / limit).read_text()) - int((cgroup / used).read_text()) + reclaimable)
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found) if found else None


def check_requirements(required: Requirements, folder: Path) -> None:
    """Raise DoesNotFitError if memory, or the disk of `folder`, is too small."""
    available = available_memory()
    # This process already holds most of the base memory, which therefore counts as used.
    if available is not None and required.memory - _BASE_MEMORY > available:
        raise DoesNotFitError(
            f"Training would need about {required.memory / MB:,.0f} MB of memory, and only {available / MB:,.0f} MB "
            "more are free. Take a smaller model or batch (--n-embd, --n-layer, --batch-size), or raise the limit."
        )
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if required.disk > free:
        raise DoesNotFitError(
            f"The run would need about {required.disk / MB:,.0f} MB on the disk of {folder}, and {free / MB:,.0f} MB "
            "are free. Free some space, keep fewer snapshots (SNAPSHOTS_KEPT), or take a smaller model."
        )
