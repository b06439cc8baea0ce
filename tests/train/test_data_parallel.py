"""Gradients over several threads, in micro-batches, and as a GPU computes them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.train.small_models import batch, make_model

from gptbox.models.config import ModelConfig
from gptbox.train import ops
from gptbox.train.data_parallel import DataParallel, mean_loss
from gptbox.train.gpt import GPT
from gptbox.train.ops import Dropout, cross_entropy, dropout_sites


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
@pytest.mark.parametrize(("threads", "accumulate"), [(2, 1), (1, 3), (3, 5), (9, 1)])
def test_threads_and_micro_batches_change_nothing(architecture: str, threads: int, accumulate: int) -> None:
    model = make_model()
    if architecture == "gpt2":
        model = GPT(ModelConfig(architecture="gpt2", vocab_size=65, context_length=24, n_layer=2, n_head=2, n_embd=32))
    inputs, targets = batch(model, 7)
    drop = Dropout.draw(0.1, 1, 1, 7, dropout_sites(2))
    loss, gradient = DataParallel(1).gradients(model, inputs, targets, drop)
    data_parallel = DataParallel(threads)
    in_parts, gradient_in_parts = data_parallel.gradients(model, inputs, targets, drop, accumulate)
    assert in_parts == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(gradient_in_parts, gradient, atol=1e-5, rtol=1e-4)
    again = data_parallel.gradients(model, inputs, targets, drop, accumulate)
    assert again[0] == in_parts, "bit-identical with the same number of threads"
    assert torch.equal(again[1], gradient_in_parts)
    data_parallel.close()


def test_all_steps_on_a_gpu_use_one_compiled_graph() -> None:
    """Traced on the CPU in float64, which the kernels leave to torch: no graph breaks, no retracing."""
    model = make_model().double()
    inputs, targets = batch(model)
    traced: list[object] = []

    def backend(graph: torch.fx.GraphModule, examples: object) -> object:
        traced.append(graph)
        return graph.forward

    compiled_loss = torch.compile(mean_loss, backend=backend, fullgraph=True)
    for step in range(3):
        drop = Dropout.draw(0.2, 1, step, 3, dropout_sites(2))
        on_gpu = replace(drop, keys=torch.from_numpy(drop.keys.astype(np.int64)))
        expected = mean_loss(model, inputs, targets, drop)
        assert compiled_loss(model, inputs, targets, on_gpu).item() == pytest.approx(expected.item(), abs=1e-5)
    assert len(traced) == 1


def test_bfloat16_is_close_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's computation on the CPU: torch's operations under autocast."""
    model = make_model()
    inputs, targets = batch(model)
    exact, gradient = DataParallel(1).gradients(model, inputs, targets)
    monkeypatch.setattr(ops, "_uses_kernels", lambda x: False)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(model(inputs), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, abs=0.03)
    rough = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert float(torch.nn.functional.cosine_similarity(rough, gradient, dim=0)) > 0.99


def test_a_worker_s_error_is_raised() -> None:
    data_parallel = DataParallel(2)
    with pytest.raises(ZeroDivisionError):
        data_parallel.map(lambda x: 1 / x, [1, 0])
    assert data_parallel.map(lambda x: x + 1, [1, 2, 3]) == [2, 3, 4]
    data_parallel.close()
