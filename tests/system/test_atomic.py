"""Files and folders are complete or absent, whatever goes wrong."""

import json
from pathlib import Path

import pytest

from gptbox.system.atomic import atomic_file, atomic_folder, replace_symlink, temporary_beside, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Interruption(BaseException):
    """An exception like KeyboardInterrupt."""


def test_temporary_names_are_hidden_and_unique(tmp_path: Path) -> None:
    first, second = temporary_beside(tmp_path / "a.json"), temporary_beside(tmp_path / "a.json")
    assert first.parent == second.parent == tmp_path
    assert first.name.startswith(".a.json.")
    assert first.name.endswith(".tmp")
    assert first != second


class TestFile:
    def test_it_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        with atomic_file(tmp_path / "a") as temporary:
            temporary.write_text("new")
            assert not (tmp_path / "a").exists()
        assert (tmp_path / "a").read_text() == "new"
        assert names(tmp_path) == ["a"]

    @pytest.mark.parametrize("fault", [ValueError, Interruption])
    def test_the_old_content_stays_when_the_block_fails(self, tmp_path: Path, fault: type[BaseException]) -> None:
        (tmp_path / "a").write_text("old")

        def fails() -> None:
            with atomic_file(tmp_path / "a") as temporary:
                temporary.write_text("half")
                raise fault

        with pytest.raises(fault):
            fails()
        assert (tmp_path / "a").read_text() == "old"
        assert names(tmp_path) == ["a"]

    def test_a_reader_that_has_the_old_file_open_keeps_it_whole(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("old")
        with (tmp_path / "a").open() as reader:
            with atomic_file(tmp_path / "a") as temporary:
                temporary.write_text("new")
            assert reader.read() == "old"
        assert (tmp_path / "a").read_text() == "new"

    def test_a_folder_in_its_place_is_an_error_and_stays(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with pytest.raises(IsADirectoryError), atomic_file(tmp_path / "a") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "a").is_dir()
        assert names(tmp_path) == ["a"]


class TestFolder:
    def test_it_appears_whole_when_the_block_ends(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "deep" / "a") as temporary:
            (temporary / "one").write_text("1")
            assert not (tmp_path / "deep" / "a").exists()
            (temporary / "two").write_text("2")
        assert names(tmp_path / "deep") == ["a"]
        assert names(tmp_path / "deep" / "a") == ["one", "two"]

    @pytest.mark.parametrize("fault", [ValueError, Interruption])
    def test_nothing_is_left_when_the_block_fails(self, tmp_path: Path, fault: type[BaseException]) -> None:
        def fails() -> None:
            with atomic_folder(tmp_path / "a") as temporary:
                (temporary / "one").write_text("1")
                raise fault

        with pytest.raises(fault):
            fails()
        assert names(tmp_path) == []

    def test_an_existing_folder_is_never_mixed_with_a_new_one(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "a") as temporary:
            (temporary / "old").write_text("1")
        with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "a") as temporary:
            (temporary / "new").write_text("2")
        assert names(tmp_path) == ["a"]
        assert names(tmp_path / "a") == ["old"]


class TestJson:
    def test_it_is_utf8_without_escapes(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"text": "Grüße 🐎", "none": None})
        content = (tmp_path / "a.json").read_bytes().decode("utf-8")
        assert json.loads(content) == {"text": "Grüße 🐎", "none": None}
        assert "Grüße 🐎" in content
        assert content.endswith("}\n")

    @pytest.mark.parametrize("content", [float("nan"), float("inf"), {"a": object()}, "\ud800"])
    def test_a_value_that_json_lacks_leaves_the_old_file(self, tmp_path: Path, content: object) -> None:
        write_json(tmp_path / "a.json", 1)
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", content)
        assert (tmp_path / "a.json").read_text() == "1\n"
        assert names(tmp_path) == ["a.json"]


class TestSymlink:
    def test_it_is_created_and_replaced(self, tmp_path: Path) -> None:
        for target in ("one", "two"):
            (tmp_path / target).mkdir()
            replace_symlink(tmp_path / "link", target)
            assert (tmp_path / "link").readlink() == Path(target)
            assert (tmp_path / "link").resolve() == tmp_path / target
        assert names(tmp_path) == ["link", "one", "two"]

    def test_a_broken_link_is_replaced_too(self, tmp_path: Path) -> None:
        replace_symlink(tmp_path / "link", "gone")
        replace_symlink(tmp_path / "link", "gone too")
        assert (tmp_path / "link").readlink() == Path("gone too")

    def test_a_folder_in_its_place_is_an_error_and_stays(self, tmp_path: Path) -> None:
        (tmp_path / "link").mkdir()
        with pytest.raises(IsADirectoryError):
            replace_symlink(tmp_path / "link", "one")
        assert names(tmp_path) == ["link"]
