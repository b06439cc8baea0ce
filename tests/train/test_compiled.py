"""Compiled training computes what torch's autograd does: losses, gradients, optimizer steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gptbox.model_config import ModelConfig
from gptbox.train import compiled, fused, kernels
from gptbox.train.config import TrainConfig
from gptbox.train.fused import NO_DROPOUT, Dropout, cross_entropy, sites
from gptbox.train.gpt import GPT
from gptbox.train.optim import OPTIMIZERS, orthogonalize
from gptbox.train.recipe import RECIPES
from gptbox.train.shards import Shards, assign_gradient, mean_loss

SHAPES = {
    "plain": {},
    "one head, odd sizes": {"n_head": 1, "n_embd": 20, "intermediate_size": 33, "vocab_size": 7},
    "grouped keys": {"n_head": 4, "n_kv_head": 2},
    "wide heads": {"n_head": 2, "head_dim": 48},
    "tied": {"tie_embeddings": True},
    "long": {"context_length": 150},
}


def make_model(**changes: object) -> GPT:
    torch.manual_seed(1)
    values = {"vocab_size": 65, "context_length": 24, "n_layer": 2, "n_head": 4, "n_embd": 64, "intermediate_size": 96}
    values |= {"tie_embeddings": False, **changes}
    model = GPT(ModelConfig(architecture="qwen3", activation="silu", norm_eps=1e-6, **values))  # type: ignore[arg-type]
    with torch.no_grad():
        for p in model.parameters():  # gains other than one, and activations far from zero
            p.add_(torch.randn_like(p) * 0.1)
    return model


def batch(model: GPT, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    shape = rows, model.config.context_length
    return torch.randint(model.config.vocab_size, shape), torch.randint(model.config.vocab_size, shape)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_autograd_s(shape: str, dropout: float) -> None:
    """Against the same model in float64 by torch's own operations."""
    model = make_model(**SHAPES[shape])
    assert compiled.supports(model)
    inputs, targets = batch(model)
    drop = Dropout.draw(dropout, 3, 5, 5, sites(2)).of_rows(2, 5)
    space = compiled.Workspace(model, *inputs.shape)
    for _ in range(2):  # the second time over what the first has left
        loss = compiled.gradients(model, space, inputs, targets, drop)
    exact = GPT(model.config).double()
    exact.load_state_dict({name: p.double() for name, p in model.state_dict().items()})
    expected = torch.nn.functional.cross_entropy(exact(inputs, dropout=drop).flatten(0, 1), targets.flatten())
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    for (name, _), gradient in zip(
        exact.named_parameters(), torch.autograd.grad(expected, list(exact.parameters())), strict=True
    ):
        scale = float(gradient.abs().max()) + 1e-12
        np.testing.assert_allclose(space.gradients[name] / scale, gradient.numpy() / scale, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_workspace_takes_what_was_said(shape: str, backward: bool) -> None:
    model = make_model(**SHAPES[shape])
    time = model.config.context_length
    space = compiled.Workspace(model, 3, time, backward)
    arrays = [space.x, space.branch, space.scores, *space.head, *(array for block in space.blocks for array in block)]
    if backward:
        arrays += [space.grad_a, space.grad_x, space.gradient, *space.back]
    assert compiled.workspace_bytes(model.config, 3, time, backward) == sum(array.nbytes for array in arrays)
    owner = arrays[0]
    while isinstance(owner, np.ndarray):
        owner = owner.base
    taken = memoryview(owner.obj if isinstance(owner, memoryview) else owner).nbytes
    assert 0 <= taken - sum(array.nbytes for array in arrays) < 2**21 + 64 * len(arrays)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fused_operations_are_autograd_s_too(shape: str) -> None:
    """What a model is trained with where blocks are not compiled whole, and evaluated with everywhere."""
    model = make_model(**SHAPES[shape])
    inputs, targets = batch(model)
    drop = Dropout.draw(0.1, 3, 5, 3, sites(2))
    loss = cross_entropy(model(inputs, dropout=drop), targets)
    space = compiled.Workspace(model, *inputs.shape)
    assert compiled.gradients(model, space, inputs, targets, drop) == pytest.approx(loss.item(), abs=1e-5)
    for (name, _), gradient in zip(
        model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        np.testing.assert_allclose(space.gradients[name], gradient.numpy(), atol=2e-5, err_msg=name)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
@pytest.mark.parametrize(("threads", "accumulate"), [(2, 1), (1, 3), (3, 5), (9, 1)])
def test_shards_and_pieces_change_nothing(architecture: str, threads: int, accumulate: int) -> None:
    model = make_model()
    if architecture == "gpt2":
        model = GPT(ModelConfig(architecture="gpt2", vocab_size=65, context_length=24, n_layer=2, n_head=2, n_embd=32))
    inputs, targets = batch(model, 7)
    drop = Dropout.draw(0.1, 1, 1, 7, sites(2))
    loss, gradient = Shards(1).gradients(model, inputs, targets, drop)
    shards = Shards(threads)
    in_parts, gradient_in_parts = shards.gradients(model, inputs, targets, drop, accumulate)
    assert in_parts == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(gradient_in_parts, gradient, atol=1e-5, rtol=1e-4)
    again = shards.gradients(model, inputs, targets, drop, accumulate)
    assert again[0] == in_parts, "the same threads give the same, to the last bit"
    assert torch.equal(again[1], gradient_in_parts)
    shards.close()


def test_what_a_gpu_runs_is_one_graph_for_all_steps() -> None:
    """Traced on the CPU in a type that the kernels leave to torch: nothing breaks the graph or is traced anew."""
    model = make_model().double()
    inputs, targets = batch(model)
    traced: list[object] = []

    def backend(graph: torch.fx.GraphModule, examples: object) -> object:
        traced.append(graph)
        return graph.forward

    compiled_loss = torch.compile(mean_loss, backend=backend, fullgraph=True)
    for step in range(3):
        drop = Dropout.draw(0.2, 1, step, 3, sites(2))
        on_gpu = replace(drop, keys=torch.from_numpy(drop.keys.astype(np.int64)))
        expected = mean_loss(model, inputs, targets, drop)
        assert compiled_loss(model, inputs, targets, on_gpu).item() == pytest.approx(expected.item(), abs=1e-5)
    assert len(traced) == 1


def test_bfloat16_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU computes by itself, here on the CPU: torch's own operations under autocast."""
    model = make_model()
    inputs, targets = batch(model)
    exact, gradient = Shards(1).gradients(model, inputs, targets)
    monkeypatch.setattr(fused, "_is_for_kernels", lambda x: False)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(model(inputs), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, abs=0.03)
    rough = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert float(torch.nn.functional.cosine_similarity(rough, gradient, dim=0)) > 0.99


def test_an_error_in_a_shard_is_raised() -> None:
    shards = Shards(2)
    with pytest.raises(ZeroDivisionError):
        shards.map(lambda x: 1 / x, [1, 0])
    assert shards.map(lambda x: x + 1, [1, 2, 3]) == [2, 3, 4]
    shards.close()


# Muon


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16), (1, 8)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), 5))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


