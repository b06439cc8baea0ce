"""A prepared dataset: a corpus split into training and validation, tokenized, in the run's folder.

    dataset/  train.bin  val.bin    ids, little-endian: the first 90 % of the characters, and the last 10 %
              meta.json             the tokenizer, the ids' `dtype`, counts, the source of the text, its SHA-256, stat
                                    data of its files, the report on its health
              train.ngrams          an index of the training text: models/ngram_index.py

The ids are uint16, as nanoGPT's, or uint32 if the vocabulary has more than 65,536.

The split is the same as nanoGPT's; with the tokenizer char, so are train.bin and val.bin, byte for byte. The folder is
written atomically: after a crash it is complete or absent. The index is written last, and may be missing. The text is
read in blocks: once for its size, hash and alphabet, once to write the ids, and in between by tokenizers that learn
more than the alphabet. It is read again only if the stat data of its files (size and times) has changed.
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets import find_dataset
from gptbox.datasets.base import Corpus, Dataset, FileStat
from gptbox.datasets.health import HealthReport, outlook
from gptbox.datasets.ngram_writer import too_large_to_index, write_index
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.squeezed_text import SqueezedText
from gptbox.datasets.token_files import count_ids, write_ids
from gptbox.datasets.vocabulary import describe_vocabulary
from gptbox.errors import DatasetError, ModelFolderError, RunError
from gptbox.models.ngram_index import has_index
from gptbox.models.runs import RunFolder, start_over_advice
from gptbox.system.atomic import atomic_folder, write_json
from gptbox.tokenizers import (
    AUTO,
    MANY_CHARACTERS,
    Tokenizer,
    choose_tokenizer,
    tokenizer_from_json,
    train_tokenizer,
)

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PreparedDataset:
    """The content of meta.json, and the ids of the two splits."""

    folder: Path
    dataset: str
    source: str
    notes: tuple[str, ...]
    text_sha256: str
    text_bytes: int
    """Size of the text in UTF-8; `train_bytes` and `val_bytes` are the sizes of its two splits."""
    characters: int
    vocab_size: int
    train_tokens: int
    val_tokens: int
    train_bytes: int
    val_bytes: int
    tokenizer: Tokenizer
    train_counts: tuple[int, ...] | None = None
    """Occurrences of each id in train.bin; None if prepared by an older version."""
    val_counts: tuple[int, ...] | None = None
    """Occurrences of each id in val.bin; None if prepared by an older version."""
    files: tuple[FileStat, ...] = ()
    """Stat data of the user's files that the text was read from; () if not known for certain."""
    dtype: str = "uint16"
    """Type of the ids in the two files: "uint16" or "uint32". Older versions wrote only the first, and no `dtype`."""
    tokenizer_reason: str = ""
    """Why `auto` chose the tokenizer, as a clause after "because"; "" if it was named."""
    origin: str | None = None
    """Dataset.origin; None if prepared by an older version, which only read the .txt files of a folder itself."""
    health: HealthReport | None = None
    """None if prepared by an older version."""

    @property
    def train(self) -> NDArray[np.unsignedinteger]:
        """The training ids, shape (train_tokens,), memory-mapped."""
        return self._ids("train.bin", self.train_tokens)

    @property
    def val(self) -> NDArray[np.unsignedinteger]:
        """The validation ids, shape (val_tokens,), memory-mapped."""
        return self._ids("val.bin", self.val_tokens)

    def _ids(self, name: str, tokens: int) -> NDArray[np.unsignedinteger]:
        return np.memmap(self.folder / name, np.dtype(self.dtype).newbyteorder("<"), "r", shape=(tokens,))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a prepared dataset, but not its ids.

        Raises DatasetError, which names a file that is missing, damaged or not of the length in meta.json.
        """
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if meta.pop("format_version") != FORMAT_VERSION:
                raise DatasetError(f"{folder / 'meta.json'} was written by another version of gptbox.")
            tokenizer = tokenizer_from_json(meta.pop("tokenizer"))
            meta["notes"] = tuple(meta["notes"])
            meta["files"] = tuple(FileStat(**stat) for stat in meta.get("files", ()))
            if "health" in meta:
                meta["health"] = HealthReport.from_json(meta["health"])
            for key in ("train_counts", "val_counts"):
                if key in meta:
                    meta[key] = tuple(map(int, meta[key]))
                    if len(meta[key]) != tokenizer.vocab_size:
                        raise ValueError(f"meta.json counts {len(meta[key]):,} ids")
            prepared = cls(folder=folder, tokenizer=tokenizer, **meta)
            if prepared.dtype not in ("uint16", "uint32"):
                raise ValueError(f"meta.json has the dtype {prepared.dtype!r}")
            for name, tokens in (("train.bin", prepared.train_tokens), ("val.bin", prepared.val_tokens)):
                expected = tokens * np.dtype(prepared.dtype).itemsize
                if (size := (folder / name).stat().st_size) != expected:
                    raise DatasetError(f"{folder / name} has {size:,} bytes; meta.json says {expected:,}.")
        except FileNotFoundError as error:
            raise DatasetError(f"{error.filename} is missing.") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelFolderError) as error:
            raise DatasetError(f"{folder} holds no readable prepared text: {error}.") from None
        if tokenizer.vocab_size != prepared.vocab_size:
            raise DatasetError(f"{folder / 'meta.json'} contradicts itself about the size of the vocabulary.")
        return prepared

    def require_context(self, context_length: int) -> None:
        """Raises DatasetError if one of the two splits is too short for a window of this context length."""
        # A window is context_length inputs and their targets, shifted by one token.
        if min(self.train_tokens, self.val_tokens) > context_length:
            return
        tokens, units = self.train_tokens + self.val_tokens, f"{self.tokenizer.unit}s"
        raise DatasetError(
            f"The text of {self.dataset} is too short: {tokens:,} {units}, of which the last tenth, "
            f"{self.val_tokens:,}, is kept for validation, and a context of {context_length:,} needs "
            f"{context_length + 1:,} there. Add text, to about {10 * (context_length + 1):,} {units}, "
            "or choose a shorter context."
        )

    @property
    def characters_per_token(self) -> float:
        """Mean number of characters per token."""
        return self.characters / (self.train_tokens + self.val_tokens)

    @property
    def letters_per_token(self) -> float:
        """As `characters_per_token`, but counts a character of Chinese, Japanese or Korean as its bytes.

        It carries about as much information as that many letters. Losses per token divided by this are comparable
        across scripts.
        """
        tokens = self.train_tokens + self.val_tokens
        has_many_characters = self.health is not None and self.health.distinct_characters > MANY_CHARACTERS
        if has_many_characters and self.text_bytes > 2 * self.characters:
            return self.text_bytes / tokens
        return self.characters_per_token

    def bits_per_byte(self, val_loss: float) -> float:
        """Convert a validation loss from nats per token to bits per byte, which is comparable between tokenizers."""
        return val_loss * self.val_tokens / self.val_bytes / math.log(2)

    def _counts(self, ids: NDArray[np.unsignedinteger], stored: tuple[int, ...] | None) -> NDArray[np.int64]:
        """Occurrences of each id, shape (vocab_size,). Raises DatasetError if an id is outside the vocabulary."""
        if stored is not None:
            return np.array(stored, np.int64)
        counts = count_ids(ids, self.vocab_size)
        if len(counts) > self.vocab_size:
            raise DatasetError(f"{self.folder} is damaged: its vocabulary lacks the id {len(counts) - 1:,}.")
        return counts

    def _outlook(self) -> list[str]:
        return outlook(self.train_tokens, self.val_tokens, self.tokenizer.unit)

    def health_lines(self) -> list[str]:
        """The health of the text and what to expect of it, for the page; [] if prepared by an older version."""
        lines = [] if self.health is None else [*self.health.lines(), *self._outlook()]
        return [line[0].upper() + line[1:] for line in lines]

    def describe(self) -> list[str]:
        """A description of the text, in lines for people. The ids are only read if meta.json has no counts.

        Raises DatasetError if the ids are damaged.
        """
        train, val = self._counts(self.train, self.train_counts), self._counts(self.val, self.val_counts)
        vocabulary, warnings = describe_vocabulary(self.tokenizer, train, val, name_odd=self.health is None)
        reason = f", because {self.tokenizer_reason}" if self.tokenizer_reason else ""
        percent = 100 * self.train_tokens / (self.train_tokens + self.val_tokens)
        return [
            f"{self.dataset}: {self.source}",
            f"size: {self.characters:,} characters, {self.text_bytes:,} bytes",
            f"vocabulary: {vocabulary}",
            f"split: {self.train_tokens:,} tokens for training ({percent:.0f} %), {self.val_tokens:,} for validation",
            f"tokenizer: {self.tokenizer.name}{reason}",
            *(() if self.health is None else self.health.findings()),
            *warnings,
            *self._outlook(),
            *(f"note: {note}" for note in self.notes),
            *self._missing_index(),
        ]

    def _missing_index(self) -> list[str]:
        """Why copied words cannot be shown, in a line."""
        if has_index(self.folder, self.train_bytes):
            return []
        reason = (
            too_large_to_index(self.folder, self.train_bytes) or "the index of the training text could not be written"
        )
        return [f"copied words: not shown, because {reason}"]


def prepare(
    name: str,
    run: RunFolder,
    data: Path,
    on_progress: ProgressCallback = no_progress,
    tokenizer: str | Tokenizer = AUTO,
    url: str | None = None,
) -> PreparedDataset:
    """The run's prepared dataset, created if it is missing or the user's text has changed.

    A complete one is reused without the network, and without reading the text if its files have not changed. If it has
    no index, as those of older versions, or a damaged one, an index is written from its ids; that may fail. `tokenizer`
    is a name in TOKENIZERS, a trained tokenizer, or AUTO, which keeps the tokenizer of a prepared dataset; `url` is the
    address of the text, if it is downloaded (DATASET_URL). Raises DatasetError if the text cannot be found or used,
    RunError if the run has another tokenizer, training has begun on another text or the run's folder cannot be written.
    """
    prepared = _prepare(name, run, data, on_progress, tokenizer, url)
    _add_index(prepared, on_progress)
    return prepared


def _add_index(prepared: PreparedDataset, on_progress: ProgressCallback) -> None:
    """Write the index of the training text if there is none and it can be written."""
    if has_index(prepared.folder, prepared.train_bytes):
        return
    operation = f"Indexing {prepared.dataset}"
    ids, size = prepared.train, prepared.train_bytes
    if too_large_to_index(prepared.folder, size) is None:
        with suppress(OSError, ValueError, IndexError):  # ValueError and IndexError: damaged ids
            write_index(prepared.folder, ids, prepared.tokenizer, size, on_progress, operation)


def _prepare(
    name: str, run: RunFolder, data: Path, on_progress: ProgressCallback, tokenizer: str | Tokenizer, url: str | None
) -> PreparedDataset:
    """As `prepare`, without the index."""

    def find() -> Dataset:
        return find_dataset(name, data, url, run.path.parent)

    def write(corpus: Corpus, tokenizer: str | Tokenizer) -> PreparedDataset:
        return _write(run, name, corpus, on_progress, tokenizer, data)

    training_begun = run.checkpoint.exists() or bool(run.snapshots())
    try:
        prepared = PreparedDataset.load(run.dataset)
    except DatasetError as error:
        if training_begun:
            raise RunError(
                f"The run {run.name!r} cannot go on, because its prepared text is damaged: {error} "
                + start_over_advice(run.name)
            ) from None
        return write(find().read(data, on_progress), tokenizer)
    if prepared.dataset != name:
        if training_begun:
            raise RunError(
                f"The run {run.name!r} was trained on {prepared.dataset}, not on {name}. {start_over_advice(run.name)}"
            )
        return write(find().read(data, on_progress), tokenizer)
    wanted = tokenizer if isinstance(tokenizer, str) else tokenizer.name
    if wanted not in (AUTO, prepared.tokenizer.name):
        raise RunError(
            f"The run {run.name!r} was prepared with the tokenizer {prepared.tokenizer.name}, not with {wanted}. "
            + start_over_advice(run.name)
        )
    try:
        dataset = find()
    except DatasetError:
        return prepared  # the text was deleted; training only needs the run's folder
    if dataset.origin and dataset.origin != prepared.origin:
        if training_begun:
            raise RunError(
                f"The run {run.name!r} was trained on another text called {name} ({prepared.source}), not on the one "
                f"that DATASET_URL gives. {start_over_advice(run.name)}"
            )
        return write(dataset.read(data, on_progress), tokenizer)
    files = dataset.user_files(data)
    if prepared.origin is None and training_begun:
        files = tuple(file for file in files if "/" not in file.name and file.name.lower().endswith(".txt"))
    if prepared.files and prepared.files == files:
        return prepared
    corpus = dataset.read_user_files(data, on_progress)
    if corpus is None:
        return prepared
    if corpus.summary.sha256 == prepared.text_sha256:
        return _store_stats(prepared, corpus.files)
    if training_begun:
        raise RunError(
            f"The text of {name} has changed since the run {run.name!r} began: {prepared.characters:,} characters "
            f"then ({prepared.source}), {corpus.summary.characters:,} now ({corpus.source}). "
            + start_over_advice(run.name)
        )
    return write(corpus, tokenizer if isinstance(tokenizer, Tokenizer) else prepared.tokenizer.name)


def _store_stats(prepared: PreparedDataset, files: tuple[FileStat, ...]) -> PreparedDataset:
    """Store the stat data of files whose text is unchanged, so that the next start need not read them."""
    if not files:
        return prepared
    meta_file = prepared.folder / "meta.json"
    with suppress(OSError):  # then the next start reads the files again
        meta = json.loads(meta_file.read_text(encoding="utf-8"))
        write_json(meta_file, meta | {"files": [asdict(stat) for stat in files]})
    return replace(prepared, files=files)


def _write(
    run: RunFolder,
    name: str,
    corpus: Corpus,
    on_progress: ProgressCallback,
    tokenizer: str | Tokenizer,
    data: Path,
) -> PreparedDataset:
    """Publish the corpus as the run's dataset, replacing an existing one."""
    summary = corpus.summary
    num_train = int(summary.characters * 0.9)
    if not 0 < num_train < summary.characters:
        raise DatasetError(f"The text of {name} has fewer than 2 characters: too few to learn from.")
    reason = ""
    if tokenizer == AUTO and corpus.tokenizer != AUTO:
        tokenizer, reason = corpus.tokenizer, f"it is that of {name}"
    elif tokenizer == AUTO:
        tokenizer, reason = choose_tokenizer(len(summary.alphabet), summary.bytes)
    if isinstance(tokenizer, str):
        blocks = _TrainingText(corpus, num_train, on_progress, f"Learning the tokens of {name}")
        tokenizer = train_tokenizer(tokenizer, blocks, summary.alphabet, summary.bytes, data)
    token_sizes = np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)])
    meta: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "dataset": name,
        "origin": corpus.origin,
        "source": corpus.source,
        "notes": corpus.notes,
        "text_sha256": summary.sha256,
        "text_bytes": summary.bytes,
        "characters": summary.characters,
        "vocab_size": tokenizer.vocab_size,
        "dtype": tokenizer.dtype.name,
        "tokenizer_reason": reason,
    }
    try:
        with atomic_folder(run.dataset) as folder:
            operation = f"Writing the token ids of {name}"
            with TemporaryFile(dir=folder) as file:
                text = SqueezedText(corpus, num_train, file)
                counts = write_ids(text.corpus, tokenizer, num_train, folder, on_progress, operation)
                meta["health"] = asdict(HealthReport.of(text, name, on_progress))
            for split, n in zip(("train", "val"), counts, strict=True):
                meta |= {f"{split}_tokens": int(n.sum()), f"{split}_bytes": int(n @ token_sizes)}
            meta["tokenizer"] = tokenizer.to_json()
            meta |= {"train_counts": counts[0].tolist(), "val_counts": counts[1].tolist()}
            meta["files"] = [asdict(stat) for stat in corpus.files]
            document = json.dumps(meta, ensure_ascii=False, indent=2)
            (folder / "meta.json").write_text(document + "\n", encoding="utf-8")
            if run.dataset.exists():
                shutil.rmtree(run.dataset)
    except OSError as error:
        raise RunError(f"The prepared text cannot be written to {run.dataset}: {error.strerror or error}.") from None
    return PreparedDataset.load(run.dataset)


class _TrainingText:
    """The blocks of a corpus's training split; reading them is reported.

    Tokens are learned from it alone: those of the validation split would make the loss there lower than on new text.
    """

    def __init__(self, corpus: Corpus, num_train: int, on_progress: ProgressCallback, operation: str) -> None:
        """The split is the first `num_train` characters."""
        self._corpus, self._num_train = corpus, num_train
        self._on_progress, self._operation = on_progress, operation

    def __iter__(self) -> Iterator[str]:
        done = 0
        for block in self._corpus:
            part = block[: self._num_train - done]
            done += len(part)
            yield part
            self._on_progress(self._operation, done, self._num_train)
            if done == self._num_train:
                return
