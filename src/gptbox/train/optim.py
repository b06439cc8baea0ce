"""The optimizers. A new one is a class here and a line in OPTIMIZERS."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gptbox.train import kernels
from gptbox.train.config import TrainConfig
from gptbox.train.gpt import GPT
from gptbox.train.shards import Shards

_MOMENTS = ("mean", "square")
"""Adam's."""


class _Matrix(NamedTuple):
    """A matrix as Muon takes it: rows of a parameter."""

    parameter: nn.Parameter
    begin: int
    end: int

    def of(self, tensor: Tensor) -> Tensor:
        return tensor[self.begin : self.end]


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """Nearly the nearest semi-orthogonal matrix to (R, C), its singular values within 0.7 and 1.2: Newton and Schulz.

    The quintic's coefficients are those of Jordan's Muon (below), which trade exactness for few steps.
    """
    a, b, c = map(float, kernels.QUINTIC)
    x: Tensor = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if len(matrix) <= matrix.shape[1] else x.T


class Optimizer(ABC):
    """Groups of parameters, each with its rate, and a state that a checkpoint keeps.

    Not torch.optim's: making one of those imports torch's compiler, which takes a second and 70 MB.
    """

    def __init__(self, groups: list[dict[str, Any]], config: TrainConfig) -> None:
        """A group has `params`, `lr_scale` (of the schedule's rate), and `lr`, which is set before each step."""
        self.param_groups, self.config = groups, config
        for group in groups:
            group["lr"] = config.learning_rate * group["lr_scale"]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {p: {} for group in groups for p in group["params"]}

    @abstractmethod
    def step(self) -> None:
        """One update from the parameters' grads."""

    def state_dict(self) -> list[dict[str, Tensor]]:
        """Of each parameter, in the order of the groups."""
        return list(self.state.values())

    def load_state_dict(self, state: list[dict[str, Tensor]]) -> None:
        """Go back to what `state_dict` gave."""
        for p, values in zip(self.state, state, strict=True):
            self.state[p] = {name: value.to(p.device) for name, value in values.items()}

    def _adam(self, parameters: list[nn.Parameter], rate: float, decay: float) -> None:
        """Kingma and Ba, arXiv 1412.6980, with decoupled decay; one fused kernel."""
        for p in parameters:
            if not self.state[p]:
                step = torch.zeros((), device=p.device)
                self.state[p] = {"step": step, **{key: torch.zeros_like(p) for key in _MOMENTS}}
        states = [self.state[p] for p in parameters]
        means, squares, steps = ([s[key] for s in states] for key in (*_MOMENTS, "step"))
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            list(parameters), [p.grad for p in parameters if p.grad is not None], means, squares, [], steps, lr=rate,
            beta1=self.config.beta1, beta2=self.config.beta2, weight_decay=decay, eps=1e-8, amsgrad=False,
            maximize=False,
        )  # fmt: skip


class Muon(Optimizer):
    """Muon for the matrices of the blocks, Adam for embeddings, head and gains.

    Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon): a matrix moves by its momentum made orthogonal, so
    that all its directions are learned at one rate. What is fused for speed (queries, keys and values; gate and value)
    is taken apart for it. The rates of the Adam groups follow the schedule in proportion.
    """

    def __init__(self, model: GPT, config: TrainConfig, shards: Shards) -> None:
        matrices = sorted(_matrices(model), key=lambda m: (m.end - m.begin) * m.parameter.shape[1], reverse=True)
        self._shards = shards
        self._parts = [matrices[i :: shards.count] for i in range(shards.count)]
        """The matrices in parts of like cost, one for each shard."""
        taken = {m.parameter for m in matrices}
        inside = [p for p in model.parameters() if p in taken]
        gains = [p for p in model.parameters() if p.dim() < 2]
        others = [p for p in model.parameters() if p.dim() >= 2 and p not in taken]
        groups: list[dict[str, Any]] = [
            {"params": inside, "lr_scale": 1.0},
            {"params": others, "lr_scale": config.adam_learning_rate / config.learning_rate},
            {"params": gains, "lr_scale": config.gain_learning_rate / config.learning_rate},
        ]
        super().__init__(groups, config)

    @torch.no_grad()
    def step(self) -> None:
        matrices, *adam = self.param_groups
        for p in matrices["params"]:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        self._shards.map(lambda part: self._muon(part, matrices["lr"]), self._parts)
        for group in adam:
            self._adam(group["params"], group["lr"], 0.0)

    def _muon(self, matrices: list[_Matrix], rate: float) -> None:
        c = self.config
        for matrix in matrices:
            p = matrix.parameter
            assert p.grad is not None
            weight, grad, momentum = (matrix.of(t) for t in (p.detach(), p.grad, self.state[p]["momentum"]))
            rows, columns = weight.shape
            scaled = rate * max(1.0, rows / columns) ** 0.5
            decay = 1 - rate * c.weight_decay
            if p.device.type == "cpu" and kernels.HAS_SGEMM:
                less = min(rows, columns)
                kernels.muon(
                    weight.numpy(), grad.numpy(), momentum.numpy(), np.float32(c.momentum), np.float32(scaled),
                    np.float32(decay), c.newton_schulz_steps, *(np.empty((rows, columns), np.float32) for _ in "ab"),
                    *(np.empty((less, less), np.float32) for _ in "ab"),
                )  # fmt: skip
            else:
                momentum.lerp_(grad, 1 - c.momentum)
                direction = orthogonalize(grad.lerp(momentum, c.momentum), c.newton_schulz_steps)
                weight.mul_(decay).sub_(direction, alpha=scaled)


def _matrices(model: GPT) -> Iterator[_Matrix]:
    """The matrices of the blocks, those that are fused taken apart."""
    c = model.config
    for name, p in model.named_parameters():
        if p.dim() < 2 or not name.startswith("blocks."):
            continue
        sizes = [len(p)]
        if name.endswith("attention.qkv.weight"):
            sizes = [heads * c.head_dim for heads in (c.n_head, c.n_kv_head, c.n_kv_head)]
        elif name.endswith("mlp.up.weight") and c.architecture == "qwen3":
            sizes = [c.intermediate_size] * 2
        end = 0
        for size in sizes:
            yield _Matrix(p, end, end + size)
            end += size


class AdamW(Optimizer):
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101."""

    def __init__(self, model: GPT, config: TrainConfig, shards: Shards) -> None:
        parameters = list(model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay, "lr_scale": 1.0},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0, "lr_scale": 1.0},
        ]
        super().__init__(groups, config)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            self._adam(group["params"], group["lr"], group["weight_decay"])


OPTIMIZERS: dict[str, Callable[[GPT, TrainConfig, Shards], Optimizer]] = {"adamw": AdamW, "muon": Muon}