@pytest.mark.parametrize("dim", [24, 64])
def test_compiled_muon_is_torch_s(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(RECIPES[2].config, weight_decay=0.1)
    weights = []
    for in_kernels in (True, False):
        monkeypatch.setattr(kernels, "HAS_SGEMM", in_kernels)
        model = make_model(n_embd=dim)
        optimizer = OPTIMIZERS["muon"](model, config, Shards(2))
        for seed in range(3):
            torch.manual_seed(seed)
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            optimizer.step()
        weights.append([p.detach().clone() for p in model.parameters()])
    for ours, expected in zip(*weights, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


def test_muon_moves_every_part_of_a_fused_matrix_by_itself() -> None:
    """Queries, keys and values have updates of one size, however different their gradients are."""
    model = make_model()
    optimizer = OPTIMIZERS["muon"](model, replace(RECIPES[2].config, weight_decay=0.0), Shards(1))
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


def learned(config: TrainConfig, steps: int = 40) -> float:
    """The loss after some steps on one batch."""
    model = make_model()
    optimizer, shards = OPTIMIZERS[config.optimizer](model, config, Shards(1)), Shards(1)
    inputs, targets = batch(model)
    for _ in range(steps):
        loss, gradient = shards.gradients(model, inputs, targets, NO_DROPOUT)
        assign_gradient(model, gradient)
        optimizer.step()
    return loss


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_a_batch_by_heart(name: str) -> None:
    config = replace(RECIPES[2].config, optimizer=name, learning_rate=0.02 if name == "muon" else 3e-3)
    assert learned(config) < 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gains_do_not_decay(name: str) -> None:
    model = make_model()
    config = replace(RECIPES[2].config, optimizer=name, weight_decay=0.5)
    optimizer = OPTIMIZERS[name](model, config, Shards(1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    for parameter, p in model.named_parameters():
        if p.dim() < 2:
            assert torch.equal(p, before[parameter])
        elif parameter.startswith("blocks."):
            assert float(p.detach().norm()) < float(before[parameter].norm())
