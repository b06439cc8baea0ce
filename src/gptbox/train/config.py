"""What to train and how: one dataclass, and a table of presets."""

from dataclasses import dataclass, fields, replace
from typing import Any

from gptbox.errors import SettingError
from gptbox.model_config import Activation, Architecture, ModelConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    preset: str
    """The name it was made from."""

    # The model
    architecture: Architecture
    n_layer: int
    n_head: int
    n_embd: int
    context_length: int
    activation: Activation
    intermediate_size: int = 0
    """Width of the MLP's hidden layer; 0 means 4 n_embd."""
    tie_embeddings: bool = True
    dropout: float = 0.0

    # The work
    batch_size: int
    """Sequences a step."""
    steps: int | None = None
    """How many steps; None leaves it to `minutes`."""
    minutes: float | None = None
    """How long, from the start of the command, publishing included; ends the run before `steps` where both are set."""
    target_loss: float | None = None
    """End as soon as the validation loss is at or below this."""
    eval_every: int | None = None
    """Steps between evaluations; None spaces them in time, dense at first, unless the run is measured in steps."""
    seed: int = 1337

    optimizer: str = "adamw"
    """A name in `gptbox.train.optim.OPTIMIZERS`."""
    learning_rate: float
    min_learning_rate: float
    warmup_steps: int
    """The most steps of warm-up; short runs take a tenth of theirs."""
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    """On matrices and embeddings, not on gains and biases."""
    grad_clip: float = 1.0
    """The largest global norm of the gradients."""

    def __post_init__(self) -> None:
        above_zero = ("batch_size", "context_length", "steps", "minutes", "target_loss", "eval_every", "learning_rate")
        for name in above_zero:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise SettingError(f"{name} is {value}; it must be a number above 0.")
        if self.steps is None and self.minutes is None and self.target_loss is None:
            raise SettingError("Nothing says when to stop: give minutes, steps or a target loss.")
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout is {self.dropout}; it must be at least 0 and below 1.")
        if not 0 <= self.seed < 2**63:
            raise SettingError(f"seed is {self.seed}; it must be between 0 and 2^63 - 1.")
        if self.eval_every is None and self.steps is not None and self.minutes is None:
            # Not by the clock: the same steps must give the same losses on a slower day.
            object.__setattr__(self, "eval_every", max(100, self.steps // 8))

    def model(self, vocab_size: int) -> ModelConfig:
        """The model's configuration for a vocabulary."""
        return ModelConfig(
            architecture=self.architecture,
            vocab_size=vocab_size,
            context_length=self.context_length,
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            intermediate_size=self.intermediate_size,
            activation=self.activation,
            norm_eps=1e-5 if self.architecture == "gpt2" else 1e-6,
            tie_embeddings=self.tie_embeddings,
        )

    def fixed(self) -> dict[str, Any]:
        """What must stay the same for a run to go on: all but how long it lasts and how often it is looked at."""
        changeable = {"steps", "minutes", "target_loss", "eval_every"}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in changeable}


PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(
        preset="default",
        architecture="qwen3",
        n_layer=4,
        n_head=4,
        n_embd=128,
        context_length=256,
        activation="silu",
        intermediate_size=352,
        tie_embeddings=False,
        batch_size=8,
        minutes=5.0,
        learning_rate=3e-3,
        min_learning_rate=3e-5,
        warmup_steps=100,
        weight_decay=0.3,
    ),
    # nanoGPT's config/train_shakespeare_char.py with the lesson's ten flags.
    "lesson": TrainConfig(
        preset="lesson",
        architecture="gpt2",
        n_layer=4,
        n_head=4,
        n_embd=128,
        context_length=64,
        activation="gelu",
        batch_size=12,
        steps=2000,
        eval_every=250,
        learning_rate=1e-3,
        min_learning_rate=1e-4,
        warmup_steps=100,
    ),
}


def make_config(
    preset: str,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    target_loss: float | None = None,
    **others: Any,
) -> TrainConfig:
    """A preset with changes; None leaves the preset's value.

    Minutes, steps and target loss replace the preset's own way to end, together.
    Raises SettingError for an unknown preset or an impossible value.
    """
    if preset not in PRESETS:
        raise SettingError(f"PRESET {preset!r} is not one of {', '.join(PRESETS)}.")
    changes = {name: value for name, value in others.items() if value is not None}
    if minutes is not None or steps is not None or target_loss is not None:
        changes |= {"minutes": minutes, "steps": steps, "target_loss": target_loss}
    return replace(PRESETS[preset], **changes)
