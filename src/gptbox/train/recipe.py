"""The default preset: the model and the work that learn most in the time there is, on the machine there is.

Found by experiment, each value by itself: benchmarks/LOG.md. A budget is counted in seconds of the machine of those
experiments, two cores; `measure_speed` tells what a second of another machine is worth.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from gptbox.train.config import Stage, TrainConfig
from gptbox.train.gpt import GPT
from gptbox.train.shards import Shards

MINUTES = 5.0
"""Where nothing else is said."""

_COMMON: dict[str, Any] = {
    "preset": "default",
    "architecture": "qwen3",
    "activation": "silu",
    "tie_embeddings": False,
    "initialization": "previous",
    "optimizer": "muon",
    "schedule": "linear",
    "sampling": "epochs",
    "adam_learning_rate": 0.01,
    "minutes": MINUTES,
}


@dataclass(frozen=True)
class Recipe:
    """A model and its work, for budgets up to a length."""

    up_to_s: float
    """Seconds of the reference."""
    config: TrainConfig
    losses: tuple[tuple[float, float], ...]
    """What it reaches on Tiny Shakespeare: seconds, validation loss at its context; measured."""


RECIPES = (
    Recipe(
        14,
        TrainConfig(
            n_layer=3, n_head=2, n_embd=64, intermediate_size=128, context_length=64, batch_size=16,
            ramp=(Stage(0.3, 32, 32),), learning_rate=0.024, gain_learning_rate=0.01, beta2=0.95, momentum=0.9,
            newton_schulz_steps=5, weight_decay=0.0, **_COMMON,
        ),
        ((6, 1.74), (10, 1.67)),
    ),
    Recipe(
        30,
        TrainConfig(
            n_layer=4, n_head=2, n_embd=64, intermediate_size=128, context_length=128, batch_size=8,
            ramp=(Stage(0.5, 16, 64),), learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95, momentum=0.9,
            newton_schulz_steps=5, weight_decay=0.0, **_COMMON,
        ),
        ((19, 1.58),),
    ),
    Recipe(
        60,
        TrainConfig(
            n_layer=4, n_head=3, n_embd=96, intermediate_size=192, context_length=256, batch_size=4,
            ramp=(Stage(0.6, 8, 128),), learning_rate=0.015, gain_learning_rate=0.003, beta2=0.98, momentum=0.9,
            newton_schulz_steps=3, weight_decay=0.1, **_COMMON,
        ),
        ((39, 1.50),),
    ),
    Recipe(
        200,
        TrainConfig(
            n_layer=4, n_head=3, n_embd=96, intermediate_size=192, context_length=256, batch_size=8,
            ramp=(Stage(0.6, 16, 128),), learning_rate=0.015, gain_learning_rate=0.003, beta2=0.98, momentum=0.9,
            newton_schulz_steps=3, weight_decay=0.1, **_COMMON,
        ),
        ((64, 1.465), (129, 1.44)),
    ),
    Recipe(
        400,
        TrainConfig(
            n_layer=4, n_head=4, n_embd=128, intermediate_size=352, context_length=256, batch_size=8,
            learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95, newton_schulz_steps=4, weight_decay=0.3,
            **_COMMON,
        ),
        ((299, 1.405),),
    ),
    Recipe(
        1500,
        TrainConfig(
            n_layer=6, n_head=4, n_embd=128, intermediate_size=352, context_length=256, batch_size=8,
            learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95, newton_schulz_steps=4, weight_decay=0.33,
            dropout=0.05, **_COMMON,
        ),
        ((600, 1.40), (1200, 1.40)),
    ),
    Recipe(
        math.inf,
        TrainConfig(
            n_layer=8, n_head=5, n_embd=160, intermediate_size=432, context_length=256, batch_size=16, accumulate=4,
            learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95, newton_schulz_steps=4, weight_decay=0.35,
            dropout=0.15, **_COMMON,
        ),
        ((1800, 1.39), (3600, 1.38)),
    ),
)  # fmt: skip

_REFERENCE_STEP_S = 0.007
"""What `measure_speed` measured there."""

_DROPOUT = (12, 0.0), (20, 0.05), (30, 0.1), (40, 0.15), (math.inf, 0.25)
"""Below so many epochs, so much: measured on Tiny Shakespeare; more of it costs loss."""

GPU_SPEED = 30.0
"""A guess: a small model leaves a GPU mostly waiting, so it is given a large one."""


@dataclass(frozen=True)
class Choice:
    """A configuration for a budget."""

    config: TrainConfig
    seconds: float
    """The budget, in seconds of the reference."""
    expected_loss: float | None
    """On Tiny Shakespeare, at the end; None where no such plan was measured."""


@dataclass(frozen=True)
class Plan:
    """What a new run will do."""

    config: TrainConfig
    expected_loss: float | None = None
    """On Tiny Shakespeare, at the end; None where no such plan was measured."""


def measure_speed(shards: Shards, clock: Callable[[], float] = time.perf_counter) -> float:
    """How fast this machine trains by a clock, as a multiple of the reference's speed; takes a tenth of a second."""
    config = RECIPES[0].config
    model = GPT(config.model(65))
    ids = torch.zeros(config.batch_size, config.context_length, dtype=torch.long)
    times = []
    for _ in range(6):
        began = clock()
        shards.gradients(model, ids, ids)
        times.append(clock() - began)
    return _REFERENCE_STEP_S / sorted(times)[2]


def choose(seconds: float, tokens: int, validation_tokens: int) -> Choice:
    """What to train for reference `seconds` on a text of so many tokens."""
    recipe = next(recipe for recipe in RECIPES if seconds <= recipe.up_to_s)
    config = recipe.config
    longest = min(tokens, validation_tokens) - 1
    if config.context_length > longest:  # a small text still has to be cut into windows
        context = max(8, 2 ** int(math.log2(max(8, longest))))
        config = replace(config, context_length=context, ramp=())
    epochs = 130e9 * seconds / (6 * config.model(65).parameters) / tokens
    # Seen often, a text is learned by heart.
    dropout = next(dropout for most, dropout in _DROPOUT if epochs < most)
    if dropout:
        config = replace(config, dropout=max(config.dropout, dropout), weight_decay=max(config.weight_decay, 0.35))
    return Choice(config, seconds, _expected(seconds) if config == recipe.config else None)


def _expected(seconds: float) -> float | None:
    """The loss by interpolation between the measured ones, straight in the logarithm of time; None outside them."""
    points = [point for recipe in RECIPES for point in recipe.losses]
    for (a, at_a), (b, at_b) in pairwise(points):
        if a <= seconds <= b:
            return at_a + (at_b - at_a) * math.log(seconds / a) / math.log(b / a)
    return None


def seconds_for(loss: float) -> float:
    """How long it takes to reach a loss on Tiny Shakespeare, with a margin; other texts differ."""
    points = [point for recipe in RECIPES for point in recipe.losses]
    needed = next((seconds for seconds, reached in points if reached <= loss - 0.01), points[-1][0])
    return 1.3 * needed
