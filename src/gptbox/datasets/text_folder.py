"""Your own text: every .txt file of a folder, as one text."""

import re
from dataclasses import replace
from pathlib import Path

from gptbox.datasets.base import Dataset, Text
from gptbox.datasets.progress import Watch, silent
from gptbox.datasets.text_file import read_files
from gptbox.errors import DatasetError


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


class TextFolder(Dataset):
    """`data/NAME/*.txt` in the order of their names, each beginning on a new line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, data: Path, watch: Watch = silent) -> Text:
        folder = dataset_folder(data, self.name)
        files = text_files(folder)
        if not files:
            missing = "there is no such folder" if not folder.is_dir() else "it has no .txt file"
            raise DatasetError(f"No text in {folder}: {missing}. Put one or more .txt files there, in UTF-8.")
        count = "1 file" if len(files) == 1 else f"{len(files):,} files"
        text = read_files(self.name, files, f"the text {self.name} ({count})", watch)
        if others := self._others(folder, files):
            note = f"Not used, because only .txt files are: {', '.join(others)}."
            text = replace(text, notes=(*text.notes, note))
        return text

    def own_files(self, data: Path) -> list[Path]:
        return text_files(dataset_folder(data, self.name))

    def own_text(self, data: Path, watch: Watch = silent) -> Text | None:
        return self.read(data, watch) if self.own_files(data) else None

    @staticmethod
    def _others(folder: Path, files: list[Path]) -> list[str]:
        """What else lies in the folder; hidden files and README.md are nobody's mistake."""
        left = [path for path in sorted(folder.iterdir()) if path not in files]
        return [path.name for path in left if path.name[0] != "." and path.name.lower() != "readme.md"]
