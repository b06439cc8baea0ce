"""One model in three implementations that must agree: training in torch, our engine, and transformers."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptbox.engine.generate import generate
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.sampling_params import SamplingParams
from gptbox.models import folder as model_folder
from gptbox.models.config import ModelConfig
from gptbox.models.runs import find_snapshot
from gptbox.train.gpt import GPT as TorchGPT  # noqa: N811

TOLERANCE = 1e-4


def from_transformers(path: Path) -> Any:
    """The model as transformers loads it, with no missing and no unexpected weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import transformers

        model, loading = transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    return model.eval()


def tokens(model: GPT, prompt: np.ndarray, params: SamplingParams) -> list[int]:
    """The ids that our engine generates after a prompt."""
    return [i for new in generate(model, [prompt], [params]) for i in new[0]]


def to_torch(config: ModelConfig, weights: dict[str, Any]) -> TorchGPT:
    model = TorchGPT(config)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    return model.eval()


@torch.inference_mode()
def test_same_logits(config: ModelConfig, write_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = model_folder.load(write_model(tmp_path / "model", config))
    ids = np.random.default_rng(1).integers(0, config.vocab_size, (3, config.context_length))
    ours = GPT(folder.config, folder.weights).forward(ids, KVCache(folder.config, 3))
    torchs = to_torch(folder.config, folder.weights)(torch.from_numpy(ids)).numpy()
    theirs = from_transformers(folder.path)(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(ours).max() > 1  # an all-zero model would agree with anything
    np.testing.assert_allclose(ours, torchs, atol=TOLERANCE)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_same_200_greedy_tokens_past_the_context(
    config: ModelConfig, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = model_folder.load(write_model(tmp_path / "model", config))
    prompt = [3, 1, 4, 1, 5]
    greedy = SamplingParams(max_tokens=200, temperature=0)
    ours = tokens(GPT(folder.config, folder.weights), np.array(prompt), greedy)
    torchs = to_torch(folder.config, folder.weights).generate(prompt, 200, temperature=0)
    assert len(set(ours)) > 3
    assert ours == torchs


@pytest.fixture(scope="module")
def trained_run(tiny_shakespeare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder after a short run of the default preset on Tiny Shakespeare, from the command line."""
    import os
    import subprocess
    import sys

    models = tmp_path_factory.mktemp("models")
    data = tmp_path_factory.mktemp("data")
    (data / "shakespeare_char").mkdir()
    (data / "shakespeare_char" / "input.txt").symlink_to(tiny_shakespeare)
    environment = os.environ | {"GPTBOX_MODELS": str(models), "GPTBOX_DATA": str(data)}
    subprocess.run([sys.executable, "-m", "gptbox", "train", "--steps", "60"], env=environment, check=True)
    return models


@torch.inference_mode()
def test_a_published_run_loads_in_transformers_with_the_same_tokens_logits_and_text(trained_run: Path) -> None:
    import transformers

    folder = model_folder.load(find_snapshot(trained_run, "shakespeare_char"))
    theirs = from_transformers(folder.path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path)
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\n  Speak,  speak."
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids[0].tolist() == folder.tokenizer.encode(text).tolist()
    assert tokenizer.decode(ids[0]) == text == folder.tokenizer.decode(ids[0].tolist())

    ours = GPT(folder.config, folder.weights).forward(ids.numpy(), KVCache(folder.config, 1))
    np.testing.assert_allclose(ours, theirs(ids).logits.numpy(), atol=TOLERANCE)

    prompt = ids[:, :20]
    expected = theirs.generate(prompt, do_sample=False, max_new_tokens=200)[0, 20:].tolist()
    greedy = SamplingParams(max_tokens=200, temperature=0)
    assert tokens(GPT(folder.config, folder.weights), prompt[0].numpy(), greedy) == expected
