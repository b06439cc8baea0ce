"""The datasets. To add one, add a file here and a line to DATASETS; a folder of .txt files needs neither."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gptbox.datasets.base import Corpus, Dataset
from gptbox.datasets.plays import Plays
from gptbox.datasets.text_folder import TextFolder, dataset_folder, text_files
from gptbox.datasets.tiny_shakespeare import TinyShakespeare
from gptbox.errors import DatasetError

DATASETS: dict[str, Callable[[], Dataset]] = {
    "shakespeare_char": TinyShakespeare,
    "plays": Plays,
}

__all__ = ["DATASETS", "Corpus", "Dataset", "dataset_names", "find_dataset"]


def dataset_names(data: Path) -> list[str]:
    """All datasets: the built-in ones, then the folders of `data` that contain a .txt file."""
    user_folders = []
    with suppress(OSError):
        for folder in sorted(data.iterdir()):
            with suppress(DatasetError):
                if folder.name not in DATASETS and folder.name[0] != "." and text_files(folder):
                    user_folders.append(folder.name)
    return [*DATASETS, *user_folders]


def find_dataset(name: str, data: Path) -> Dataset:
    """The built-in dataset of that name, or the folder `data/NAME` of the user's .txt files.

    Raises DatasetError, which names the folder, the existing datasets and how to add one.
    """
    if name in DATASETS:
        return DATASETS[name]()
    folder = dataset_folder(data, name)
    if text_files(folder):
        return TextFolder(name)
    problem = "has no .txt file" if folder.is_dir() else "does not exist"
    raise DatasetError(
        f"There is no dataset {name!r}: the folder {folder} {problem}. There are: {', '.join(dataset_names(data))}. "
        f"To add one, put your text as .txt files, in UTF-8, into {folder}."
    )
