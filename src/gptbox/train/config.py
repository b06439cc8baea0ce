"""The configuration of a training run, and the presets."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, Self

from gptbox.errors import ModelFolderError, SettingError
from gptbox.models.config import ModelConfig

TINY_SHAKESPEARE_CHARACTERS = 65
"""Vocabulary size in presets and recipes, which are made for Tiny Shakespeare; see `TrainConfig.with_vocab_size`."""

NORM_EPS = {"gpt2": 1e-5, "qwen3": 1e-6}
"""Epsilon of the norms of models trained from scratch, by architecture."""


class Stage(NamedTuple):
    """A phase of training with its own batch shape; short contexts at first learn spelling at less cost."""

    share: float
    """Fraction of the whole work, in steps or in seconds."""
    batch_size: int
    """Sequences per step."""
    context_length: int


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run, except its text. Checkpoints store a part of it: see `fixed`."""

    preset: str
    """Name of the preset it was made from."""

    # The model
    model: ModelConfig
    dropout: float = 0.0
    initialization: Literal["gpt2", "previous"] = "gpt2"
    """Scheme of random initial weights; see `gptbox.train.gpt.GPT.initialize`."""
    init: str | None = None
    """Run or model folder that the initial weights come from, as the user named it; None for random weights."""

    # The work
    batch_size: int
    """Sequences per step."""
    accumulate: int = 1
    """Gradient accumulation: micro-batches per batch, computed one after the other to save memory."""
    ramp: tuple[Stage, ...] = ()
    """The first stages; the rest of the work has batches of batch_size x model.context_length."""
    steps: int | None = None
    """Number of steps; None for no limit."""
    minutes: float | None = None
    """Duration from the start of the command, publishing included; with `steps`, whichever comes first ends the run."""
    clock: Literal["wall", "cpu"] = "wall"
    """What `minutes` count: elapsed time, or the CPU time of this process divided by its threads."""
    target_loss: float | None = None
    """Nats per token: the run ends once the estimated validation loss is at most this."""
    horizon_minutes: float | None = None
    """Length of the schedule if only a loss ends the run; after it the learning rate stays constant."""
    eval_every: int | None = None
    """Steps between evaluations; None spaces them in time, dense at first, unless only steps end the run."""
    seed: int = 1337

    sampling: str = "crops"
    """A name in `gptbox.train.dataloader.SAMPLINGS`."""
    optimizer: str = "adamw"
    """A name in `gptbox.train.optim.OPTIMIZERS`."""
    schedule: str = "cosine"
    """A name in `gptbox.train.schedule.SCHEDULES`."""
    learning_rate: float
    min_learning_rate: float = 0.0
    adam_learning_rate: float = 0.0
    """Muon only: the rate of Adam for embeddings and head."""
    gain_learning_rate: float = 0.0
    """Muon only: the rate of Adam for the gains of norms."""
    warmup_steps: int = 0
    """Most steps of warm-up; shorter runs use a tenth of their steps."""
    cooldown: float = 1.0
    """Final fraction of the work over which the linear schedule decays."""
    beta1: float = 0.9
    beta2: float = 0.99
    """Decay rates of Adam's moments."""
    momentum: float = 0.95
    newton_schulz_steps: int = 5
    """Muon's momentum, and iterations of its orthogonalisation."""
    weight_decay: float = 0.1
    """Weight decay of the blocks' matrices and, with AdamW, of embeddings and head; gains and biases do not decay."""
    grad_clip: float = 0.0
    """Maximum global norm of the gradient; 0 disables clipping."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ramp", tuple(Stage(*stage) for stage in self.ramp))
        above_zero = (
            "batch_size", "accumulate", "steps", "minutes", "target_loss", "horizon_minutes", "eval_every",
            "learning_rate",
        )  # fmt: skip
        for name in above_zero:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise SettingError(f"{name} is {value}; it must be a number above 0.")
        if self.steps is None and self.minutes is None and self.target_loss is None:
            raise SettingError("Nothing says when to stop: give minutes, steps or a target loss.")
        if any(stage.context_length > self.model.context_length for stage in self.ramp):
            raise SettingError(f"a stage of the ramp is longer than the context of {self.model.context_length}.")
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout is {self.dropout}; it must be at least 0 and below 1.")
        if not 0 <= self.seed < 2**63:
            raise SettingError(f"seed is {self.seed}; it must be between 0 and 2^63 - 1.")
        if self.eval_every is None and self.steps is not None and self.minutes is None:
            # Not by the clock: the same steps must give the same losses on a slower machine.
            object.__setattr__(self, "eval_every", max(100, self.steps // 8))

    def stage(self, progress: float) -> Stage:
        """The batch shape at a fraction of the work done, 0 to 1."""
        for stage in self.ramp:
            if progress < stage.share:
                return stage
            progress -= stage.share
        return Stage(1.0, self.batch_size, self.model.context_length)

    def with_vocab_size(self, vocab_size: int) -> Self:
        """A copy for a text with a vocabulary of this size."""
        return replace(self, model=replace(self.model, vocab_size=vocab_size))

    def fixed(self) -> dict[str, Any]:
        """The fields that must not change when a run resumes: all but limits, evaluation and accumulation.

        The dict is flat, with the model's fields among the others, as checkpoints of all versions store it. It has no
        vocab_size, which belongs to the text, and a field that checkpoints did not store from the beginning only if it
        differs from its default: runs that began before there was the field resume.
        """
        values = {name: getattr(self.model if name in _MODEL_FIELDS else self, name) for name in FIXED}
        values["ramp"] = tuple(tuple(stage) for stage in self.ramp)
        if self.model.architecture == "gpt2" and self.model.intermediate_size == 4 * self.model.n_embd:
            values["intermediate_size"] = 0  # which means this size
        defaults = _defaults(self.model)
        return {name: value for name, value in values.items() if name in _ALWAYS_STORED or value != defaults[name]}

    @classmethod
    def from_fixed(cls, fixed: dict[str, Any], vocab_size: int, minutes: float) -> Self:
        """The configuration that `fixed` described, for this vocabulary and time; unknown names are ignored."""
        own_names, model_names = ({f.name for f in fields(kind)} for kind in (cls, ModelConfig))
        shape: dict[str, Any] = {"norm_eps": NORM_EPS[fixed["architecture"]], "vocab_size": vocab_size}
        shape |= {name: value for name, value in fixed.items() if name in model_names}
        others = {name: value for name, value in fixed.items() if name in own_names}
        return cls(model=ModelConfig(**shape), **others, minutes=minutes)


_CHANGEABLE = {"steps", "minutes", "clock", "target_loss", "horizon_minutes", "eval_every", "accumulate"}
_MODEL_FIELDS = [f.name for f in fields(ModelConfig) if f.name != "vocab_size"]
FIXED = [f.name for f in fields(TrainConfig) if f.name not in {"model", *_CHANGEABLE}] + _MODEL_FIELDS
"""Names of the fields that must not change when a run resumes: those that `TrainConfig.fixed` may have."""
_ALWAYS_STORED = {
    "preset", "dropout", "initialization", "batch_size", "ramp", "seed", "sampling", "optimizer", "schedule",
    "learning_rate", "min_learning_rate", "adam_learning_rate", "gain_learning_rate", "warmup_steps", "cooldown",
    "beta1", "beta2", "momentum", "newton_schulz_steps", "weight_decay", "grad_clip",
    "architecture", "n_layer", "n_head", "n_embd", "context_length", "activation", "intermediate_size",
    "tie_embeddings",
}  # fmt: skip
"""Complete: a new field is not added here."""


def _defaults(model: ModelConfig) -> dict[str, Any]:
    """The values that a preset or recipe has for the fields not in _ALWAYS_STORED."""
    return {f.name: f.default for f in fields(TrainConfig)} | {
        "n_kv_head": model.n_head,
        "head_dim": model.n_embd // model.n_head,
        "norm_eps": NORM_EPS[model.architecture],
        "rope_theta": 10_000.0,
        "bias": False,
    }


# nanoGPT's config/train_shakespeare_char.py with the lesson's ten flags.
LESSON = TrainConfig(
    preset="lesson",
    model=ModelConfig(
        architecture="gpt2",
        vocab_size=TINY_SHAKESPEARE_CHARACTERS,
        context_length=64,
        n_layer=4,
        n_head=4,
        n_embd=128,
    ),
    batch_size=12,
    steps=2000,
    eval_every=250,
    learning_rate=1e-3,
    min_learning_rate=1e-4,
    warmup_steps=100,
    grad_clip=1.0,
)


PRESETS: dict[str, TrainConfig | None] = {"default": None, "lesson": LESSON}
"""Presets by name; None for one that `gptbox.train.recipe` chooses for the machine, the time and the text."""


def preset(name: str, source: str = "PRESET") -> TrainConfig | None:
    """The configuration of a preset; None for one that `gptbox.train.recipe` chooses.

    Raises SettingError for an unknown name; `source` is the setting or option it came from.
    """
    if name not in PRESETS:
        raise SettingError(f"{source} {name!r} is not one of {', '.join(PRESETS)}.")
    return PRESETS[name]


MODEL_OPTIONS = ("n_layer", "n_head", "n_embd", "context_length")
"""Fields of ModelConfig that command-line options set."""


def with_changes(
    config: TrainConfig,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    target_loss: float | None = None,
    **others: Any,
) -> TrainConfig:
    """A copy of `config` with other values. Names in MODEL_OPTIONS are fields of its model; None keeps a value.

    Minutes, steps and target loss replace all three limits together. A new batch size or context drops the ramp; a new
    width adapts the MLP and the heads. Raises SettingError for an invalid value.
    """
    changes = {name: value for name, value in others.items() if value is not None}
    if minutes is not None or steps is not None or target_loss is not None:
        changes |= {"minutes": minutes, "steps": steps, "target_loss": target_loss}
    if minutes is not None:
        changes.setdefault("eval_every", None)  # spaced in time: a slow machine has its first snapshot soon
    if {"batch_size", "context_length"} & changes.keys():
        changes.setdefault("ramp", ())
    shape = {name: changes.pop(name) for name in MODEL_OPTIONS if name in changes}
    return replace(config, model=_resized(config.model, shape), **changes)


def _resized(model: ModelConfig, shape: dict[str, Any]) -> ModelConfig:
    """A copy with other values of MODEL_OPTIONS; sizes that were derived from the old values are derived from the new.

    Raises SettingError if they do not fit together.
    """
    width = shape.get("n_embd", model.n_embd)
    derived = {}
    if model.intermediate_size == 4 * model.n_embd:
        derived["intermediate_size"] = 0
    elif width != model.n_embd:
        derived["intermediate_size"] = -(-width * 11 // 4 // 16) * 16
        derived["n_head"] = max(1, width // 32)
    heads = shape.get("n_head", derived.get("n_head", model.n_head))
    if model.n_kv_head == model.n_head:
        derived["n_kv_head"] = 0
    if model.head_dim * model.n_head == model.n_embd:
        derived["head_dim"] = 0
        if heads and width % heads:
            raise SettingError(f"n_embd is {width}, which {heads} heads do not divide; give --n-head too.")
    try:
        return replace(model, **derived | shape)
    except ModelFolderError as error:
        raise SettingError(str(error)) from None
