"""The datasets. A new one is a file beside these and a line in DATASETS; a folder of .txt files needs neither."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gptbox.datasets.base import Dataset, Text
from gptbox.datasets.plays import Plays
from gptbox.datasets.text_folder import TextFolder, dataset_folder, text_files
from gptbox.datasets.tiny_shakespeare import TinyShakespeare
from gptbox.errors import DatasetError

DATASETS: dict[str, Callable[[], Dataset]] = {
    "shakespeare_char": TinyShakespeare,
    "plays": Plays,
}

__all__ = ["DATASETS", "Dataset", "Text", "dataset_names", "find_dataset"]


def dataset_names(data: Path) -> list[str]:
    """The datasets there are: the built-in ones, then the folders of `data` with a .txt file in them."""
    own = []
    with suppress(OSError):
        for folder in sorted(data.iterdir()):
            with suppress(DatasetError):
                if folder.name not in DATASETS and folder.name[0] != "." and text_files(folder):
                    own.append(folder.name)
    return [*DATASETS, *own]


def find_dataset(name: str, data: Path) -> Dataset:
    """The built-in dataset of that name, or the folder `data/NAME` of your own .txt files.

    Raises DatasetError naming the folder looked at, the datasets there are, and how to add one.
    """
    if name in DATASETS:
        return DATASETS[name]()
    folder = dataset_folder(data, name)
    if text_files(folder):
        return TextFolder(name)
    missing = "has no .txt file" if folder.is_dir() else "does not exist"
    raise DatasetError(
        f"There is no dataset {name!r}: the folder {folder} {missing}. There are: {', '.join(dataset_names(data))}. "
        f"To add one, put your text as .txt files, in UTF-8, into {folder}."
    )
