"""Data parallelism over threads: each computes the gradient of a slice of the batch, on a core of its own.

torch parallelises each operation instead. That takes hundreds of barriers per step, which cost more than a small
model's short operations gain, and at each one a preempted thread stalls all others. Slices synchronise once per step.
"""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from gptbox.train import cpu_backend
from gptbox.train.gpt import GPT, trainable_parameters
from gptbox.train.ops import NO_DROPOUT, Dropout, cross_entropy

T = TypeVar("T")
R = TypeVar("R")

MAX_WORKERS = 4
"""With more, threads wait for the GIL between operations; further cores go to torch's threads within each worker."""


class DataParallel:
    """A pool of worker threads that compute gradients together."""

    def __init__(self, threads: int) -> None:
        """`threads` is the number of cores to use."""
        self.threads, self.num_workers = threads, min(threads, MAX_WORKERS)
        self._threads_per_worker = max(1, threads // self.num_workers)
        torch.set_num_threads(self._threads_per_worker)
        self._pool = ThreadPoolExecutor(self.num_workers, "worker", self._init_worker) if self.num_workers > 1 else None
        self._workspaces: list[dict[int, cpu_backend.Workspace]] = [{} for _ in range(self.num_workers)]
        """Per worker, a workspace per number of rows: the micro-batches of a batch differ by at most one row."""
        self._loss = mean_loss
        if torch.cuda.is_available() and shutil.which("cc") is not None:  # Triton needs a C compiler
            self._loss = torch.compile(mean_loss)

    def _init_worker(self) -> None:
        torch.set_num_threads(self._threads_per_worker)
        torch.set_flush_denormal(True)  # a setting per thread; denormal numbers are a hundred times as slow

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Apply `function` to all items on the workers; returns results in order, or raises the first exception."""
        if self._pool is None:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def gradients(
        self, model: GPT, inputs: Tensor, targets: Tensor, dropout: Dropout = NO_DROPOUT, accumulate: int = 1
    ) -> tuple[float, Tensor]:
        """The mean loss over ids (B, T), in nats per token, and its gradient: 1-D, that of `trainable_parameters`.

        The batch is split into at least `accumulate` micro-batches, or into single rows, which saves activation memory
        and changes nothing else. The next call overwrites the gradient.
        """
        rows = len(inputs)
        workers = min(self.num_workers, rows)
        micro_batches = min(rows, -(-accumulate // workers) * workers)
        bounds = [rows * i // micro_batches for i in range(micro_batches + 1)]
        compiled = cpu_backend.supports(model) and cpu_backend.trains_all_parameters(model)

        def work(worker: int) -> tuple[float, Tensor]:
            total_loss, total = 0.0, None
            slices = list(pairwise(bounds))[worker::workers]
            for begin, end in slices:
                x, y, slice_dropout = inputs[begin:end], targets[begin:end], dropout.of_rows(begin, end)
                if compiled:
                    workspace = self._workspace(model, worker, x.shape)
                    loss = cpu_backend.gradients(model, workspace, x, y, slice_dropout)
                    gradient = torch.from_numpy(workspace.gradient)
                else:
                    loss, gradient = self._by_autograd(model, x, y, slice_dropout)
                fraction = (end - begin) / rows
                total_loss += loss * fraction
                if total is not None:
                    total.add_(gradient, alpha=fraction)
                else:  # a copy, if another micro-batch is to overwrite this buffer
                    total = gradient * fraction if len(slices) > 1 else gradient.mul_(fraction)
            assert total is not None
            return total_loss, total

        results = self.map(work, range(workers))
        total = results[0][1]
        for _, gradient in results[1:]:
            total += gradient
        return sum(loss for loss, _ in results), total

    def _by_autograd(self, model: GPT, inputs: Tensor, targets: Tensor, dropout: Dropout) -> tuple[float, Tensor]:
        loss = self._loss(model, inputs, targets, dropout.to(inputs.device))
        gradients = torch.autograd.grad(loss, trainable_parameters(model))
        return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])

    def _workspace(self, model: GPT, worker: int, shape: Any) -> cpu_backend.Workspace:
        workspaces = self._workspaces[worker]
        if not (workspaces and next(iter(workspaces.values())).fits(model, shape[1])):
            workspaces.clear()  # made for another model, or for the context of an earlier stage
        if shape[0] not in workspaces:
            workspaces[shape[0]] = cpu_backend.Workspace(model, *shape)
        return workspaces[shape[0]]


def mean_loss(model: GPT, inputs: Tensor, targets: Tensor, dropout: Dropout) -> Tensor:
    """The mean loss over ids (B, T) in nats per token, for autograd; on a GPU, under bfloat16 autocast."""
    device = inputs.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        return cross_entropy(model(inputs, dropout=dropout), targets)


def assign_gradient(model: GPT, gradient: Tensor) -> None:
    """Set each trainable parameter's grad to a view of its part of `gradient`, from `DataParallel.gradients`."""
    parameters = trainable_parameters(model)
    for p, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view(p.shape)
