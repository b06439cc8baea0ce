"""Datasets by name: the built-in ones and the user's folders."""

from pathlib import Path

import pytest

from gptbox.datasets import DATASETS, dataset_names, find_dataset
from gptbox.datasets.text_folder import TextFolder
from gptbox.errors import DatasetError


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_built_in_dataset_knows_its_name(name: str, tmp_path: Path) -> None:
    assert find_dataset(name, tmp_path).name == name


def test_a_folder_with_a_text_is_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("x")
    dataset = find_dataset("letters", tmp_path)
    assert isinstance(dataset, TextFolder)
    assert dataset.name == "letters"


def test_the_error_lists_the_datasets_and_how_to_add_one(tmp_path: Path) -> None:
    for name in ("letters", "diaries", ".hidden", "plays"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("x")
    (tmp_path / "without").mkdir()
    assert dataset_names(tmp_path) == [*DATASETS, "diaries", "letters"]
    with pytest.raises(DatasetError) as error:
        find_dataset("lettres", tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'lettres'} does not exist" in message
    assert f"There are: {', '.join(DATASETS)}, diaries, letters." in message
    assert f"put your text into {tmp_path / 'lettres'}, as .txt, .md and .jsonl files, also as .gz or .zip." in message
    with pytest.raises(DatasetError, match="without has no text"):
        find_dataset("without", tmp_path)


def test_without_a_data_folder_the_built_in_datasets_remain(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There are: shakespeare_char, plays"):
        find_dataset("letters", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../letters", "letters/..", "/etc", "..", ""])
def test_a_name_cannot_escape(name: str, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("x")
    with pytest.raises(DatasetError, match="cannot name a dataset"):
        find_dataset(name, tmp_path / "data")
