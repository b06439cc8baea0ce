"""Presets, changes to them, and invalid values."""

import math
from dataclasses import replace

import pytest

from gptbox.errors import SettingError
from gptbox.models.config import ModelConfig
from gptbox.train import recipe
from gptbox.train.config import LESSON, Stage, preset, with_changes

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
