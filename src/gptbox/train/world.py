"""Training by several processes, each on a part of every batch: torchrun's, over gloo on CPUs and NCCL on GPUs.

    torchrun --nproc-per-node 2 -m -- gptbox train

One process leads: it decides, writes and publishes. The others take the steps it announces.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


class World:
    """The processes that train together; one alone needs no group."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size

    @classmethod
    def from_environment(cls, environment: "os._Environ[str] | dict[str, str]" = os.environ) -> "World":
        """As torchrun describes it; joins the group, and waits for the others, where there is more than one."""
        size = int(environment.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        world = cls(*(int(environment.get(name, "0")) for name in names))
        if torch.cuda.is_available():
            torch.cuda.set_device(world.device)
        # Long: the others wait while the leader evaluates.
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=1))
        return world

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def part(self, rows: int) -> slice:
        """This process's rows of a batch."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def announce(self, message: list[float]) -> list[float]:
        """What the leader says, to all; of a fixed length."""
        if self.size == 1:
            return message
        tensor = torch.tensor(message, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return [float(value) for value in tensor]

    def sum(self, loss: float, gradient: Tensor) -> tuple[float, Tensor]:
        """Both added up over all processes."""
        if self.size == 1:
            return loss, gradient
        together = torch.cat((gradient, gradient.new_tensor([loss])))
        dist.all_reduce(together)
        return together[-1].item(), together[:-1]

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
