"""Muon and AdamW."""

from dataclasses import replace

import pytest
import torch
from tests.train.small_models import batch, make_model

from gptbox.errors import SettingError
from gptbox.train.config import LESSON, TrainConfig, with_changes
from gptbox.train.data_parallel import DataParallel, assign_gradient
from gptbox.train.kernels import blas
from gptbox.train.ops import NO_DROPOUT
from gptbox.train.optim import OPTIMIZERS, check_optimizer_name, orthogonalize, with_default_rates
from gptbox.train.recipe import RECIPES


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16), (1, 8)])
def test_orthogonalize_moves_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), 5))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


@pytest.mark.parametrize("dim", [24, 64])
def test_compiled_muon_equals_torch_s(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(RECIPES[2].config, weight_decay=0.1)
    weights = []
    for in_kernels in (True, False):
        monkeypatch.setattr(blas, "HAS_SGEMM", in_kernels)
        model = make_model(n_embd=dim)
        optimizer = OPTIMIZERS["muon"](model, config, DataParallel(2))
        for seed in range(3):
            torch.manual_seed(seed)
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            optimizer.step()
        weights.append([p.detach().clone() for p in model.parameters()])
    for ours, expected in zip(*weights, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


def test_muon_updates_each_part_of_a_fused_matrix_separately() -> None:
    """Queries, keys and values get updates of the same size, however different their gradients are."""
    model = make_model()
    optimizer = OPTIMIZERS["muon"](model, replace(RECIPES[2].config, weight_decay=0.0), DataParallel(1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    weight: torch.nn.Parameter = model.blocks[0].attention.qkv.weight  # type: ignore[union-attr, assignment]
    assert weight.grad is not None
    weight.grad.copy_(torch.randn_like(weight))
    weight.grad[64:128] *= 1000
    before = weight.detach().clone()
    optimizer.step()
    moved = [part.norm() for part in (weight.detach() - before).split(64)]
    assert float(max(moved) / min(moved)) < 1.2
    assert torch.equal(model.blocks[1].attention.qkv.weight, make_model().blocks[1].attention.qkv.weight)  # type: ignore


def loss_after_training(config: TrainConfig, steps: int = 40) -> float:
    """The loss after `steps` steps on one batch."""
    model = make_model()
    optimizer, data_parallel = OPTIMIZERS[config.optimizer](model, config, DataParallel(1)), DataParallel(1)
    inputs, targets = batch(model)
    for _ in range(steps):
        loss, gradient = data_parallel.gradients(model, inputs, targets, NO_DROPOUT)
        assign_gradient(model, gradient)
        optimizer.step()
    return loss


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_memorises_a_batch(name: str) -> None:
    config = replace(RECIPES[2].config, optimizer=name, learning_rate=0.02 if name == "muon" else 3e-3)
    assert loss_after_training(config) < 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gains_do_not_decay(name: str) -> None:
    model = make_model()
    config = replace(RECIPES[2].config, optimizer=name, weight_decay=0.5)
    optimizer = OPTIMIZERS[name](model, config, DataParallel(1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    for parameter, p in model.named_parameters():
        if p.dim() < 2:
            assert torch.equal(p, before[parameter])
        elif parameter.startswith("blocks."):
            assert float(p.detach().norm()) < float(before[parameter].norm())


def chosen(config: TrainConfig, **changes: object) -> TrainConfig:
    return with_changes(config, **with_default_rates(config, changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [LESSON, RECIPES[2].config])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_another_optimizer_has_its_own_learning_rates(config: TrainConfig, name: str) -> None:
    changed = chosen(config, optimizer=name, learning_rate=None)
    if name == config.optimizer:
        assert changed == config
    else:
        rates = OPTIMIZERS[name].default_rates
        assert changed.fixed() == config.fixed() | rates | {"optimizer": name}
    assert chosen(config, optimizer=name, learning_rate=0.5).learning_rate == 0.5
    assert chosen(config, optimizer=None) == config


def test_an_unknown_optimizer_is_refused() -> None:
    check_optimizer_name(None)
    with pytest.raises(SettingError, match=f"--optimizer 'adam' is not one of {', '.join(OPTIMIZERS)}"):
        check_optimizer_name("adam")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_is_the_number_of_state_tensors_per_parameter(name: str) -> None:
    model = make_model()
    optimizer = OPTIMIZERS[name](model, RECIPES[2].config, DataParallel(1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    sizes = [
        sum(value.numel() // p.numel() for value in state.values() if value.dim())
        for p, state in optimizer.state.items()
    ]
    assert max(sizes) == optimizer.moments


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_trainable_parameters_change(name: str) -> None:
    model = make_model()
    for parameter, p in model.named_parameters():
        p.requires_grad = parameter.startswith(("blocks.1.attention.qkv", "head"))
    before = {parameter: p.detach().clone() for parameter, p in model.named_parameters()}
    data_parallel, (inputs, targets) = DataParallel(1), batch(model)
    optimizer = OPTIMIZERS[name](model, RECIPES[2].config, data_parallel)
    _, gradient = data_parallel.gradients(model, inputs, targets)
    assign_gradient(model, gradient)
    optimizer.step()
    for parameter, p in model.named_parameters():
        assert torch.equal(p, before[parameter]) != p.requires_grad, parameter
