"""Your own text: every .txt file of a folder, as one text."""

import codecs
import re
from pathlib import Path

from gptbox.datasets.base import Dataset, Text
from gptbox.errors import DatasetError

# The longer marks first: UTF-32's begins with UTF-16's.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_NUL_LIMIT = 1000  # one NUL in so many bytes: no text has that, but pictures, archives and unmarked UTF-16 do


def dataset_folder(data: Path, name: str) -> Path:
    """The folder of the dataset `name`, whether it is there or not.

    Raises DatasetError where `name` is not a plain folder name: nothing outside `data` is ever read.
    """
    if not name or name.startswith(".") or re.search(r"[/\\\x00-\x1f]", name):
        raise DatasetError(f"{name!r} cannot name a dataset: it must be the name of a folder in {data}.")
    return data / name


def text_files(folder: Path) -> list[Path]:
    """The folder's .txt files in the order of their names; hidden files are not among them. [] without a folder."""
    try:
        if not folder.is_dir():
            return []
        files = [path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.name[0] != "."]
        # A broken link is kept, to be reported when it is read; a folder or a pipe of such a name is not a text.
        return sorted(path for path in files if path.is_file() or path.is_symlink())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}.") from None


def read_text_file(path: Path) -> tuple[str, list[str]]:
    """A UTF-8 file's text, and a sentence for each thing that was normalised in it.

    A byte order mark is dropped; CR LF and a lone CR become LF. Raises DatasetError naming the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None
    for mark, encoding in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise DatasetError(
                f"{path} is {encoding}, not UTF-8. Convert it: iconv -f {encoding} -t UTF-8 {path.name} > new.txt"
            )
    if content.count(0) * _NUL_LIMIT > len(content):
        raise DatasetError(
            f"{path} looks like a binary file: {content.count(0):,} of its {len(content):,} bytes are NUL. "
            "Save the text alone, as UTF-8, or take the file away."
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not UTF-8: the byte 0x{content[error.start]:02x} at offset {error.start} (counted from 0) "
            f"fits no character. Convert it: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > new.txt"
        ) from None
    notes = []
    if text.startswith("\ufeff"):
        text = text[1:]
        notes.append(f"{path.name}: the byte order mark at the beginning was dropped.")
    if windows := text.count("\r\n"):
        text = text.replace("\r\n", "\n")
        notes.append(f"{path.name}: {windows:,} line ends of Windows (CR LF) became LF.")
    if returns := text.count("\r"):
        text = text.replace("\r", "\n")
        notes.append(f"{path.name}: {returns:,} lone carriage returns (CR) became LF.")
    if not text.strip():
        raise DatasetError(f"{path} is empty: it has no character but white space. Put text into it or take it away.")
    return text, notes


class TextFolder(Dataset):
    """`data/NAME/*.txt` in the order of their names, each beginning on a new line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, data: Path) -> Text:
        folder = dataset_folder(data, self.name)
        files = text_files(folder)
        if not files:
            missing = "there is no such folder" if not folder.is_dir() else "it has no .txt file"
            raise DatasetError(f"No text in {folder}: {missing}. Put one or more .txt files there, in UTF-8.")
        texts, notes = [], []
        for file in files:
            text, normalised = read_text_file(file)
            texts.append(text)
            notes += normalised
        whole = "".join(text if text.endswith("\n") else text + "\n" for text in texts[:-1]) + texts[-1]
        if others := self._others(folder, files):
            notes.append(f"Not used, because only .txt files are: {', '.join(others)}.")
        count = "1 file" if len(files) == 1 else f"{len(files):,} files"
        return Text(whole, f"the text {self.name} ({count})", tuple(notes))

    def own_text(self, data: Path) -> Text | None:
        return self.read(data) if text_files(dataset_folder(data, self.name)) else None

    @staticmethod
    def _others(folder: Path, files: list[Path]) -> list[str]:
        """What else lies in the folder; hidden files and README.md are nobody's mistake."""
        left = [path for path in sorted(folder.iterdir()) if path not in files]
        return [path.name for path in left if path.name[0] != "." and path.name.lower() != "readme.md"]
