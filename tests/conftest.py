"""Shared fixtures: the real text, and small real models."""

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from gptbox.engine import native
from gptbox.models import folder as model_folder
from gptbox.models import weights
from gptbox.models.config import ModelConfig
from gptbox.models.folder import SnapshotInfo
from gptbox.tokenizers import Tokenizer
from gptbox.tokenizers.char import CharTokenizer

# No deadline, because kernels are compiled at their first call.
hypothesis.settings.register_profile("gptbox", deadline=None)
hypothesis.settings.load_profile("gptbox")

ROOT = Path(__file__).parent.parent

TINY = {
    "gpt2": ModelConfig(architecture="gpt2", vocab_size=65, context_length=32, n_layer=2, n_head=2, n_embd=32),
    "gpt2-bias": ModelConfig(
        architecture="gpt2", vocab_size=65, context_length=32, n_layer=2, n_head=4, n_embd=32, bias=True,
        activation="gelu_new", tie_embeddings=False,
    ),
    "qwen3": ModelConfig(
        architecture="qwen3", vocab_size=65, context_length=32, n_layer=2, n_head=2, n_embd=32,
        intermediate_size=48, activation="silu", norm_eps=1e-6, tie_embeddings=False,
    ),
    "qwen3-grouped": ModelConfig(
        architecture="qwen3", vocab_size=65, context_length=32, n_layer=3, n_head=4, n_kv_head=2, head_dim=16,
        n_embd=32, activation="silu", norm_eps=1e-6, tie_embeddings=True, rope_theta=1_000_000.0,
    ),
}  # fmt: skip
"""The smallest model of each kind: both architectures, each with its variants."""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the person who runs the tests."""
    for name in (
        "GPTBOX_MODELS", "GPTBOX_DATA", "DATASET", "DATASET_URL", "TOKENIZER", "INIT", "TRAIN_MINUTES", "PRESET",
        "THREADS", "API_KEY", "MAX_QUEUE", "MAX_TOKENS", "SNAPSHOTS_KEPT", "QUANTIZE", "RUN", "TRAIN_CLOCK",
        "GPTBOX_SUPERVISOR", "LOG_FORMAT", "DOWNLOADS",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _compiled_engine() -> None:
    """Compile the engine once, before the first test."""
    native.load()


@pytest.fixture(scope="session")
def tiny_shakespeare() -> Path:
    """The path of the real Tiny Shakespeare, which is not part of this repository."""
    path = Path(
        os.environ.get("GPTBOX_TINY_SHAKESPEARE", ROOT.parent / "shared" / "data" / "tinyshakespeare" / "input.txt")
    )
    if not path.is_file():
        pytest.skip(f"Tiny Shakespeare is not at {path}; set GPTBOX_TINY_SHAKESPEARE to its path")
    return path


@pytest.fixture(params=sorted(TINY))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """Each kind of model in turn."""
    return TINY[request.param]


def random_weights(config: ModelConfig, seed: int = 0) -> weights.Weights:
    """Random weights, large enough that every part of the model affects the logits."""
    random = np.random.default_rng(seed)
    result = {}
    for name, shape in weights.shapes(config).items():
        weight = random.normal(0, 0.3 if len(shape) == 2 else 0.1, shape)
        result[name] = (weight + ("norm.weight" in name)).astype(np.float32)
    return result


@pytest.fixture
def make_weights() -> Callable[..., weights.Weights]:
    return random_weights


@pytest.fixture
def write_model() -> Callable[..., Path]:
    """Publish a model with random weights: write_model(path, config, seed=0) -> path."""

    def write(
        path: Path,
        config: ModelConfig = TINY["qwen3"],
        seed: int = 0,
        step: int = 1,
        tokenizer: Tokenizer | None = None,
    ) -> Path:
        if tokenizer is None:
            tokenizer = CharTokenizer([chr(i) for i in (10, *range(32, 32 + config.vocab_size - 1))])
        info = SnapshotInfo(
            run=path.parent.parent.name, dataset="test", dataset_source="a test", step=step, tokens=step * 100,
            train_loss=2.0, val_loss=2.1, val_bpb=3.0, training_s=1.0, parameters=config.parameters,
            gptbox_version="0", created_at="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        model_folder.write(path, config, random_weights(config, seed), tokenizer, info, "# a test\n")
        return path

    return write
