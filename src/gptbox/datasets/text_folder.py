"""The user's own text: the .txt files of a folder, as one corpus."""

import re
from dataclasses import replace
from pathlib import Path

from gptbox.datasets.base import Corpus, Dataset
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_file import read_files
from gptbox.errors import DatasetError


def dataset_folder(data: Path, name: str) -> Path:
    """The folder of the dataset `name`, whether it exists or not.

    Raises DatasetError if `name` is not a plain folder name: nothing outside `data` is ever read.
    """
    if not name or name.startswith(".") or re.search(r"[/\\\x00-\x1f]", name):
        raise DatasetError(f"{name!r} cannot name a dataset: it must be the name of a folder in {data}.")
    return data / name


def text_files(folder: Path) -> list[Path]:
    """The .txt files of a folder, sorted by name, without hidden files; [] if there is no folder.

    Raises DatasetError if the folder cannot be read.
    """
    try:
        if not folder.is_dir():
            return []
        files = [path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.name[0] != "."]
        # A broken link is kept, so that reading it reports an error; folders and pipes named .txt are not texts.
        return sorted(path for path in files if path.is_file() or path.is_symlink())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}.") from None


class TextFolder(Dataset):
    """`data/NAME/*.txt`, sorted by name, each starting on a new line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        folder = dataset_folder(data, self.name)
        files = text_files(folder)
        if not files:
            problem = "there is no such folder" if not folder.is_dir() else "it has no .txt file"
            raise DatasetError(f"No text in {folder}: {problem}. Put one or more .txt files there, in UTF-8.")
        count = "1 file" if len(files) == 1 else f"{len(files):,} files"
        corpus = read_files(self.name, files, f"the text {self.name} ({count})", on_progress)
        if unused := self._unused(folder, files):
            note = f"Not used, because they are not .txt files: {', '.join(unused)}."
            corpus = replace(corpus, notes=(*corpus.notes, note))
        return corpus

    def user_files(self, data: Path) -> list[Path]:
        return text_files(dataset_folder(data, self.name))

    def read_user_files(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus | None:
        return self.read(data, on_progress) if self.user_files(data) else None

    @staticmethod
    def _unused(folder: Path, files: list[Path]) -> list[str]:
        """The other contents of the folder, except hidden files and README.md, which belong there."""
        others = [path for path in sorted(folder.iterdir()) if path not in files]
        return [path.name for path in others if path.name[0] != "." and path.name.lower() != "readme.md"]
