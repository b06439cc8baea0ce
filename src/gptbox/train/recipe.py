"""The default preset: the configuration that reaches the lowest loss for a time budget on this machine.

The values were tuned one at a time: benchmarks/LOG.md. Budgets are in seconds of the reference machine of those
experiments, two cores; `measure_speed` compares another machine with it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from gptbox.models.config import ModelConfig
from gptbox.tokenizers import Tokenizer
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer
from gptbox.tokenizers.gpt2 import GPT2Tokenizer
from gptbox.train.config import NORM_EPS, TINY_SHAKESPEARE_CHARACTERS, Stage, TrainConfig
from gptbox.train.data_parallel import DataParallel
from gptbox.train.gpt import GPT

MINUTES = 5.0
"""The default budget."""

_COMMON: dict[str, Any] = {
    "preset": "default",
    "initialization": "previous",
    "optimizer": "muon",
    "schedule": "linear",
    "sampling": "epochs",
    "adam_learning_rate": 0.01,
    "minutes": MINUTES,
}


def _model(n_layer: int, n_head: int, n_embd: int, intermediate_size: int, context_length: int) -> ModelConfig:
    return ModelConfig(
        architecture="qwen3",
        vocab_size=TINY_SHAKESPEARE_CHARACTERS,
        context_length=context_length,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        intermediate_size=intermediate_size,
        activation="silu",
        norm_eps=NORM_EPS["qwen3"],
        tie_embeddings=False,
    )


@dataclass(frozen=True)
class Recipe:
    """A configuration for a range of budgets."""

    max_budget_s: float
    """Largest budget, in reference seconds."""
    config: TrainConfig
    losses: tuple[tuple[float, float], ...]
    """Measured with characters on Tiny Shakespeare, as `MeasuredLosses.points`."""


RECIPES = (
    Recipe(
        14,
        TrainConfig(
            model=_model(n_layer=3, n_head=2, n_embd=64, intermediate_size=128, context_length=64),
            batch_size=16, ramp=(Stage(0.3, 32, 32),), learning_rate=0.024, gain_learning_rate=0.01, beta2=0.95,
            momentum=0.9, newton_schulz_steps=5, weight_decay=0.0, **_COMMON,
        ),
        ((6, 1.74), (10, 1.67)),
    ),
    Recipe(
        30,
        TrainConfig(
            model=_model(n_layer=4, n_head=2, n_embd=64, intermediate_size=128, context_length=128),
            batch_size=8, ramp=(Stage(0.5, 16, 64),), learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95,
            momentum=0.9, newton_schulz_steps=5, weight_decay=0.0, **_COMMON,
        ),
        ((19, 1.58),),
    ),
    Recipe(
        60,
        TrainConfig(
            model=_model(n_layer=4, n_head=3, n_embd=96, intermediate_size=192, context_length=256),
            batch_size=4, ramp=(Stage(0.6, 8, 128),), learning_rate=0.015, gain_learning_rate=0.003, beta2=0.98,
            momentum=0.9, newton_schulz_steps=3, weight_decay=0.1, **_COMMON,
        ),
        ((39, 1.50),),
    ),
    Recipe(
        200,
        TrainConfig(
            model=_model(n_layer=4, n_head=3, n_embd=96, intermediate_size=192, context_length=256),
            batch_size=8, ramp=(Stage(0.6, 16, 128),), learning_rate=0.015, gain_learning_rate=0.003, beta2=0.98,
            momentum=0.9, newton_schulz_steps=3, weight_decay=0.1, **_COMMON,
        ),
        ((64, 1.465), (129, 1.44)),
    ),
    Recipe(
        400,
        TrainConfig(
            model=_model(n_layer=4, n_head=4, n_embd=128, intermediate_size=352, context_length=256),
            batch_size=8, learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95, newton_schulz_steps=4,
            weight_decay=0.3, **_COMMON,
        ),
        ((299, 1.405),),
    ),
    Recipe(
        1500,
        TrainConfig(
            model=_model(n_layer=6, n_head=4, n_embd=128, intermediate_size=352, context_length=256),
            batch_size=8, learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95, newton_schulz_steps=4,
            weight_decay=0.33, dropout=0.05, **_COMMON,
        ),
        ((600, 1.40), (1200, 1.40)),
    ),
    Recipe(
        math.inf,
        TrainConfig(
            model=_model(n_layer=8, n_head=5, n_embd=160, intermediate_size=432, context_length=256),
            batch_size=16, accumulate=4, learning_rate=0.02, gain_learning_rate=0.01, beta2=0.95,
            newton_schulz_steps=4, weight_decay=0.35, dropout=0.15, **_COMMON,
        ),
        ((1800, 1.39), (3600, 1.38)),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class ExpectedLoss:
    """The final loss to expect of a configuration that was measured on another text."""

    text: str
    """The text that it was measured on."""
    nats_per_letter: float


@dataclass(frozen=True)
class MeasuredLosses:
    """The final losses of RECIPES with one kind of tokens, on one text."""

    text: str
    points: tuple[tuple[float, float], ...]
    """(Reference seconds, validation loss at the model's context in nats per letter), by time.

    A letter is a character of a text in English; see `PreparedDataset.letters_per_token`.
    """

    def expected_loss(self, budget_s: float) -> ExpectedLoss | None:
        """Interpolated linearly in the logarithm of time; None outside the range that was measured."""
        for (a_s, a_loss), (b_s, b_loss) in pairwise(self.points):
            if a_s <= budget_s <= b_s:
                loss = a_loss + (b_loss - a_loss) * math.log(budget_s / a_s) / math.log(b_s / a_s)
                return ExpectedLoss(self.text, loss)
        return None

    def seconds_to_reach(self, loss: float) -> float:
        """Reference seconds to reach a loss, in nats per letter, with a margin of 30 %."""
        seconds = (seconds for seconds, reached in self.points if reached <= loss - 0.01)
        return 1.3 * next(seconds, self.points[-1][0])


_CHARACTERS = MeasuredLosses("Tiny Shakespeare", tuple(point for recipe in RECIPES for point in recipe.losses))
_BPE = MeasuredLosses(
    "Shakespeare's complete plays",
    ((6, 1.66), (10, 1.60), (19, 1.55), (39, 1.48), (60, 1.45), (299, 1.36)),
)
_GPT2 = MeasuredLosses(_BPE.text, ((60, 2.44), (299, 1.5)))
_MEASURED = {
    CharTokenizer.name: _CHARACTERS,
    ByteTokenizer.name: _CHARACTERS,
    BPETokenizer.name: _BPE,
    GPT2Tokenizer.name: _GPT2,
}


def measured_losses(tokenizer: Tokenizer) -> MeasuredLosses:
    """The losses that were measured with a tokenizer."""
    return _MEASURED[tokenizer.name]


_REFERENCE_STEP_S = 0.007
"""The step time of `measure_speed` on the reference machine."""

_DROPOUT = (12, 0.0), (20, 0.05), (30, 0.1), (40, 0.15), (math.inf, 0.25)
"""(Epochs, dropout of a run with fewer epochs), measured on Tiny Shakespeare; more dropout gives a higher loss."""

GPU_SPEED = 30.0
"""Assumed speed of a GPU relative to the reference machine, not measured; only a large model keeps a GPU busy."""


@dataclass(frozen=True)
class ChosenConfig:
    """The configuration chosen for a budget."""

    config: TrainConfig
    budget_s: float
    """Reference seconds."""
    expected_loss: ExpectedLoss | None
    """None if this configuration was not measured."""


@dataclass(frozen=True)
class TrainPlan:
    """The configuration of a run, and the loss to expect."""

    config: TrainConfig
    expected_loss: ExpectedLoss | None = None
    """None if this configuration was not measured."""


def measure_speed(data_parallel: DataParallel, clock: Callable[[], float] = time.perf_counter) -> float:
    """The training speed of this machine relative to the reference, timed by `clock`; takes a tenth of a second."""
    config = RECIPES[0].config
    model = GPT(config.model)
    ids = torch.zeros(config.batch_size, config.model.context_length, dtype=torch.long)
    times = []
    for _ in range(6):
        began = clock()
        data_parallel.gradients(model, ids, ids)
        times.append(clock() - began)
    return _REFERENCE_STEP_S / sorted(times)[2]


def choose_config(budget_s: float, train_tokens: int, val_tokens: int, tokenizer: Tokenizer) -> ChosenConfig:
    """The configuration for a budget in reference seconds, and for a text of this size and tokenizer."""
    recipe = next(recipe for recipe in RECIPES if budget_s <= recipe.max_budget_s)
    measured = config = recipe.config.with_vocab_size(tokenizer.vocab_size)
    max_context = min(train_tokens, val_tokens) - 1
    if config.model.context_length > max_context:  # a split must hold at least one window
        context = max(8, 2 ** int(math.log2(max(8, max_context))))
        config = replace(config, model=replace(config.model, context_length=context), ramp=())
    # About 130 GFLOP/s on the reference machine, 6 operations per parameter and token.
    epochs = 130e9 * budget_s / (6 * config.model.parameters) / train_tokens
    # A text that is read many times is memorised.
    dropout = next(dropout for max_epochs, dropout in _DROPOUT if epochs < max_epochs)
    if dropout:
        config = replace(config, dropout=max(config.dropout, dropout), weight_decay=max(config.weight_decay, 0.35))
    expected = measured_losses(tokenizer).expected_loss(budget_s)
    return ChosenConfig(config, budget_s, expected if config == measured else None)
