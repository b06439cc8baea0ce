"""A batch in parts, each on a thread of its own: how training uses several cores.

torch's own way, every operation in parallel, meets at a barrier hundreds of times a step, which a small model's short
operations cannot repay, and which makes all threads wait whenever another process takes a core. Parts meet once.
"""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from gptbox.train import compiled
from gptbox.train.fused import NO_DROPOUT, Dropout, cross_entropy
from gptbox.train.gpt import GPT

T = TypeVar("T")
R = TypeVar("R")

MOST_SHARDS = 4
"""Beyond these, Python's lock between the operations is what they would wait for; cores are then shared by parts."""


class Shards:
    """Threads at work on parts of one thing."""

    def __init__(self, threads: int) -> None:
        """`threads` is how many cores there are to use."""
        self.threads, self.count = threads, min(threads, MOST_SHARDS)
        self._threads_each = max(1, threads // self.count)
        torch.set_num_threads(self._threads_each)
        self._pool = ThreadPoolExecutor(self.count, "shard", self._begin) if self.count > 1 else None
        self._workspaces: list[dict[int, compiled.Workspace]] = [{} for _ in range(self.count)]
        """Of each shard, by the number of rows: pieces of a batch differ by one."""
        self._loss = mean_loss
        if torch.cuda.is_available() and shutil.which("cc") is not None:  # Triton needs a C compiler
            self._loss = torch.compile(mean_loss)

    def _begin(self) -> None:
        torch.set_num_threads(self._threads_each)
        torch.set_flush_denormal(True)  # of this thread; numbers that small cost a hundred times as much

    def map(self, function: Callable[[T], R], parts: Iterable[T]) -> list[R]:
        """The results in order; an exception of any is raised."""
        if self._pool is None:
            return [function(part) for part in parts]
        return list(self._pool.map(function, parts))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def gradients(
        self, model: GPT, inputs: Tensor, targets: Tensor, dropout: Dropout = NO_DROPOUT, accumulate: int = 1
    ) -> tuple[float, Tensor]:
        """The mean loss over ids (B, T), in nats a token, and its gradient by all parameters, end to end.

        The batch goes in at least `accumulate` pieces: fewer activations at once, at the same result. The gradient's
        memory is that of the next call, too.
        """
        rows = len(inputs)
        shards = min(self.count, rows)
        pieces = min(rows, -(-accumulate // shards) * shards)
        bounds = [rows * i // pieces for i in range(pieces + 1)]

        def shard(number: int) -> tuple[float, Tensor]:
            losses, total = 0.0, None
            parts = list(pairwise(bounds))[number::shards]
            for begin, end in parts:
                some, wanted, dropped = inputs[begin:end], targets[begin:end], dropout.of_rows(begin, end)
                if compiled.supports(model):
                    space = self._workspace(model, number, some.shape)
                    loss = compiled.gradients(model, space, some, wanted, dropped)
                    gradient = torch.from_numpy(space.gradient)
                else:
                    loss, gradient = self._by_autograd(model, some, wanted, dropped)
                share = (end - begin) / rows
                losses += loss * share
                if total is not None:
                    total.add_(gradient, alpha=share)
                else:  # the next piece is computed where this one's gradient is
                    total = gradient * share if len(parts) > 1 else gradient.mul_(share)
            assert total is not None
            return losses, total

        results = self.map(shard, range(shards))
        total = results[0][1]
        for _, gradient in results[1:]:
            total += gradient
        return sum(loss for loss, _ in results), total

    def _by_autograd(self, model: GPT, inputs: Tensor, targets: Tensor, dropout: Dropout) -> tuple[float, Tensor]:
        loss = self._loss(model, inputs, targets, dropout.to(inputs.device))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])

    def _workspace(self, model: GPT, number: int, shape: Any) -> compiled.Workspace:
        spaces = self._workspaces[number]
        if not (spaces and next(iter(spaces.values())).fits(model, shape[1])):
            spaces.clear()  # of another model, or of a stage that is over
        if shape[0] not in spaces:
            spaces[shape[0]] = compiled.Workspace(model, *shape)
        return spaces[shape[0]]


def mean_loss(model: GPT, inputs: Tensor, targets: Tensor, dropout: Dropout) -> Tensor:
    """By torch's own operations, on a GPU in bfloat16 where that loses nothing."""
    device = inputs.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        return cross_entropy(model(inputs, dropout=dropout), targets)


def assign_gradient(model: GPT, gradient: Tensor) -> None:
    """Set each parameter's grad to its part of `gradient`, as `Shards.gradients` gives it."""
    parameters = list(model.parameters())
    for p, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view(p.shape)
