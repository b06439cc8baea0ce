"""A text without its white space, as a file of symbols, written while the text is read for another purpose."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptbox.datasets.base import Corpus, Document
from gptbox.datasets.vocabulary import is_odd
from gptbox.datasets.winnowing import SymbolFile
from gptbox.errors import DatasetError

_PIECE = 1 << 16
"""Characters converted at once: their arrays fit the processor's cache."""
_WORDS = 60
"""Characters of the first words of a passage."""


class Place(NamedTuple):
    """A place in the text."""

    document: str
    line: int
    """Counted from 1."""


@dataclass
class Occurrences:
    """How often a character occurs, and where it does first."""

    count: int
    first: Place


class SqueezedText:
    """Removes the white space from a corpus, and finds its odd characters, while `corpus` is read once."""

    def __init__(self, corpus: Corpus, num_train: int, file: BinaryIO) -> None:
        """The symbols go to `file`, empty and open for writing and reading; no other use may be made of it.

        `num_train` is the length of the training split in characters.
        """
        self.corpus = replace(corpus, documents=self._documents)
        """The same corpus, to be read once and to its end. Raises OSError, too, if the file cannot be written."""
        self.odd: dict[str, Occurrences] = {}
        """The odd characters read so far, in order of first occurrence."""
        self._source, self._file = corpus, file
        alphabet = corpus.summary.alphabet
        points = np.array([ord(character) for character in alphabet], np.int64)
        visible = points[[not character.isspace() for character in alphabet]] if alphabet else points
        self._dtype: np.dtype[np.unsignedinteger[Any]] = np.min_scalar_type(len(visible))
        # White space is the symbol 0, and so is a character that is new, for which whoever reads the corpus raises.
        self._symbols = np.zeros(int(points.max(initial=0)) + 2, self._dtype)
        self._symbols[visible] = np.arange(1, len(visible) + 1)
        self._odd_points = np.zeros(len(self._symbols), np.bool_)
        self._odd_points[[ord(character) for character in alphabet if is_odd(character)]] = True
        self._has_odd = bool(self._odd_points.any())
        self._num_train, self._num_characters = num_train, 0
        self._num_symbols, self._num_train_symbols = 0, 0
        self._ends = array("q")
        """The number of symbols up to the end of each piece."""

    def symbols(self) -> SymbolFile:
        """The symbols, once `corpus` has been read to its end. Raises OSError."""
        self._file.flush()
        return SymbolFile(self._file, self._dtype, self._num_symbols, self._num_train_symbols)

    def locate(self, *symbols: int) -> list[tuple[Place, str]]:
        """The places of symbols, in order, and the first words from there on. Reads the corpus again, up to them.

        Raises DatasetError if the text is not the same as before.
        """
        ends = np.frombuffer(self._ends, np.int64)
        places: list[Place] = []
        texts: list[str] = []  # of the places, the beginning of what follows
        number, before = 0, 0
        for document in self._source.documents():
            line, first_here = 1, len(places)
            for piece in _pieces(document.blocks):
                for i in range(first_here, len(texts)):
                    texts[i] += piece[: max(0, 4 * _WORDS - len(texts[i]))]
                end = int(ends[number]) if number < len(ends) else before
                while len(places) < len(symbols) and symbols[len(places)] < end:
                    visible = np.flatnonzero(self._convert(_code_points(piece)))
                    start = int(visible[min(symbols[len(places)] - before, len(visible) - 1)])
                    places.append(Place(document.name, line + piece.count("\n", 0, start)))
                    texts.append(piece[start : start + 4 * _WORDS])
                if len(places) == len(symbols) and all(len(text) == 4 * _WORDS for text in texts[first_here:]):
                    break
                number, before = number + 1, end
                line += piece.count("\n")
            if len(places) == len(symbols):
                return list(zip(places, map(_first_words, texts), strict=True))
        raise DatasetError(f"{self._source.source} changed while it was read. Start again once it is complete.")

    def _documents(self) -> Iterator[Document]:
        for document in self._source.documents():
            yield Document(document.name, self._watch(document))

    def _watch(self, document: Document) -> Iterator[str]:
        """The blocks of a document, whose symbols are written on the way."""
        line = 1
        for block in document.blocks:
            for piece in _pieces((block,)):
                points = _code_points(piece)
                if self._has_odd:
                    self._find_odd(points, piece, document.name, line)
                self._write(self._convert(points))
                line += piece.count("\n")
            yield block

    def _convert(self, points: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.unsignedinteger[Any]]:
        return self._symbols.take(points, mode="clip")

    def _write(self, symbols: NDArray[np.unsignedinteger[Any]]) -> None:
        visible = symbols != 0
        train = min(len(symbols), max(0, self._num_train - self._num_characters))
        self._num_characters += len(symbols)
        self._num_train_symbols += int(np.count_nonzero(visible[:train]))
        kept = symbols[visible]
        self._file.write(kept.tobytes())
        self._num_symbols += len(kept)
        self._ends.append(self._num_symbols)

    def _find_odd(self, points: NDArray[np.unsignedinteger[Any]], piece: str, document: str, line: int) -> None:
        positions = np.flatnonzero(self._odd_points.take(points, mode="clip"))
        if not len(positions):
            return
        found, first, counts = np.unique(points[positions], return_index=True, return_counts=True)
        for i in np.argsort(first):
            character = chr(found[i])
            if character in self.odd:
                self.odd[character].count += int(counts[i])
            else:
                place = Place(document, line + piece.count("\n", 0, int(positions[first[i]])))
                self.odd[character] = Occurrences(int(counts[i]), place)


def _pieces(blocks: Iterable[str]) -> Iterator[str]:
    for block in blocks:
        for start in range(0, len(block), _PIECE):
            yield block[start : start + _PIECE]


def _code_points(text: str) -> NDArray[np.unsignedinteger[Any]]:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _first_words(text: str) -> str:
    """The first words of a text, on one line and without control characters."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    if len(line) <= _WORDS:
        return line
    return (line[: _WORDS + 1].rpartition(" ")[0] or line[:_WORDS]) + " …"
