"""`--init RUN|FOLDER`: a new run begins with the weights of a published model instead of random ones."""

from dataclasses import fields, replace
from pathlib import Path

from gptbox.datasets.prepared import PreparedDataset
from gptbox.errors import ModelFolderError, ModelNotFoundError, SettingError
from gptbox.models import folder as model_folder
from gptbox.models.config import ModelConfig
from gptbox.models.folder import ModelFolder
from gptbox.models.runs import find_snapshot
from gptbox.models.weights import drop_zero_biases
from gptbox.tokenizers import Tokenizer
from gptbox.train.config import MODEL_OPTIONS, TrainConfig

_EXAMPLES = 5
"""Tokens that an error message lists."""


def find_initial_model(models: Path, reference: str, source: str = "INIT") -> Path:
    """The folder that `reference` names: a model folder, a run (its best snapshot), or RUN@SNAPSHOT.

    Raises SettingError; `source` is the setting or option that the reference came from.
    """
    if (Path(reference) / "config.json").is_file():
        return Path(reference)
    try:
        return find_snapshot(models, reference)
    except ModelNotFoundError as error:
        raise SettingError(
            f"{source} {reference!r} is not a model folder (it has no config.json), nor a run with a model: {error} "
            "Give a run's name or the path of a model folder, such as models/RUN/best."
        ) from None


def load_initial_model(models: Path, reference: str) -> ModelFolder:
    """The model that `reference` names, without the zero biases that publishing adds to a gpt2 trained without biases.

    Raises SettingError if there is no such model or it cannot be read.
    """
    path = find_initial_model(models, reference)
    try:
        folder = model_folder.load(path)
    except ModelFolderError as error:
        raise SettingError(f"The initial weights cannot be read: {error}") from None
    weights, config = drop_zero_biases(folder.weights, folder.config)
    return replace(folder, weights=weights, config=config)


def check_vocabulary(model: ModelFolder, dataset: PreparedDataset) -> None:
    """Raises SettingError if the text's ids do not stand for the same tokens as the model's."""
    theirs, ours = (
        [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        for tokenizer in (model.tokenizer, dataset.tokenizer)
    )
    if theirs == ours and model.config.vocab_size == dataset.vocab_size:
        return
    raise SettingError(
        f"The initial weights in {model.path} are for another vocabulary: "
        f"{_describe(model.tokenizer, model.config.vocab_size, ours)}, while the text of {dataset.dataset} has "
        f"{_describe(dataset.tokenizer, dataset.vocab_size, theirs)}. Give other weights or none; models of any texts "
        "fit together if both were trained with the tokenizer byte or gpt2."
    )


def _describe(tokenizer: Tokenizer, size: int, other: list[bytes]) -> str:
    """A vocabulary of `size` ids in a few words, with examples of tokens that `other` lacks."""
    known = set(other)
    only_here = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) not in known]
    examples = ", ".join(repr(tokenizer.token_text(i)) for i in only_here[:_EXAMPLES])
    more = ", ..." if len(only_here) > _EXAMPLES else ""
    missing = f", not in the other: {examples}{more}" if only_here else ""
    return f"{size:,} tokens (tokenizer {tokenizer.name}{missing})"


def with_shape_of(config: TrainConfig, model: ModelConfig) -> TrainConfig:
    """A copy that trains a model of this shape. A ramp for another context is dropped."""
    ramp = config.ramp if model.context_length == config.model.context_length else ()
    return replace(config, model=model, ramp=ramp)


def check_shape(wanted: ModelConfig, model: ModelFolder) -> None:
    """Raises SettingError, which names both shapes, if the options or the preset ask for another than the model's."""
    if wanted == model.config:
        return
    names = [f.name for f in fields(ModelConfig)]
    listed = {name for name in names if getattr(wanted, name) != getattr(model.config, name)}
    listed |= {"architecture", *MODEL_OPTIONS}
    theirs, ours = (
        ", ".join(f"{name} {getattr(config, name)}" for name in names if name in listed)
        for config in (model.config, wanted)
    )
    raise SettingError(
        f"The initial weights in {model.path} are of another shape: {theirs}. The options or the preset ask for: "
        f"{ours}. Without them, the model takes the shape of its initial weights."
    )
