"""Models ready for inference, and a worker pool."""

from collections.abc import Callable, Iterator

import pytest

from gptbox.engine.gpt import GPT
from gptbox.engine.worker_pool import WorkerPool
from gptbox.models.config import ModelConfig
from gptbox.models.weights import Weights


@pytest.fixture
def model(config: ModelConfig, make_weights: Callable[..., Weights]) -> GPT:
    return GPT(config, make_weights(config))


@pytest.fixture
def large(make_weights: Callable[..., Weights]) -> GPT:
    """A small model whose full context takes 8 MiB, in 32 pages."""
    config = ModelConfig(
        architecture="gpt2", vocab_size=65, context_length=1024, n_layer=4, n_head=4, n_embd=256, n_kv_head=4
    )
    return GPT(config, make_weights(config))


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(2)
    yield pool
    pool.close()
