"""Presets, changes to them, and invalid values."""

import math
from dataclasses import MISSING, fields, replace

import pytest

from gptbox.errors import SettingError
from gptbox.models.config import ModelConfig
from gptbox.train import recipe
from gptbox.train.config import FIXED, LESSON, Stage, TrainConfig, preset, with_changes

DEFAULT = recipe.RECIPES[2].config


def test_the_lesson_is_nanogpt_s_command_line() -> None:
    assert LESSON.model == ModelConfig(
        architecture="gpt2", vocab_size=65, context_length=64, n_layer=4, n_head=4, n_embd=128
    )
    work = (LESSON.batch_size, LESSON.steps, LESSON.eval_every, LESSON.dropout, LESSON.grad_clip)
    assert work == (12, 2000, 250, 0.0, 1.0)
    assert (LESSON.beta1, LESSON.beta2, LESSON.weight_decay) == (0.9, 0.99, 0.1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"minutes": -1.0}, "minutes is -1.0"),
        ({"minutes": math.nan}, "minutes is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"n_embd": 100, "n_head": 3}, "n_embd is 100, which 3 heads do not divide"),
        ({"ramp": (Stage(0.5, 4, 512),)}, "longer than the context of 256"),
    ],
)
def test_an_invalid_value_is_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        with_changes(DEFAULT, **options)  # type: ignore[arg-type]


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(SettingError, match="'huge' is not one of default, lesson"):
        preset("huge")


def test_given_limits_replace_the_preset_s() -> None:
    steps = with_changes(DEFAULT, steps=10)
    assert (DEFAULT.minutes, steps.minutes, steps.steps) == (5.0, None, 10)
    timed = with_changes(LESSON, minutes=1)
    assert (timed.minutes, timed.steps, timed.eval_every) == (1, None, None)
    both = with_changes(DEFAULT, minutes=1, steps=10)
    assert (both.minutes, both.steps) == (1, 10)


def test_a_new_size_adapts_the_fields_that_depend_on_it() -> None:
    wide = with_changes(DEFAULT, n_embd=160)
    assert (wide.model.n_head, wide.model.head_dim, wide.model.intermediate_size) == (5, 32, 448)
    assert with_changes(LESSON, n_embd=256).model.intermediate_size == 1024
    assert with_changes(LESSON, n_head=8).model.head_dim == 16
    assert with_changes(DEFAULT, batch_size=3).ramp == ()
    assert with_changes(DEFAULT, n_layer=2).ramp == DEFAULT.ramp


def test_a_ramp_passes_through_its_stages() -> None:
    config = replace(DEFAULT, ramp=(Stage(0.2, 9, 16), Stage(0.3, 7, 64)))
    sizes = [config.stage(done).batch_size for done in (0.0, 0.19, 0.21, 0.49, 0.51, 1.0)]
    assert sizes == [9, 9, 7, 7, 4, 4]
    assert config.stage(0.9).context_length == 256


COMMON_FIXED = {
    "dropout": 0.0, "seed": 1337, "warmup_steps": 0, "cooldown": 1.0, "beta1": 0.9, "momentum": 0.95,
    "newton_schulz_steps": 5, "weight_decay": 0.1, "grad_clip": 0.0, "min_learning_rate": 0.0,
}  # fmt: skip
LESSON_FIXED = COMMON_FIXED | {
    "preset": "lesson", "architecture": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 128, "context_length": 64,
    "activation": "gelu", "intermediate_size": 0, "tie_embeddings": True, "initialization": "gpt2", "batch_size": 12,
    "ramp": (), "sampling": "crops", "optimizer": "adamw", "schedule": "cosine", "learning_rate": 1e-3,
    "min_learning_rate": 1e-4, "adam_learning_rate": 0.0, "gain_learning_rate": 0.0, "warmup_steps": 100,
    "beta2": 0.99, "grad_clip": 1.0,
}  # fmt: skip
DEFAULT_FIXED = COMMON_FIXED | {
    "preset": "default", "architecture": "qwen3", "n_layer": 4, "n_head": 3, "n_embd": 96, "context_length": 256,
    "activation": "silu", "intermediate_size": 192, "tie_embeddings": False, "initialization": "previous",
    "batch_size": 4, "ramp": ((0.6, 8, 128),), "sampling": "epochs", "optimizer": "muon", "schedule": "linear",
    "learning_rate": 0.015, "adam_learning_rate": 0.01, "gain_learning_rate": 0.003, "beta2": 0.98, "momentum": 0.9,
    "newton_schulz_steps": 3,
}  # fmt: skip


@pytest.mark.parametrize(("config", "stored"), [(LESSON, LESSON_FIXED), (DEFAULT, DEFAULT_FIXED)])
def test_checkpoints_of_all_versions_store_the_same_identity(config: TrainConfig, stored: dict[str, object]) -> None:
    """Another dict would keep interrupted runs of earlier versions from resuming."""
    assert config.fixed() == stored
    assert config.with_vocab_size(7).fixed() == stored
    again = TrainConfig.from_fixed({**stored, "text_sha256": "0"}, 65, minutes=5.0)
    assert again == replace(config, minutes=5.0, steps=None, eval_every=None)


def test_a_field_that_older_checkpoints_lack_has_a_default() -> None:
    """Runs that began without the field resume if its value is the default."""
    defaults = {f.name: f.default for f in fields(TrainConfig)}
    assert all(defaults[name] is not MISSING for name in FIXED if name in defaults and name not in DEFAULT_FIXED)


@pytest.mark.parametrize(
    "change", [{"n_kv_head": 1}, {"head_dim": 48}, {"norm_eps": 1e-5}, {"rope_theta": 1e6}, {"intermediate_size": 384}]
)
def test_the_identity_includes_model_fields_that_differ_from_every_preset(change: dict[str, float]) -> None:
    config = replace(DEFAULT, model=replace(DEFAULT.model, **change), init="first")  # type: ignore[arg-type]
    assert config.fixed() == DEFAULT_FIXED | change | {"init": "first"}
    assert TrainConfig.from_fixed(config.fixed(), 65, minutes=5.0) == config
    assert {f.name for f in fields(ModelConfig)} < {*DEFAULT_FIXED, "n_kv_head", "head_dim", "norm_eps", "rope_theta",
                                                    "bias", "vocab_size"}  # fmt: skip
