"""What a run will need, known before it starts: memory, disk."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from gptbox.cpus import CGROUP
from gptbox.errors import DoesNotFitError
from gptbox.model_config import ModelConfig
from gptbox.train.config import TrainConfig

MB = 1_000_000
_PROGRAM = 400 * MB
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
    tokens = max(config.batch_size * config.context_length, *(s.batch_size * s.context_length for s in config.ramp), 0)
    pieces = -(-config.accumulate // shards)  # that each shard computes one after the other
    tokens = -(-tokens // pieces)
    heads = (2 * model.n_head + 2 * model.n_kv_head) * model.head_dim
    a_token = model.n_layer * (4 * model.n_embd + 2 * heads + 3 * model.intermediate_size)
    a_token += 6 * model.n_embd + 3 * heads + 3 * model.intermediate_size + 2 * model.vocab_size
    # Evaluation: as many tokens at once in each shard, without what a step keeps for the way back.
    a_token_measured = 4 * model.n_embd + 2 * heads + 3 * model.intermediate_size + 2 * model.vocab_size
    activations = 4 * max(tokens * a_token, shards * 2048 * a_token_measured)
    # Weights, gradients of each shard and their sum, two moments, and a copy of all that on its way to the disk.
    memory = _PROGRAM + (5 + shards) * weights + 3 * weights + activations
    return Needs(memory, (snapshots_kept + 2) * weights + 2 * 3 * weights)


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
