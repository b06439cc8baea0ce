"""The model's fused operations, and dropout."""

import numpy as np
import pytest
import torch
from tests.train.small_models import SHAPES, batch, make_model

from gptbox.models.config import ModelConfig
from gptbox.train import cpu_backend
from gptbox.train.gpt import GPT
from gptbox.train.ops import Dropout, cross_entropy, dropout_sites


@pytest.mark.parametrize("shape", SHAPES)
def test_fused_operations_give_the_backend_s_gradients(shape: str) -> None:
    """They train models that the CPU backend does not support, and models with frozen parameters."""
    model = make_model(**SHAPES[shape])
    inputs, targets = batch(model)
    drop = Dropout.draw(0.1, 3, 5, 3, dropout_sites(2))
    loss = cross_entropy(model(inputs, dropout=drop), targets)
    workspace = cpu_backend.Workspace(model, *inputs.shape)
    assert cpu_backend.gradients(model, workspace, inputs, targets, drop) == pytest.approx(loss.item(), abs=1e-5)
    for (name, _), gradient in zip(
        model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        np.testing.assert_allclose(workspace.gradients[name], gradient.numpy(), atol=2e-5, err_msg=name)


def test_dropout_does_not_depend_on_how_a_batch_is_split(config: ModelConfig) -> None:
    """The same elements are dropped however a batch is split; others in the next step."""
    torch.manual_seed(0)
    model = GPT(config)
    ids = torch.randint(config.vocab_size, (4, 8))
    drop = Dropout.draw(0.3, 1, 7, 4, dropout_sites(config.n_layer))
    whole = model(ids, dropout=drop)
    parts = [model(ids[i : i + 2], dropout=drop.of_rows(i, i + 2)) for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.equal(model(ids, dropout=Dropout.draw(0.3, 1, 8, 4, dropout_sites(config.n_layer))), whole)
    assert torch.equal(model(ids), model(ids))


def test_dropout_drops_its_fraction_and_keeps_the_mean() -> None:
    x = torch.ones(50, 40, 30)
    drop = Dropout.draw(0.25, 1, 1, 50, 1)
    dropped = drop(x, 0)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(dropped[0], dropped[1])
    plain = drop(x.double(), 0)  # float64 is left to torch's operations
    torch.testing.assert_close(plain.float(), dropped)
