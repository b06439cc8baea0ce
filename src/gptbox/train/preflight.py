"""What a run will need, known before it starts: memory, disk."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from gptbox.cpus import CGROUP
from gptbox.errors import DoesNotFitError
from gptbox.model_config import ModelConfig
from gptbox.train.compiled import workspace_bytes
from gptbox.train.config import TrainConfig
from gptbox.train.publish import kept_within
from gptbox.windows import TOKENS_A_BATCH

MB = 1_000_000
_PROGRAM = 420 * MB
"""Resident before there is a model: Python, torch's libraries, the compiled kernels."""


@dataclass(frozen=True)
class Needs:
    """In bytes."""

    memory: int
    """At the peak."""
    disk: int
    """In the end, all snapshots and checkpoints counted."""


def needs(config: TrainConfig, model: ModelConfig, shards: int, snapshots_kept: int) -> Needs:
    """An estimate, from the shapes of what is kept; `shards` is how many parts of a batch are computed at once."""
    weights = 4 * model.parameters
    stages = [(config.batch_size, config.context_length), *((s.batch_size, s.context_length) for s in config.ramp)]
    training = 0
    for rows, time in stages:
        at_once = min(shards, rows)
        pieces = min(rows, -(-config.accumulate // at_once) * at_once)
        training = max(training, at_once * workspace_bytes(model, -(-rows // pieces), time))
    length = config.context_length
    measuring = shards * workspace_bytes(model, max(1, TOKENS_A_BATCH // length), length, backward=False)
    if model.architecture != "qwen3":  # by autograd, which keeps what each operation has read
        training *= 2
    # Weights, a gradient of each shard, two moments, and a copy of weights and moments on its way to the disk.
    memory = _PROGRAM + (6 + shards) * weights + training + measuring
    return Needs(memory, (kept_within(snapshots_kept, weights) + 2) * weights + 2 * 3 * weights)


def free_memory(cgroup: Path = CGROUP) -> int | None:
    """What a process could still take, in bytes: of the machine, and of the container's limit; None if unknown."""
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


def require(needed: Needs, folder: Path) -> None:
    """Raises DoesNotFitError where memory or the disk of `folder` is too small."""
    there = free_memory()
    # This process already holds most of the program, and has it counted as used.
    if there is not None and needed.memory - _PROGRAM > there:
        raise DoesNotFitError(
            f"Training would need about {needed.memory / MB:,.0f} MB of memory, and only {there / MB:,.0f} MB more "
            "are free. Take a smaller model or batch (--n-embd, --n-layer, --batch-size), or raise the limit."
        )
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed.disk > free:
        raise DoesNotFitError(
            f"The run would need about {needed.disk / MB:,.0f} MB on the disk of {folder}, and {free / MB:,.0f} MB "
            "are free. Free some space, keep fewer snapshots (SNAPSHOTS_KEPT), or take a smaller model."
        )
