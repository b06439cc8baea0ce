"""The datasets. To add one, add a file here and a line to DATASETS; a folder of texts needs neither."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gptbox.datasets.base import Corpus, Dataset
from gptbox.datasets.hub_text import HubText
from gptbox.datasets.plays import Plays
from gptbox.datasets.text_folder import TextFolder, dataset_folder, text_files
from gptbox.datasets.text_form import SUPPORTED
from gptbox.datasets.tiny_shakespeare import TinyShakespeare
from gptbox.datasets.url_text import UrlText
from gptbox.errors import DatasetError
from gptbox.settings import HUB_ADDRESS, Settings

DATASETS: dict[str, Callable[[], Dataset]] = {
    "shakespeare_char": TinyShakespeare,
    "plays": Plays,
}

__all__ = ["DATASETS", "Corpus", "Dataset", "dataset_names", "find_dataset"]


def dataset_names(data: Path) -> list[str]:
    """All datasets: the built-in ones, then the folders of `data` that contain a text."""
    user_folders = []
    with suppress(OSError):
        for folder in sorted(data.iterdir()):
            with suppress(DatasetError):
                if folder.name not in DATASETS and folder.name[0] != "." and text_files(folder):
                    user_folders.append(folder.name)
    return [*DATASETS, *user_folders]


def find_dataset(name: str, data: Path, url: str | None = None, models: Path = Settings.models) -> Dataset:
    """The text at `url`, called `name`; without an address, the built-in dataset or the folder `data/NAME` of a text.

    `models` is the folder of the runs, where a download is stored if `data` cannot be written. Raises DatasetError,
    which names the folder, the existing datasets and how to add one.
    """
    if url is not None:
        return _from_url(name, data, url, models)
    if name in DATASETS:
        return DATASETS[name]()
    folder = dataset_folder(data, name)
    if text_files(folder):
        return TextFolder(name)
    problem = "has no text" if folder.is_dir() else "does not exist"
    raise DatasetError(
        f"There is no dataset {name!r}: the folder {folder} {problem}. There are: {', '.join(dataset_names(data))}. "
        f"To add one, put your text into {folder}, as {SUPPORTED}."
    )


def _from_url(name: str, data: Path, url: str, models: Path) -> Dataset:
    """The text at an address of a scheme that Settings.dataset_url accepts."""
    if name in DATASETS:
        raise DatasetError(
            f"DATASET_URL gives a text of your own, which cannot be called {name}, like a built-in one. "
            "Set DATASET to another name, or unset DATASET_URL."
        )
    dataset_folder(data, name)  # checks the name
    return (HubText if HUB_ADDRESS.fullmatch(url) else UrlText)(name, url, models)
