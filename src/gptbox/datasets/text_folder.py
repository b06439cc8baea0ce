"""The user's own text: the files of a folder and its sub-folders, as one corpus."""

import os
import re
from dataclasses import replace
from pathlib import Path

from gptbox.datasets.base import Corpus, Dataset, FileStat
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_file import read_files, stat_files
from gptbox.datasets.text_form import SUPPORTED, TextForm, printable_name
from gptbox.errors import DatasetError

_MAX_UNUSED = 10  # files named in a note


def dataset_folder(data: Path, name: str) -> Path:
    """The folder of the dataset `name`, whether it exists or not.

    Raises DatasetError if `name` is not a plain folder name: nothing outside `data` is ever read.
    """
    if not name or name.startswith(".") or re.search(r"[/\\\x00-\x1f]", name):
        raise DatasetError(f"{name!r} cannot name a dataset: it must be the name of a folder in {data}.")
    return data / name


def text_files(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders that hold text, sorted by path; [] if there is no folder.

    Hidden files and folders are passed over, and so are README.md in the folder itself and links to folders. Raises
    DatasetError if a folder cannot be read.
    """
    return _list(folder)[0]


def _list(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of `text_files`, and the others, except hidden ones and README.md."""
    texts: list[Path] = []
    others: list[Path] = []
    pending = [folder]
    try:
        if not folder.is_dir():
            return [], []
        while pending:
            for path in pending.pop().iterdir():
                if path.name[0] == "." or (path.parent == folder and path.name.lower() == "readme.md"):
                    continue
                is_text = TextForm.of(path.name) is not None
                if path.is_dir() and not path.is_symlink():  # a link may lead to a folder around it
                    pending.append(path)
                # A broken link is kept, so that reading it reports an error; pipes named .txt are not texts.
                elif is_text and (path.is_file() or (path.is_symlink() and not path.exists())):
                    texts.append(path)
                else:
                    others.append(path)
    except OSError as error:
        place = error.filename or folder
        raise DatasetError(f"{printable_name(os.fspath(place))} cannot be read: {error.strerror}.") from None
    return sorted(texts), sorted(others)


class TextFolder(Dataset):
    """The files in `data/NAME`, sorted by path; each of their documents starts on a new line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        folder = dataset_folder(data, self.name)
        files, others = _list(folder)
        if not files:
            problem = "there is no such folder" if not folder.is_dir() else "it has no file of a supported kind"
            raise DatasetError(f"No text in {folder}: {problem}. Put your text there as {SUPPORTED}.")
        count = "1 file" if len(files) == 1 else f"{len(files):,} files"
        corpus = read_files(self.name, files, f"the text {self.name} ({count})", on_progress, folder)
        if not others:
            return corpus
        names = [printable_name(path.relative_to(folder).as_posix()) for path in others]
        more = f" and {len(names) - _MAX_UNUSED:,} more" if len(names) > _MAX_UNUSED else ""
        note = f"Not used, because they are of other kinds than {SUPPORTED}: {', '.join(names[:_MAX_UNUSED])}{more}."
        return replace(corpus, notes=(*corpus.notes, note))

    def user_files(self, data: Path) -> tuple[FileStat, ...]:
        folder = dataset_folder(data, self.name)
        return stat_files(text_files(folder), folder)

    def read_user_files(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus | None:
        return self.read(data, on_progress) if text_files(dataset_folder(data, self.name)) else None
