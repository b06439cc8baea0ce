"""A text made ready for training: cut in two, turned into token ids, kept in the run's folder.

    dataset/  train.bin  val.bin    uint16 ids, little-endian: the first 90 % of the characters, and the last 10 %
              meta.json             the tokenizer, counts, where the text came from, its SHA-256, its files' marks

The cut and the ids are nanoGPT's, byte for byte. The folder is published whole: a crash leaves none or a complete one.
A text is read twice, in blocks, and never held: once for its vocabulary, and once to write the ids. After that its
files' marks (size and times) tell that it is still the same; it is read again only where they differ.
"""

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.atomic import atomic_folder, write_json
from gptbox.datasets import find_dataset
from gptbox.datasets.base import FileMark, Text
from gptbox.datasets.progress import Watch, silent
from gptbox.datasets.report import describe_characters
from gptbox.datasets.token_files import count_ids, write_ids
from gptbox.errors import DatasetError, ModelFolderError, RunError
from gptbox.run_folder import RunFolder, begin_anew
from gptbox.tokenizers import Tokenizer, tokenizer_from_json
from gptbox.tokenizers.char import CharTokenizer

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PreparedDataset:
    folder: Path
    dataset: str
    source: str
    notes: tuple[str, ...]
    text_sha256: str
    text_bytes: int
    """UTF-8 bytes of the whole text; `train_bytes` and `val_bytes` are those of its two parts."""
    characters: int
    vocab_size: int
    train_tokens: int
    val_tokens: int
    train_bytes: int
    val_bytes: int
    tokenizer: Tokenizer
    train_counts: tuple[int, ...] | None = None
    """How often each id occurs in train.bin, and below in val.bin; None in what older versions prepared."""
    val_counts: tuple[int, ...] | None = None
    files: tuple[FileMark, ...] = ()
    """The user's own files that it was made from, as they were then; () where that is not known for certain."""

    @property
    def train(self) -> NDArray[np.uint16]:
        """The ids to learn from, shape (train_tokens,), mapped from the file."""
        return np.memmap(self.folder / "train.bin", dtype="<u2", mode="r", shape=(self.train_tokens,))

    @property
    def val(self) -> NDArray[np.uint16]:
        """The ids kept for checking, shape (val_tokens,), mapped from the file."""
        return np.memmap(self.folder / "val.bin", dtype="<u2", mode="r", shape=(self.val_tokens,))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a prepared dataset. The ids themselves are not looked at.

        Raises DatasetError naming the file that is missing, damaged or of another length than meta.json says.
        """
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if meta.pop("format_version") != FORMAT_VERSION:
                raise DatasetError(f"{folder / 'meta.json'} is of another version of gptbox.")
            tokenizer = tokenizer_from_json(meta.pop("tokenizer"))
            meta["notes"] = tuple(meta["notes"])
            meta["files"] = tuple(FileMark(**mark) for mark in meta.get("files", ()))
            for part in ("train_counts", "val_counts"):
                if part in meta:
                    meta[part] = tuple(map(int, meta[part]))
                    if len(meta[part]) != tokenizer.vocab_size:
                        raise ValueError(f"meta.json counts {len(meta[part]):,} ids")
            prepared = cls(folder=folder, tokenizer=tokenizer, **meta)
            for name, tokens in (("train.bin", prepared.train_tokens), ("val.bin", prepared.val_tokens)):
                if (size := (folder / name).stat().st_size) != 2 * tokens:
                    raise DatasetError(f"{folder / name} has {size:,} bytes; meta.json says {2 * tokens:,}.")
        except FileNotFoundError as error:
            raise DatasetError(f"{error.filename} is missing.") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelFolderError) as error:
            raise DatasetError(f"{folder} holds no readable prepared text: {error}.") from None
        if tokenizer.vocab_size != prepared.vocab_size:
            raise DatasetError(f"{folder / 'meta.json'} contradicts itself about the size of the vocabulary.")
        return prepared

    def require_context(self, context_length: int) -> None:
        """Raises DatasetError where one of the two parts is too short for a window of this context length."""
        # A window is context_length tokens and, one further on, their targets. The smaller part decides.
        if min(self.train_tokens, self.val_tokens) > context_length:
            return
        raise DatasetError(
            f"The text of {self.dataset} is too short: {self.characters:,} characters, of which the last tenth, "
            f"{self.val_tokens:,}, is kept for checking, and a context of {context_length:,} needs "
            f"{context_length + 1:,} there. Add text, to about {10 * (context_length + 1):,} characters, "
            "or choose a shorter context."
        )

    def bits_per_byte(self, val_loss: float) -> float:
        """A validation loss in nats a token as bits a byte of the text, to compare tokenizers."""
        return val_loss * self.val_tokens / self.val_bytes / math.log(2)

    def _counts(self, ids: NDArray[np.uint16], known: tuple[int, ...] | None) -> NDArray[np.int64]:
        """How often each id occurs, shape (vocab_size,). Raises DatasetError where one is not in the vocabulary."""
        if known is not None:
            return np.array(known, np.int64)
        counts = count_ids(ids, self.vocab_size)
        if len(counts) > self.vocab_size:
            raise DatasetError(f"{self.folder} is damaged: it has the id {len(counts) - 1:,}, which no text gives.")
        return counts

    def report(self) -> list[str]:
        """What is in the text, in lines for people. The ids are only read where meta.json does not count them.

        Raises DatasetError where they are damaged.
        """
        train, val = self._counts(self.train, self.train_counts), self._counts(self.val, self.val_counts)
        vocabulary, warnings = describe_characters(self.tokenizer, train, val)
        percent = 100 * self.train_tokens / (self.train_tokens + self.val_tokens)
        return [
            f"{self.dataset}: {self.source}",
            f"size: {self.characters:,} characters, {self.text_bytes:,} bytes",
            f"vocabulary: {self.vocab_size:,} characters: {vocabulary}",
            f"split: {self.train_tokens:,} tokens to learn from ({percent:.0f} %), {self.val_tokens:,} to check with",
            *warnings,
            *(f"note: {note}" for note in self.notes),
        ]


def prepare(name: str, run: RunFolder, data: Path, watch: Watch = silent) -> PreparedDataset:
    """The run's prepared dataset, made where it is not there yet, or where your own text has changed since.

    A complete one is used again without the network, and without reading the text where its files are as they were.
    `watch` is told how reading and writing go. Raises DatasetError where the text cannot be had or used, RunError
    where training has begun on another text, or the run's folder cannot be written.
    """
    begun = run.checkpoint.exists() or bool(run.snapshots())
    try:
        prepared = PreparedDataset.load(run.dataset)
    except DatasetError as damage:
        if begun:
            raise RunError(
                f"The run {run.name!r} cannot go on, because its prepared text is damaged: {damage} "
                + begin_anew(run.name)
            ) from None
        return _write(run, name, find_dataset(name, data).read(data, watch), watch)
    if prepared.dataset != name:
        if begun:
            raise RunError(
                f"The run {run.name!r} was trained on {prepared.dataset}, not on {name}. {begin_anew(run.name)}"
            )
        return _write(run, name, find_dataset(name, data).read(data, watch), watch)
    try:
        dataset = find_dataset(name, data)
    except DatasetError:
        return prepared  # the folder has gone since; all that training needs is in the run
    if prepared.files and prepared.files == _marks(dataset.own_files(data)):
        return prepared
    text = dataset.own_text(data, watch)
    if text is None:
        return prepared
    if text.summary.sha256 == prepared.text_sha256:
        return _remember(prepared, text.files)
    if begun:
        raise RunError(
            f"The text of {name} has changed since the run {run.name!r} began: {prepared.characters:,} characters "
            f"then ({prepared.source}), {text.summary.characters:,} now ({text.source}). " + begin_anew(run.name)
        )
    return _write(run, name, text, watch)


def _marks(files: Sequence[Path]) -> tuple[FileMark, ...]:
    """As the files are now; () where one cannot be looked at, which reading it will report."""
    try:
        return tuple(FileMark.of(file) for file in files)
    except OSError:
        return ()


def _remember(prepared: PreparedDataset, files: tuple[FileMark, ...]) -> PreparedDataset:
    """Write down the marks of files found to hold the same text, so that the next start need not read them."""
    if not files:
        return prepared
    file = prepared.folder / "meta.json"
    with suppress(OSError):  # then the next start reads them again
        meta = json.loads(file.read_text(encoding="utf-8"))
        write_json(file, meta | {"files": [asdict(mark) for mark in files]})
    return replace(prepared, files=files)


def _write(run: RunFolder, name: str, text: Text, watch: Watch) -> PreparedDataset:
    """Publish `text` as the run's dataset, in place of what may be there."""
    summary = text.summary
    cut = int(summary.characters * 0.9)
    if not 0 < cut < summary.characters:
        raise DatasetError(f"The text of {name} has {summary.characters} characters: too few to learn from.")
    tokenizer = CharTokenizer(summary.alphabet)
    widths = np.array([len(character.encode("utf-8")) for character in summary.alphabet])
    meta: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "dataset": name,
        "source": text.source,
        "notes": text.notes,
        "text_sha256": summary.sha256,
        "text_bytes": summary.bytes,
        "characters": summary.characters,
        "vocab_size": tokenizer.vocab_size,
    }
    try:
        with atomic_folder(run.dataset) as folder:
            counts = write_ids(text, tokenizer, cut, folder, watch, f"Writing the token ids of {name}")
            for part, found in zip(("train", "val"), counts, strict=True):
                meta |= {f"{part}_tokens": int(found.sum()), f"{part}_bytes": int(found @ widths)}
            meta["tokenizer"] = tokenizer.to_json()
            meta |= {"train_counts": counts[0].tolist(), "val_counts": counts[1].tolist()}
            meta["files"] = [asdict(mark) for mark in text.files]
            document = json.dumps(meta, ensure_ascii=False, indent=2)
            (folder / "meta.json").write_text(document + "\n", encoding="utf-8")
            if run.dataset.exists():
                shutil.rmtree(run.dataset)
    except OSError as error:
        raise RunError(f"The prepared text cannot be written to {run.dataset}: {error.strerror or error}.") from None
    return PreparedDataset.load(run.dataset)
