"""A published model: the format between training and serving, and a valid Hugging Face model folder.

    config.json  generation_config.json  model.safetensors      as transformers reads them, float32
    tokenizer.json  tokenizer_config.json                       as transformers reads them
    gptbox.json                                                 provenance of the model: SnapshotInfo
    README.md                                                   model card

A folder is written under a temporary name, fsynced and renamed: if it exists, it is complete.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from gptbox.errors import ModelFolderError
from gptbox.models import weights as layouts
from gptbox.models.config import ModelConfig
from gptbox.system.atomic import atomic_file, atomic_folder, write_json
from gptbox.tokenizers import Tokenizer, tokenizer_from_json

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SnapshotInfo:
    """The content of `gptbox.json`."""

    run: str
    dataset: str
    dataset_source: str
    step: int
    tokens: int
    """Tokens trained on so far."""
    train_loss: float | None
    val_loss: float | None
    """Nats per token over the whole validation split, in windows of the context length; None if only estimated."""
    val_bpb: float | None
    """`val_loss` in bits per byte of text, which is comparable between tokenizers."""
    training_s: float
    """Seconds of training so far."""
    parameters: int
    gptbox_version: str
    created_at: str
    """ISO 8601, UTC."""
    val_loss_estimate: float | None = None
    """Nats per token over a small fixed part of the validation split; None in folders of older versions."""
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        if content.get("format_version") != FORMAT_VERSION:
            raise ModelFolderError(
                f"gptbox.json has format version {content.get('format_version')!r}; this gptbox reads {FORMAT_VERSION}."
            )
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in content.items() if name in known})
        except TypeError as error:
            raise ModelFolderError(f"gptbox.json is incomplete: {error}.") from None


@dataclass(frozen=True)
class ModelFolder:
    """The content of a model folder."""

    path: Path
    config: ModelConfig
    weights: layouts.Weights
    tokenizer: Tokenizer
    info: SnapshotInfo | None
    """None if another program wrote the folder."""

    @property
    def parameters(self) -> int:
        """Number of trained parameters, without the zero biases that are added to a published gpt2."""
        return self.config.parameters if self.info is None else self.info.parameters


def write(
    path: Path, config: ModelConfig, weights: layouts.Weights, tokenizer: Tokenizer, info: SnapshotInfo, card: str
) -> None:
    """Publish a model as the new folder `path`, atomically. `card` is the text of the README. Raises OSError."""
    with atomic_folder(path) as folder:
        # Not save_file: only their owner can read the files it writes.
        tensors = save(layouts.to_huggingface(weights, config), metadata={"format": "pt"})
        (folder / "model.safetensors").write_bytes(tensors)
        special_ids, special_tokens = {}, {}
        if (eos_id := tokenizer.eos_id) is not None:
            special_ids = {"eos_token_id": eos_id}
            # Without the second, transformers would read the name of the token in a text as the token.
            special_tokens = {"eos_token": tokenizer.token_text(eos_id), "split_special_tokens": True}
        documents = {
            "config.json": config.to_huggingface() | special_ids,
            "generation_config.json": {
                "do_sample": True,
                "temperature": 0.8,
                "top_k": min(200, config.vocab_size),
                "max_new_tokens": 500,
                **special_ids,
            },
            "tokenizer.json": tokenizer.to_json(),
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": config.context_length,
                "clean_up_tokenization_spaces": False,
                **special_tokens,
            },
            "gptbox.json": asdict(info),
        }
        for name, content in documents.items():
            text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2)
            (folder / name).write_text(text + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card, encoding="utf-8")


def replace_info(path: Path, info: SnapshotInfo, card: str) -> None:
    """Replace gptbox.json and the README of a published folder, each atomically. Raises OSError."""
    write_json(path / "gptbox.json", asdict(info))
    with atomic_file(path / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing: this is not a complete model folder.") from None
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} does not hold a JSON object.")
    return content


def load_config(path: Path) -> ModelConfig:
    """Read only the configuration of a model folder.

    Raises ModelFolderError.
    """
    try:
        return ModelConfig.from_huggingface(_read_json(path / "config.json"))
    except ModelFolderError as error:
        raise ModelFolderError(f"{path}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelFolderError(f"{path / 'config.json'} cannot be read: {error}.") from error


def load(path: Path) -> ModelFolder:
    """Read a model folder; check the name and shape of every tensor against the configuration.

    Raises ModelFolderError, which names the file and the fault.
    """
    path = path.resolve()
    try:
        config = ModelConfig.from_huggingface(_read_json(path / "config.json"))
        tokenizer = tokenizer_from_json(_read_json(path / "tokenizer.json"))
        tensors = load_file(path / "model.safetensors")
        weights = layouts.from_huggingface(tensors, config)
        info = SnapshotInfo.from_json(_read_json(path / "gptbox.json")) if (path / "gptbox.json").exists() else None
    except ModelFolderError as error:
        raise ModelFolderError(f"{path}: {error}") from None
    except (OSError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise ModelFolderError(f"{path} is not a readable model folder: {error}.") from error
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelFolderError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} ids, the model only {config.vocab_size}."
        )
    return ModelFolder(path, config, weights, tokenizer, info)
