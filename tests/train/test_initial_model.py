"""Which model a new run begins with, and which are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import TINY
from tests.train.tiny_runs import CONFIG

from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.errors import SettingError
from gptbox.models.config import ModelConfig
from gptbox.models.folder import ModelFolder
from gptbox.models.runs import RunFolder
from gptbox.tokenizers.byte import ByteTokenizer
from gptbox.tokenizers.char import CharTokenizer
from gptbox.train.config import Stage, with_changes
from gptbox.train.initial_model import (
    check_shape,
    check_vocabulary,
    find_initial_model,
    load_initial_model,
    with_shape_of,
)


@pytest.fixture
def models(tmp_path: Path, write_model: Callable[..., Path]) -> Path:
    """A models folder with two snapshots of the run `first`, the first of which is the best."""
    run = RunFolder(tmp_path / "models", "first")
    for step in (1, 2):
        write_model(run.snapshot(step), TINY["gpt2"], step=step)
    run.update_link("best", run.snapshot(1))
    return tmp_path / "models"


@pytest.fixture
def dataset(tmp_path: Path, data: Path) -> PreparedDataset:
    return prepare("bottles", RunFolder(tmp_path / "models", "bottles"), data)


def folder(config: ModelConfig, dataset: PreparedDataset) -> ModelFolder:
    return ModelFolder(Path("first"), config, {}, dataset.tokenizer, None)


def test_a_model_is_named_by_run_snapshot_or_path(models: Path) -> None:
    snapshots = models / "first" / "snapshots"
    assert find_initial_model(models, "first") == snapshots / "step-000001"
    assert find_initial_model(models, "first@step-000002") == snapshots / "step-000002"
    assert find_initial_model(models, str(snapshots / "step-000002")) == snapshots / "step-000002"


@pytest.mark.parametrize("reference", ["second", "first@step-000003", "nowhere/best", "models/first", ""])
def test_an_unknown_model_is_refused_by_name(models: Path, reference: str) -> None:
    with pytest.raises(SettingError) as error:
        find_initial_model(models, reference, "--init")
    message = str(error.value)
    assert message.startswith(f"--init {reference!r} is not a model folder (it has no config.json), nor a run with a")
    assert message.endswith("Give a run's name or the path of a model folder, such as models/RUN/best.")


def test_a_gpt2_published_with_zero_biases_has_none(models: Path) -> None:
    model = load_initial_model(models, "first")
    assert model.config == TINY["gpt2"]
    assert not [name for name in model.weights if name.endswith(".bias")]


def test_a_damaged_model_is_refused(models: Path) -> None:
    (models / "first" / "best" / "model.safetensors").write_bytes(b"gone")
    with pytest.raises(SettingError, match=r"The initial weights cannot be read: .*step-000001 is not a readable"):
        load_initial_model(models, "first")


def test_another_vocabulary_is_refused_and_both_are_named(dataset: PreparedDataset) -> None:
    model = folder(CONFIG.model, dataset)
    check_vocabulary(model, dataset)
    ours = rf"the text of bottles has {dataset.vocab_size} tokens \(tokenizer char"
    with pytest.raises(SettingError, match=rf"vocabulary: 256 tokens \(tokenizer byte, .*, while {ours}\)"):
        check_vocabulary(
            replace(model, tokenizer=ByteTokenizer(), config=replace(CONFIG.model, vocab_size=256)), dataset
        )
    characters = dataset.tokenizer.decode(range(dataset.vocab_size))
    other = CharTokenizer(sorted(characters.replace("g", "é")))
    theirs = r"tokenizer char, not in the other: 'é'\)"
    with pytest.raises(SettingError, match=rf"{theirs}, while {ours}, not in the other: 'g'\)"):
        check_vocabulary(replace(model, tokenizer=other), dataset)


def test_another_shape_is_refused_and_both_are_named(dataset: PreparedDataset) -> None:
    model = folder(CONFIG.model, dataset)
    check_shape(CONFIG.model, model)
    theirs = "architecture qwen3, context_length 32, n_layer 2, n_head 2, n_embd 32"
    with pytest.raises(SettingError, match=rf"shape: {theirs}\. .* ask for: .*n_layer 3, n_head 2, n_embd 32\. "):
        check_shape(with_changes(CONFIG, n_layer=3).model, model)
    with pytest.raises(SettingError, match=r"tie_embeddings True\. .* tie_embeddings False\. "):
        check_shape(replace(CONFIG.model, tie_embeddings=False), model)


def test_the_shape_is_the_model_s_and_the_rest_the_recipe_s() -> None:
    recipe = with_changes(CONFIG, ramp=(Stage(0.5, 8, 16),))
    deeper = replace(CONFIG.model, n_layer=5)
    assert with_shape_of(recipe, deeper) == replace(recipe, model=deeper)
    shorter = replace(CONFIG.model, context_length=8)
    assert with_shape_of(recipe, shorter) == replace(recipe, model=shorter, ramp=())
