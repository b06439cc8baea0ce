"""Configuration, schedule, batches, optimizer: what a step is made of."""

import numpy as np
import pytest
import torch

from gptbox.errors import SettingError
from gptbox.model_config import ModelConfig
from gptbox.train.config import PRESETS, make_config
from gptbox.train.dataloader import DataLoader
from gptbox.train.gpt import GPT
from gptbox.train.optim import OPTIMIZERS
from gptbox.train.schedule import learning_rate, warmup_steps
from gptbox.weights import shapes

LESSON = PRESETS["lesson"]


def test_the_lesson_is_nanogpt_s_command_line() -> None:
    assert LESSON.model(65) == ModelConfig(
        architecture="gpt2", vocab_size=65, context_length=64, n_layer=4, n_head=4, n_embd=128
    )
    work = (LESSON.batch_size, LESSON.steps, LESSON.eval_every, LESSON.dropout, LESSON.grad_clip)
    assert work == (12, 2000, 250, 0.0, 1.0)
    assert (LESSON.beta1, LESSON.beta2, LESSON.weight_decay) == (0.9, 0.99, 0.1)


def test_the_lesson_s_learning_rate_is_nanogpt_s() -> None:
    """The formula of nanoGPT's get_lr with warmup_iters=100, lr_decay_iters=2000."""
    warmup = warmup_steps(LESSON, 2000)
    rates = [learning_rate(LESSON, step, warmup, (step - warmup) / (2000 - warmup)) for step in range(2000)]
    assert rates[0] == pytest.approx(1e-3 / 101)
    assert rates[99] == pytest.approx(1e-3 * 100 / 101)
    assert rates[100] == pytest.approx(1e-3)
    assert rates[1050] == pytest.approx(0.5 * (1e-3 + 1e-4))
    assert rates[1999] == pytest.approx(1e-4, rel=1e-4)
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_a_short_run_warms_up_for_a_tenth() -> None:
    assert warmup_steps(LESSON, 50) == 5
    assert warmup_steps(LESSON, 100_000) == 100


def test_past_the_end_the_rate_stays_at_its_minimum() -> None:
    assert learning_rate(LESSON, 5000, 100, 3.0) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "huge"}, "'huge' is not one of default, lesson"),
        ({"preset": "default", "minutes": -1.0}, "minutes is -1.0"),
        ({"preset": "default", "minutes": float("nan")}, "minutes is nan"),
        ({"preset": "default", "steps": 0}, "steps is 0"),
        ({"preset": "default", "seed": -1}, "seed is -1"),
        ({"preset": "default", "dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_a_wrong_value_is_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        make_config(**options)  # type: ignore[arg-type]


def test_what_is_asked_for_replaces_the_preset_s_end() -> None:
    assert (make_config("default").minutes, make_config("default").steps) == (5.0, None)
    assert (make_config("default", steps=10).minutes, make_config("default", steps=10).steps) == (None, 10)
    assert (make_config("lesson", minutes=1).minutes, make_config("lesson", minutes=1).steps) == (1, None)
    both = make_config("default", minutes=1, steps=10)
    assert (both.minutes, both.steps) == (1, 10)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    loader = DataLoader(ids, 8, 16, seed=1)
    inputs, targets = loader.batch(5)
    assert inputs.shape == targets.shape == (8, 16)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(DataLoader(ids, 8, 16, seed=1).batch(5)[0], inputs)
    assert not torch.equal(loader.batch(6)[0], inputs)
    assert not torch.equal(DataLoader(ids, 8, 16, seed=2).batch(5)[0], inputs)


def test_every_part_of_the_text_is_drawn() -> None:
    loader = DataLoader(np.arange(20, dtype=np.uint16), 64, 16, seed=0)
    inputs, targets = loader.batch(0)
    assert set(inputs[:, 0].tolist()) == {0, 1, 2, 3}
    assert int(targets.max()) == 19


def test_the_shortest_text_that_fits() -> None:
    inputs, targets = DataLoader(np.arange(17, dtype=np.uint16), 2, 16, seed=0).batch(0)
    assert inputs[0].tolist() == list(range(16))
    assert targets[0, -1] == 16


def test_torch_s_names_and_shapes_are_those_of_weights(config: ModelConfig) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()} == shapes(config)


def test_only_matrices_decay() -> None:
    model = GPT(LESSON.model(65))
    decayed, free = OPTIMIZERS[LESSON.optimizer](model, LESSON).param_groups
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert all(p.dim() == 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_dropout_acts_in_training_only(config: ModelConfig) -> None:
    model = GPT(config, dropout=0.5)
    ids = torch.ones(1, 8, dtype=torch.long)
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))
