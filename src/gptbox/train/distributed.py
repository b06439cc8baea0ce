"""Training by several processes, started by torchrun, each on a slice of every batch; gloo on CPUs, NCCL on GPUs.

    torchrun --nproc-per-node 2 -m -- gptbox train

The main process (rank 0) decides, evaluates, saves and publishes; the others take the steps it broadcasts.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Distributed:
    """The process group of a training run; a single process needs no group."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size

    @classmethod
    def from_environment(cls, environment: "os._Environ[str] | dict[str, str]" = os.environ) -> "Distributed":
        """Read torchrun's variables; with more than one process, join the group and wait for the others."""
        size = int(environment.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        distributed = cls(*(int(environment.get(name, "0")) for name in names))
        if torch.cuda.is_available():
            torch.cuda.set_device(distributed.device)
        # A long timeout: the others wait while the main process evaluates.
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=1))
        return distributed

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The device this process computes on."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a batch."""
        return slice(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)

    def broadcast(self, message: list[float]) -> list[float]:
        """The main process's message, in every process; all must pass a list of the same length."""
        if self.size == 1:
            return message
        tensor = torch.tensor(message, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return [float(value) for value in tensor]

    def broadcast_parameters(self, model: nn.Module) -> None:
        """Give all processes the main process's parameters."""
        if self.size > 1:
            for p in model.parameters():
                dist.broadcast(p.data, 0)

    def sum(self, loss: float, gradient: Tensor) -> tuple[float, Tensor]:
        """Sums of the loss and of the gradient over all processes, in one all-reduce."""
        if self.size == 1:
            return loss, gradient
        combined = torch.cat((gradient, gradient.new_tensor([loss])))
        dist.all_reduce(combined)
        return combined[-1].item(), combined[:-1]

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
