"""The forms in which a file holds texts, by its name: plain text, JSON Lines, either of them in a .gz, or a .zip."""

from pathlib import PurePosixPath
from typing import Literal, NamedTuple, Self

TEXT_SUFFIXES = (".txt", ".md")
JSON_LINES_SUFFIX = ".jsonl"
SUPPORTED = ".txt, .md and .jsonl files, also as .gz or .zip"
"""For messages."""

_ARCHIVE_SUFFIXES = (".7z", ".bz2", ".gz", ".lz4", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst")


class TextForm(NamedTuple):
    """How to read a file."""

    kind: Literal["text", "json_lines", "zip", "nested"]
    """`nested` is an archive in a .gz, such as .tar.gz, which is not read."""
    is_gzipped: bool = False

    @classmethod
    def of(cls, name: str) -> Self | None:
        """The form of a file, by its name in any case; None if the file holds no text that gptbox reads."""
        path = PurePosixPath(name.lower())
        if path.suffix in TEXT_SUFFIXES:
            return cls("text")
        if path.suffix == JSON_LINES_SUFFIX:
            return cls("json_lines")
        if path.suffix == ".zip":
            return cls("zip")
        if path.suffix == ".tgz":
            return cls("nested", True)
        if path.suffix == ".gz":
            if is_archive(path.stem):
                return cls("nested", True)
            inner = cls.of(path.stem) if PurePosixPath(path.stem).suffix else cls("text")
            return cls(inner.kind, True) if inner else None
        return None


def is_archive(name: str) -> bool:
    """Whether a file is an archive or compressed, by its name."""
    return name.lower().endswith(_ARCHIVE_SUFFIXES)


def printable_name(name: str) -> str:
    """A file's name for messages and JSON: line breaks, control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
