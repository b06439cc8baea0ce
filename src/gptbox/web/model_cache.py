"""Published snapshots, loaded: each once at a time, the most recently used kept for the next request."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gptbox import model_folder
from gptbox.engine.gpt import GPT
from gptbox.errors import ModelFolderError
from gptbox.tokenizers import Tokenizer

SnapshotKey = tuple[Path, int, int]
"""Path, inode and modification time: a folder that was replaced under its old name has another key."""


def snapshot_key(path: Path) -> SnapshotKey:
    """Raises ModelFolderError where the folder is gone."""
    try:
        found = path.stat()
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}.") from None
    return path, found.st_ino, found.st_mtime_ns


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A snapshot, ready to generate. Whoever holds it can finish with it, whatever happens to its folder."""

    key: SnapshotKey
    gpt: GPT
    tokenizer: Tokenizer
    loss: float | None = None
    """Its validation loss in nats a token, exact or estimated, where its folder says."""
    line_break: NDArray[np.integer] = field(init=False)
    """What an empty prompt starts from, shape (tokens,): a line break, or the first id where there is none."""

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
        """As in replies: `shakespeare_char@step-000250`."""
        return f"{self.run}@{self.path.name}"


def load_model(path: Path, quantize: bool = False) -> LoadedModel:
    """Read a snapshot's folder; `quantize` keeps its matrices in 8 bits.

    Raises ModelFolderError.
    """
    key = snapshot_key(path)
    try:
        folder = model_folder.load(path)
        info = folder.info
        loss = None if info is None else info.val_loss_estimate if info.val_loss is None else info.val_loss
        return LoadedModel(key, GPT(folder.config, folder.weights, quantize), folder.tokenizer, loss)
    except ModelFolderError:
        raise
    except Exception as error:  # a folder written by another program may break in ways that nobody foresaw
        raise ModelFolderError(f"{path} cannot be loaded: {type(error).__name__}: {error}.") from error


class ModelCache:
    """Thread-safe. Bounded by number and bytes, except that the last one loaded always stays."""

    def __init__(self, max_count: int = 4, max_bytes: int = 256 * 2**20, quantize: bool = False) -> None:
        """`quantize` keeps their matrices in 8 bits."""
        self.quantize = quantize
        self.max_count = max_count
        self.max_bytes = max_bytes
        self._models: OrderedDict[SnapshotKey, LoadedModel] = OrderedDict()
        self._table = threading.Lock()
        # One load at a time: two would need twice the memory, and of two for the same snapshot one would be wasted.
        self._loading = threading.Lock()

    def __len__(self) -> int:
        return len(self._models)

    def get(self, key: SnapshotKey) -> LoadedModel | None:
        """A model that is loaded already."""
        with self._table:
            if key in self._models:
                self._models.move_to_end(key)
            return self._models.get(key)

    def load(self, path: Path, keep: bool = True) -> LoadedModel:
        """The model of a snapshot's folder, read where it is not here yet; blocks meanwhile.

        `keep=False` leaves it to the caller to hold on to what had to be read. Raises ModelFolderError.
        """
        if model := self.get(snapshot_key(path)):
            return model
        with self._loading:
            if model := self.get(snapshot_key(path)):
                return model
            model = load_model(path, self.quantize)
            if keep:
                self._add(model)
            return model

    def _add(self, model: LoadedModel) -> None:
        with self._table:
            self._models[model.key] = model
            while len(self._models) > 1 and (
                len(self._models) > self.max_count
                or sum(model.gpt.size for model in self._models.values()) > self.max_bytes
            ):
                self._models.popitem(last=False)
