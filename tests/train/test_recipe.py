"""What a step is made of: configuration, schedule, batches; and which recipe is chosen for what."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gptbox.errors import SettingError
from gptbox.model_config import ModelConfig
from gptbox.train import dataloader, recipe
from gptbox.train.config import LESSON, Stage, TrainConfig, preset, with_changes
from gptbox.train.dataloader import DataLoader
from gptbox.train.fused import Dropout, rotary_heads, sites
from gptbox.train.gpt import GPT
from gptbox.train.schedule import learning_rate, linear, warmup_steps
from gptbox.train.shards import Shards
from gptbox.weights import shapes

DEFAULT = recipe.RECIPES[2].config


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
def test_a_wrong_value_is_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        with_changes(DEFAULT, **options)  # type: ignore[arg-type]


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(SettingError, match="'huge' is not one of default, lesson"):
        preset("huge")


def test_what_is_asked_for_replaces_the_preset_s_end() -> None:
    steps = with_changes(DEFAULT, steps=10)
    assert (DEFAULT.minutes, steps.minutes, steps.steps) == (5.0, None, 10)
    timed = with_changes(LESSON, minutes=1)
    assert (timed.minutes, timed.steps, timed.eval_every) == (1, None, None)
    both = with_changes(DEFAULT, minutes=1, steps=10)
    assert (both.minutes, both.steps) == (1, 10)


def test_a_change_of_size_brings_what_goes_with_it() -> None:
    wide = with_changes(DEFAULT, n_embd=160)
    assert (wide.n_head, wide.intermediate_size) == (5, 448)
    assert with_changes(DEFAULT, batch_size=3).ramp == ()
    assert with_changes(DEFAULT, n_layer=2).ramp == DEFAULT.ramp
    wide.model(65)


def test_a_ramp_goes_from_stage_to_stage() -> None:
    config = replace(DEFAULT, ramp=(Stage(0.2, 9, 16), Stage(0.3, 7, 64)))
    sizes = [config.stage(done).batch_size for done in (0.0, 0.19, 0.21, 0.49, 0.51, 1.0)]
    assert sizes == [9, 9, 7, 7, 4, 4]
    assert config.stage(0.9).context_length == 256


def test_the_linear_schedule_goes_to_zero() -> None:
    assert [linear(DEFAULT, done) for done in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    late = replace(DEFAULT, cooldown=0.4)
    assert [linear(late, done) for done in (0.0, 0.6, 0.8, 1.0)] == pytest.approx([1.0, 1.0, 0.5, 0.0])


# which recipe


def choose(seconds: float, tokens: int = 1_000_000) -> TrainConfig:
    return recipe.choose(seconds, tokens, tokens // 10).config


def test_more_time_is_a_larger_model_and_a_lower_loss() -> None:
    budgets = [6.5, 8.0, 30.0, 75.0, 290.0, 1740.0, 3500.0]
    sizes = [choose(seconds).model(65).parameters for seconds in budgets]
    assert sizes == sorted(sizes)
    assert sizes[0] < 150_000
    assert sizes[-1] > 2_000_000
    losses = [recipe.choose(seconds, 1_000_000, 100_000).expected_loss or 9.0 for seconds in budgets]
    assert losses == sorted(losses, reverse=True)


def test_a_loss_is_expected_only_of_plans_that_were_measured() -> None:
    def expected(seconds: float, tokens: int = 1_000_000) -> float | None:
        return recipe.choose(seconds, tokens, tokens // 10).expected_loss

    assert expected(299) == pytest.approx(1.405)
    assert expected(3.0) is expected(7200.0) is None, "shorter and longer than anything measured"
    assert expected(290, 200_000) is None, "with dropout, for a small text"
    assert expected(290, 1_000) is None, "with a context that fits it"


def test_a_small_text_is_read_so_often_that_dropout_helps() -> None:
    assert choose(290).dropout == 0.0
    assert choose(290, 400_000).dropout == choose(600).dropout == 0.05
    assert choose(290, 200_000).dropout > 0.1
    assert choose(290, 10_000).dropout > choose(290, 400_000).dropout


@pytest.mark.parametrize("tokens", [200, 700, 3_000])
def test_the_context_fits_a_tiny_text(tokens: int) -> None:
    config = recipe.choose(290, tokens, tokens // 10).config
    assert 8 <= config.context_length < tokens // 10
    assert config.ramp == ()


def test_a_lower_loss_is_planned_to_take_longer() -> None:
    times = [recipe.seconds_for(loss) for loss in (2.5, 1.7, 1.5, 1.4, 1.0)]
    assert times == sorted(times)
    assert 1 < times[0] < 20
    assert times[-1] >= 3600


def test_speed_is_that_of_the_machine() -> None:
    shards = Shards(1)
    speeds = [recipe.measure_speed(shards) for _ in range(3)]
    assert all(0.01 < speed < 20 for speed in speeds)


# batches


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


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 40])
def test_an_epoch_shows_every_window_once(batch_size: int, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if long:  # the way of texts of gigabytes
        monkeypatch.setattr(dataloader, "_LARGEST_PERMUTATION", 10)
        dataloader._epoch.cache_clear()
    ids = np.arange(1000, dtype=np.uint16)
    loader = DataLoader(ids, batch_size, 16, seed=3, sampling="epochs")
    windows = (1000 - 1) // 16 - 1
    firsts = np.concatenate([loader.batch(step)[0][:, 0].numpy() for step in range(2 * windows // batch_size + 1)])
    first, second = firsts[:windows], firsts[windows : 2 * windows]
    for epoch in (first, second):
        assert len(set(epoch)) == windows
        assert len(set(epoch % 16)) == 1, "side by side"
    assert list(first) != sorted(first)
    assert set(first) != set(second) or list(first) != list(second)
    assert firsts.max() + 16 < 1000
    dataloader._epoch.cache_clear()


def test_an_epoch_depends_on_seed_and_step_alone() -> None:
    ids = np.arange(5000, dtype=np.uint16)
    loader = DataLoader(ids, 8, 16, seed=1, sampling="epochs")
    late, early = loader.batch(90)[0], loader.batch(3)[0]
    again = DataLoader(ids, 8, 16, seed=1, sampling="epochs")
    assert torch.equal(again.batch(3)[0], early)
    assert torch.equal(again.batch(90)[0], late)
    assert not torch.equal(DataLoader(ids, 8, 16, seed=2, sampling="epochs").batch(3)[0], early)


def test_the_shortest_text_that_fits_an_epoch() -> None:
    inputs, targets = DataLoader(np.arange(17, dtype=np.uint16), 2, 16, seed=0, sampling="epochs").batch(0)
    assert inputs[0].tolist() == list(range(16))
    assert targets[0, -1] == 16


# the model


def test_torch_s_names_and_shapes_are_those_of_weights(config: ModelConfig) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()} == shapes(config)


def test_heads_begin_by_looking_back() -> None:
    """Initialized so, head h of the first layer attends above all to the token h + 1 places before."""
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="qwen3", vocab_size=65, context_length=64, n_layer=2, n_head=3, n_embd=96, activation="silu",
        tie_embeddings=False,
    )  # fmt: skip
    model = GPT(config)
    model.initialize("previous")
    block = model.blocks[0]
    ids = torch.randint(65, (4, 64))
    _, normed = block.attention_norm(model.embedding(ids), None)  # type: ignore[union-attr, operator]
    attention = block.attention
    gains = attention.q_norm.weight, attention.k_norm.weight  # type: ignore[union-attr]
    q, k, _ = rotary_heads(attention.qkv(normed), *gains, model.cos, model.sin, 3, 1e-6)  # type: ignore
    scores = torch.einsum("bthd,bshd->bhts", q, k).tril()
    for head in range(3):
        back = scores[:, head, 40].masked_fill(torch.arange(64) > 40, -1e9).mean(0).argmax()
        assert int(back) == 40 - (head + 1)
    assert torch.equal(model(ids), torch.zeros(4, 64, 65)), "it says nothing yet"


def test_dropout_does_not_depend_on_the_pieces(config: ModelConfig) -> None:
    """The same elements are dropped, whatever part of a batch is computed at once; others at the next step."""
    torch.manual_seed(0)
    model = GPT(config)
    ids = torch.randint(config.vocab_size, (4, 8))
    drop = Dropout.draw(0.3, 1, 7, 4, sites(config.n_layer))
    whole = model(ids, dropout=drop)
    parts = [model(ids[i : i + 2], dropout=drop.of_rows(i, i + 2)) for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.equal(model(ids, dropout=Dropout.draw(0.3, 1, 8, 4, sites(config.n_layer))), whole)
    assert torch.equal(model(ids), model(ids))


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    x = torch.ones(50, 40, 30)
    drop = Dropout.draw(0.25, 1, 1, 50, 1)
    dropped = drop(x, 0)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(dropped[0], dropped[1])
    plain = drop(x.double(), 0)  # not in the kernels' type: torch's own operations
    torch.testing.assert_close(plain.float(), dropped)
