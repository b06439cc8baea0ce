"""A text made ready for training: cut in two, turned into token ids, kept in the run's folder.

    dataset/  train.bin  val.bin    uint16 ids, little-endian: the first 90 % of the characters, and the last 10 %
              meta.json             the tokenizer, counts, where the text came from, its SHA-256

The cut and the ids are nanoGPT's, byte for byte. The folder is published whole: a crash leaves none or a complete one.
"""

import json
import math
import shutil
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptbox.atomic import atomic_folder
from gptbox.datasets import find_dataset
from gptbox.datasets.base import Text
from gptbox.datasets.tiny_shakespeare import sha256
from gptbox.errors import DatasetError, ModelFolderError, RunError
from gptbox.run_folder import RunFolder
from gptbox.tokenizers import Tokenizer, shown, tokenizer_from_json
from gptbox.tokenizers.char import CharTokenizer

FORMAT_VERSION = 1
_PIECE = 1 << 20
_RARE = 10  # a character seen less often than this is hardly learnt
_ODD = {"Cc", "Cf", "Cn", "Co", "Zl", "Zp"}  # Unicode's control, format, unassigned, private and separator characters
_SHOWN = 100  # characters listed in a report


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
            prepared = cls(folder=folder, tokenizer=tokenizer, **meta | {"notes": tuple(meta["notes"])})
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

    def _counts(self, ids: NDArray[np.uint16]) -> NDArray[np.int64]:
        """How often each id occurs, shape (vocab_size,). Raises DatasetError where one is not in the vocabulary."""
        total = np.zeros(self.vocab_size, np.int64)
        for start in range(0, len(ids), _PIECE):  # in pieces, because bincount widens its input to 64 bits
            counts = np.bincount(ids[start : start + _PIECE], minlength=self.vocab_size)
            if len(counts) > self.vocab_size:
                raise DatasetError(f"{self.folder} is damaged: it has the id {len(counts) - 1:,}, which no text gives.")
            total += counts
        return total

    def report(self) -> list[str]:
        """What is in the text, in lines for people. Raises DatasetError where the ids are damaged."""
        train, val = self._counts(self.train), self._counts(self.val)
        counts = Counter({self.tokenizer.decode([i]): int(n) for i, n in enumerate(train + val)})
        unseen = [self.tokenizer.decode([int(i)]) for i in np.flatnonzero((train == 0) & (val > 0))]
        percent = 100 * self.train_tokens / (self.train_tokens + self.val_tokens)
        lines = [
            f"{self.dataset}: {self.source}",
            f"size: {self.characters:,} characters, {self.text_bytes:,} bytes",
            f"vocabulary: {self.vocab_size:,} characters: {_spans(list(counts))}",
            f"split: {self.train_tokens:,} tokens to learn from ({percent:.0f} %), {self.val_tokens:,} to check with",
        ]
        if odd := [character for character in counts if _is_odd(character)]:
            lines.append(f"odd characters: {_listed(odd, counts)}")
        if rare := sorted((c for c in counts if counts[c] < _RARE and not _is_odd(c)), key=counts.__getitem__):
            lines.append(f"rare characters, hardly learnt: {_listed(rare, counts)}")
        if unseen:
            lines.append(f"only in the part to check with, never learnt: {_listed(unseen, counts)}")
        return lines + [f"note: {note}" for note in self.notes]


def _is_odd(character: str) -> bool:
    """Control, invisible, private and unassigned characters, and the mark of a text once decoded wrongly."""
    return character == "\ufffd" or (character not in "\n\t" and unicodedata.category(character) in _ODD)


def _spans(characters: list[str]) -> str:
    """Characters in code point order, letters and digits that follow one another as A-Z."""
    spans: list[list[str]] = []
    for character in characters:
        if spans and character.isalnum() and ord(character) == ord(spans[-1][-1]) + 1 and spans[-1][-1].isalnum():
            spans[-1].append(character)
        else:
            spans.append([character])
    words = []
    for span in spans:
        words += [f"{span[0]}-{span[-1]}"] if len(span) > 3 else [shown(character) for character in span]
    more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
    return " ".join(words[:_SHOWN]) + more


def _listed(characters: list[str], counts: Counter[str]) -> str:
    words = [f"{shown(c)} ({counts[c]:,} x)" for c in characters[:20]]
    more = f" and {len(characters) - 20:,} more" if len(characters) > 20 else ""
    return ", ".join(words) + more


def prepare(name: str, run: RunFolder, data: Path) -> PreparedDataset:
    """The run's prepared dataset, made where it is not there yet, or where your own text has changed since.

    A complete one is used again without the network. Raises DatasetError where the text cannot be had or used,
    RunError where training has begun on another text, or the run's folder cannot be written.
    """
    begun = run.checkpoint.exists() or bool(run.snapshots())
    try:
        prepared = PreparedDataset.load(run.dataset)
    except DatasetError as damage:
        if begun:
            raise RunError(
                f"The run {run.name!r} cannot go on, because its prepared text is damaged: {damage} "
                f"Train under another name (--run), or delete {run.path} to begin anew."
            ) from None
        return _write(run, name, find_dataset(name, data).read(data))
    if prepared.dataset != name:
        if begun:
            raise RunError(
                f"The run {run.name!r} was trained on {prepared.dataset}, not on {name}. "
                f"Train under another name (--run), or delete {run.path} to begin anew."
            )
        return _write(run, name, find_dataset(name, data).read(data))
    try:
        dataset = find_dataset(name, data)
    except DatasetError:
        return prepared  # the folder has gone since; all that training needs is in the run
    text = dataset.own_text(data)
    if text is None or sha256(text.text) == prepared.text_sha256:
        return prepared
    if begun:
        raise RunError(
            f"The text of {name} has changed since the run {run.name!r} began: {prepared.characters:,} characters "
            f"then ({prepared.source}), {len(text.text):,} now ({text.source}). "
            f"Train on the new text under another name (--run), or delete {run.path} to begin anew."
        )
    return _write(run, name, text)


def _write(run: RunFolder, name: str, text: Text) -> PreparedDataset:
    """Publish `text` as the run's dataset, in place of what may be there."""
    characters = len(text.text)
    cut = int(characters * 0.9)
    if not 0 < cut < characters:
        raise DatasetError(f"The text of {name} has {characters} characters: too few to learn from.")
    tokenizer = CharTokenizer.train([text.text])
    parts = {"train": text.text[:cut], "val": text.text[cut:]}
    meta: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "dataset": name,
        "source": text.source,
        "notes": text.notes,
        "text_sha256": sha256(text.text),
        "text_bytes": 0,
        "characters": characters,
        "vocab_size": tokenizer.vocab_size,
    }
    try:
        with atomic_folder(run.dataset) as folder:
            for part, content in parts.items():
                ids = tokenizer.encode(content).astype("<u2", copy=False)
                (folder / f"{part}.bin").write_bytes(ids.data)
                meta |= {f"{part}_tokens": len(ids), f"{part}_bytes": len(content.encode("utf-8"))}
            meta["text_bytes"] = meta["train_bytes"] + meta["val_bytes"]
            meta["tokenizer"] = tokenizer.to_json()
            document = json.dumps(meta, ensure_ascii=False, indent=2)
            (folder / "meta.json").write_text(document + "\n", encoding="utf-8")
            if run.dataset.exists():
                shutil.rmtree(run.dataset)
    except OSError as error:
        raise RunError(f"The prepared text cannot be written to {run.dataset}: {error.strerror or error}.") from None
    return PreparedDataset.load(run.dataset)
