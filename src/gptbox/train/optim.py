"""The optimizers. A new one is a function here and a line in OPTIMIZERS."""

from collections.abc import Callable

import torch
from torch import nn

from gptbox.train.config import TrainConfig


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101; one fused kernel a group."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainConfig], torch.optim.Optimizer]] = {
    "adamw": adamw,
}
