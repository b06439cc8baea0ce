"""The CPU backend gives autograd's losses and gradients."""

import numpy as np
import pytest
import torch
from tests.train.small_models import SHAPES, batch, make_model

from gptbox.train import cpu_backend
from gptbox.train.gpt import GPT
from gptbox.train.ops import Dropout, dropout_sites


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_equal_autograd_s(shape: str, dropout: float) -> None:
    """Compared with the same model in float64, computed by torch's operations."""
    model = make_model(**SHAPES[shape])
    assert cpu_backend.supports(model)
    inputs, targets = batch(model)
    drop = Dropout.draw(dropout, 3, 5, 5, dropout_sites(2)).of_rows(2, 5)
    workspace = cpu_backend.Workspace(model, *inputs.shape)
    for _ in range(2):  # the second pass overwrites the first's buffers
        loss = cpu_backend.gradients(model, workspace, inputs, targets, drop)
    exact = GPT(model.config).double()
    exact.load_state_dict({name: p.double() for name, p in model.state_dict().items()})
    expected = torch.nn.functional.cross_entropy(exact(inputs, dropout=drop).flatten(0, 1), targets.flatten())
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    for (name, _), gradient in zip(
        exact.named_parameters(), torch.autograd.grad(expected, list(exact.parameters())), strict=True
    ):
        scale = float(gradient.abs().max()) + 1e-12
        np.testing.assert_allclose(workspace.gradients[name] / scale, gradient.numpy() / scale, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_workspace_takes_workspace_bytes(shape: str, backward: bool) -> None:
    model = make_model(**SHAPES[shape])
    time = model.config.context_length
    workspace = cpu_backend.Workspace(model, 3, time, backward)
    blocks = workspace.block_activations if backward else workspace.block_activations[:1]  # which all blocks share
    arrays = [
        workspace.x,
        workspace.branch,
        workspace.scores,
        *workspace.head_activations,
        *(array for block in blocks for array in block),
    ]
    if backward:
        arrays += [*workspace.buffers, workspace.grad_x, workspace.gradient]
    assert cpu_backend.workspace_bytes(model.config, 3, time, backward) == sum(array.nbytes for array in arrays)
    owner = arrays[0]
    while isinstance(owner, np.ndarray):
        owner = owner.base
    taken = memoryview(owner.obj if isinstance(owner, memoryview) else owner).nbytes
    assert 0 <= taken - sum(array.nbytes for array in arrays) < 2**21 + 64 * len(arrays)
