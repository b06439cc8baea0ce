"""Optimizers. To add one, write a class and enter it in OPTIMIZERS."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gptbox.errors import SettingError
from gptbox.train.config import TrainConfig
from gptbox.train.data_parallel import DataParallel
from gptbox.train.gpt import GPT, trainable_parameters
from gptbox.train.kernels import blas
from gptbox.train.kernels.muon import QUINTIC, muon

_MOMENTS = ("mean", "square")
"""Adam's state per parameter; these names are stored in checkpoints."""


class _Matrix(NamedTuple):
    """A matrix that Muon updates on its own: rows `begin` to `end` of a parameter."""

    parameter: nn.Parameter
    begin: int
    end: int

    def rows_of(self, tensor: Tensor) -> Tensor:
        return tensor[self.begin : self.end]


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """Approximate the nearest semi-orthogonal matrix to `matrix` (R, C) by Newton-Schulz iterations.

    Singular values end between 0.7 and 1.2: the quintic's coefficients, from Jordan's Muon (below), trade exactness for
    few steps.
    """
    a, b, c = map(float, QUINTIC)
    x: Tensor = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if len(matrix) <= matrix.shape[1] else x.T


class Optimizer(ABC):
    """Base class: parameter groups, each with its learning rate, and the state that checkpoints store.

    Not torch.optim.Optimizer, whose construction imports torch's compiler: a second and 70 MB.
    """

    moments: ClassVar[int]
    """State tensors of a parameter's size, per parameter; the largest number if it differs among parameters."""
    default_rates: ClassVar[dict[str, float]]
    """Learning rates by field of TrainConfig, for presets and recipes that were tuned for another optimizer."""

    def __init__(self, model: GPT, config: TrainConfig, data_parallel: DataParallel) -> None:
        self.config, self.data_parallel = config, data_parallel
        self.param_groups = self.make_groups(model)
        for group in self.param_groups:
            group["lr"] = config.learning_rate * group["lr_scale"]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {
            p: {} for group in self.param_groups for p in group["params"]
        }

    @abstractmethod
    def make_groups(self, model: GPT) -> list[dict[str, Any]]:
        """The trainable parameters in groups, each with `params` and `lr_scale`, a factor of the scheduled rate.

        `lr`, that product, is set before each step.
        """

    @abstractmethod
    def step(self) -> None:
        """Update the parameters by their grads."""

    def state_dict(self) -> list[dict[str, Tensor]]:
        """The state of each parameter, in the order of the groups."""
        return list(self.state.values())

    def load_state_dict(self, state: list[dict[str, Tensor]]) -> None:
        """Restore the state that `state_dict` returned."""
        for p, values in zip(self.state, state, strict=True):
            self.state[p] = {name: value.to(p.device) for name, value in values.items()}

    def _adam(self, parameters: list[nn.Parameter], rate: float, decay: float) -> None:
        """Adam (Kingma and Ba, arXiv 1412.6980) with decoupled weight decay, as one fused kernel."""
        if not parameters:
            return
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

    Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon): a matrix is updated by its orthogonalised
    momentum, so that all its directions are learned at the same rate. The parts of fused matrices (queries, keys
    and values; gate and value) are updated separately. The rates of the Adam groups are proportional to the scheduled
    rate.
    """

    moments = 2  # the Adam groups; one for matrices
    default_rates: ClassVar = {
        "learning_rate": 0.02, "min_learning_rate": 0.0, "adam_learning_rate": 0.01, "gain_learning_rate": 0.01,
    }  # fmt: skip

    def make_groups(self, model: GPT) -> list[dict[str, Any]]:
        c, workers, parameters = self.config, self.data_parallel.num_workers, trainable_parameters(model)
        matrices = sorted(_matrices(model), key=lambda m: (m.end - m.begin) * m.parameter.shape[1], reverse=True)
        self._matrices_per_worker = [matrices[i::workers] for i in range(workers)]
        """The matrices in groups of similar cost."""
        in_blocks = {m.parameter for m in matrices}
        hidden = [p for p in parameters if p in in_blocks]
        gains = [p for p in parameters if p.dim() < 2]
        embeddings = [p for p in parameters if p.dim() >= 2 and p not in in_blocks]
        return [
            {"params": hidden, "lr_scale": 1.0},
            {"params": embeddings, "lr_scale": c.adam_learning_rate / c.learning_rate},
            {"params": gains, "lr_scale": c.gain_learning_rate / c.learning_rate},
        ]

    @torch.no_grad()
    def step(self) -> None:
        muon_group, *adam_groups = self.param_groups
        for p in muon_group["params"]:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        self.data_parallel.map(lambda matrices: self._muon(matrices, muon_group["lr"]), self._matrices_per_worker)
        for group in adam_groups:
            self._adam(group["params"], group["lr"], 0.0)

    def _muon(self, matrices: list[_Matrix], rate: float) -> None:
        c = self.config
        for matrix in matrices:
            p = matrix.parameter
            assert p.grad is not None
            weight, grad, momentum = (matrix.rows_of(t) for t in (p.detach(), p.grad, self.state[p]["momentum"]))
            rows, columns = weight.shape
            scaled_rate = rate * max(1.0, rows / columns) ** 0.5
            decay = 1 - rate * c.weight_decay
            if p.device.type == "cpu" and blas.HAS_SGEMM:
                size = min(rows, columns)
                muon(
                    weight.numpy(), grad.numpy(), momentum.numpy(), np.float32(c.momentum), np.float32(scaled_rate),
                    np.float32(decay), c.newton_schulz_steps, *(np.empty((rows, columns), np.float32) for _ in "ab"),
                    *(np.empty((size, size), np.float32) for _ in "ab"),
                )  # fmt: skip
            else:
                momentum.lerp_(grad, 1 - c.momentum)
                direction = orthogonalize(grad.lerp(momentum, c.momentum), c.newton_schulz_steps)
                weight.mul_(decay).sub_(direction, alpha=scaled_rate)


def _matrices(model: GPT) -> Iterator[_Matrix]:
    """The trainable matrices of the blocks, with fused ones split."""
    c = model.config
    for name, p in model.named_parameters():
        if p.dim() < 2 or not name.startswith("blocks.") or not p.requires_grad:
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
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101; gains and biases do not decay."""

    moments = 2
    default_rates: ClassVar = {"learning_rate": 3e-3, "min_learning_rate": 0.0}

    def make_groups(self, model: GPT) -> list[dict[str, Any]]:
        parameters, decay = trainable_parameters(model), self.config.weight_decay
        return [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": decay, "lr_scale": 1.0},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0, "lr_scale": 1.0},
        ]

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            self._adam(group["params"], group["lr"], group["weight_decay"])


OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "muon": Muon}


def check_optimizer_name(name: str | None) -> None:
    """Raises SettingError for a value of --optimizer that is not in OPTIMIZERS; None means no choice."""
    if name is not None and name not in OPTIMIZERS:
        raise SettingError(f"--optimizer {name!r} is not one of {', '.join(OPTIMIZERS)}.")


def with_default_rates(config: TrainConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """`changes`, completed by the default learning rates of their optimizer if it is not the one of `config`."""
    name = changes.get("optimizer")
    if name in (None, config.optimizer):
        return changes
    given = {field: value for field, value in changes.items() if value is not None}
    return {**OPTIMIZERS[name].default_rates, **given}
