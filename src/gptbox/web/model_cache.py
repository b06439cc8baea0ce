"""Loading published snapshots, and an LRU cache of loaded ones."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptbox.engine.gpt import GPT
from gptbox.errors import ModelFolderError
from gptbox.models import folder as model_folder
from gptbox.tokenizers import Tokenizer

SnapshotKey = tuple[Path, int, int]
"""Path, inode and modification time, so that a folder replaced under the same name gets another key."""


def snapshot_key(path: Path) -> SnapshotKey:
    """The cache key of a snapshot's folder.

    Raises ModelFolderError if the folder is gone.
    """
    try:
        info = path.stat()
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}.") from None
    return path, info.st_ino, info.st_mtime_ns


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A snapshot in memory. It stays usable if its folder is deleted or replaced."""

    key: SnapshotKey
    gpt: GPT
    tokenizer: Tokenizer
    loss: float | None = None
    """Validation loss in nats per token, exact or else estimated; None if the folder has neither."""
    line_break: NDArray[np.integer] = field(init=False)
    """Ids that stand for an empty prompt, shape (tokens,): a line break, or id 0 if the vocabulary lacks it."""

    def __post_init__(self) -> None:
        unknown = self.tokenizer.unknown("\n")
        ids = np.zeros(1, np.int64) if unknown else self.tokenizer.encode("\n").astype(np.int64)
        object.__setattr__(self, "line_break", ids)

    @property
    def path(self) -> Path:
        return self.key[0]

    @property
    def run(self) -> str:
        return self.path.parent.parent.name

    @property
    def name(self) -> str:
        """As in responses: `shakespeare_char@step-000250`."""
        return f"{self.run}@{self.path.name}"


def load_model(path: Path, quantize: bool = False) -> LoadedModel:
    """Load a snapshot's folder; `quantize` stores its matrices as int8.

    Raises ModelFolderError.
    """
    key = snapshot_key(path)
    try:
        folder = model_folder.load(path)
        info = folder.info
        loss = None if info is None else info.val_loss_estimate if info.val_loss is None else info.val_loss
        gpt = GPT(folder.config, folder.weights, quantize, folder.tokenizer.utf8_constraint)
        return LoadedModel(key, gpt, folder.tokenizer, loss)
    except ModelFolderError:
        raise
    except Exception as error:  # folders written by other programs may fail in unexpected ways
        raise ModelFolderError(f"{path} cannot be loaded: {type(error).__name__}: {error}.") from error


class ModelCache:
    """A thread-safe LRU cache, bounded by count and bytes. The model loaded last always stays."""

    def __init__(self, max_count: int = 4, max_bytes: int = 256 * 2**20, quantize: bool = False) -> None:
        """`quantize` stores the models' matrices as int8."""
        self.quantize = quantize
        self.max_count = max_count
        self.max_bytes = max_bytes
        self._models: OrderedDict[SnapshotKey, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        # One load at a time: two need twice the memory, and a second load of the same snapshot would be wasted.
        self._load_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._models)

    def get(self, key: SnapshotKey) -> LoadedModel | None:
        """The model if it is cached."""
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
            return self._models.get(key)

    def load(self, path: Path, keep: bool = True) -> LoadedModel:
        """The model of a snapshot's folder, loaded if it is not cached. Blocks.

        `keep=False` does not add it to the cache. Raises ModelFolderError.
        """
        if model := self.get(snapshot_key(path)):
            return model
        with self._load_lock:
            if model := self.get(snapshot_key(path)):
                return model
            model = load_model(path, self.quantize)
            if keep:
                self._add(model)
            return model

    def _add(self, model: LoadedModel) -> None:
        with self._lock:
            self._models[model.key] = model
            while len(self._models) > 1 and (
                len(self._models) > self.max_count
                or sum(model.gpt.size for model in self._models.values()) > self.max_bytes
            ):
                self._models.popitem(last=False)
