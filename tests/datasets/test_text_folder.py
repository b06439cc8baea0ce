"""The user's .txt files: joined, normalised, or rejected with a helpful message."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gptbox.datasets.text_folder import TextFolder, text_files
from gptbox.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "letters"
    folder.mkdir()
    return folder


def read(folder: Path) -> tuple[str, tuple[str, ...]]:
    corpus = TextFolder(folder.name).read(folder.parent)
    return corpus.text, corpus.notes


def test_files_are_joined_in_the_order_of_their_names(folder: Path) -> None:
    (folder / "b.txt").write_text("second\n")
    (folder / "a.txt").write_text("first\n")
    (folder / "C.TXT").write_text("capitals come first\n")
    assert read(folder) == ("capitals come first\nfirst\nsecond\n", ())


def test_each_file_starts_on_a_new_line_and_the_end_is_unchanged(folder: Path) -> None:
    (folder / "a.txt").write_text("no line end")
    (folder / "b.txt").write_text("one\n")
    (folder / "c.txt").write_text("none again")
    assert read(folder)[0] == "no line end\none\nnone again"


def test_the_source_counts_the_files(folder: Path) -> None:
    (folder / "a.txt").write_text("x")
    assert TextFolder("letters").read(folder.parent).source == "the text letters (1 file)"
    (folder / "b.txt").write_text("y")
    assert TextFolder("letters").read(folder.parent).source == "the text letters (2 files)"


def test_text_is_utf8_whatever_the_locale(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    (folder / "a.txt").write_bytes("Žluťoučký kůň 🐎 日本\n".encode())
    assert read(folder)[0] == "Žluťoučký kůň 🐎 日本\n"


@pytest.mark.parametrize(
    ("content", "text", "note"),
    [
        (b"\xef\xbb\xbfmark", "mark", "a.txt: the byte order mark at the beginning was dropped."),
        (b"one\r\ntwo\r\n", "one\ntwo\n", "a.txt: 2 Windows line endings (CR LF) became LF."),
        (b"one\rtwo", "one\ntwo", "a.txt: 1 lone carriage returns (CR) became LF."),
    ],
)
def test_normalisations_are_noted(folder: Path, content: bytes, text: str, note: str) -> None:
    (folder / "a.txt").write_bytes(content)
    assert read(folder) == (text, (note,))


def test_mixed_line_endings_keep_their_number(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"a\r\r\nb\n\rc\x0bd\xe2\x80\xa8e")
    assert read(folder)[0] == "a\n\nb\n\nc\x0bd\u2028e"


def test_a_byte_order_mark_is_dropped_only_at_the_beginning_of_each_file(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfa\xef\xbb\xbfa\n")
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbfb\n")
    assert read(folder)[0] == "a\ufeffa\nb\n"


@pytest.mark.parametrize(
    ("content", "byte", "offset"),
    [
        (b"caf\xe9 au lait", "0xe9", 3),
        (b"\xef\xbb\xbfab\xff", "0xff", 5),  # counted from the beginning of the file, including the mark
        (b"cut short \xe2\x82", "0xe2", 10),
        (b"overlong \xc0\xaf", "0xc0", 9),
        (b"surrogate \xed\xa0\x80", "0xed", 10),
    ],
)
def test_an_invalid_byte_is_named_with_offset_and_fix(folder: Path, content: bytes, byte: str, offset: int) -> None:
    (folder / "good.txt").write_text("good")
    (folder / "letter.txt").write_bytes(content)
    with pytest.raises(DatasetError) as error:
        read(folder)
    message = str(error.value)
    assert str(folder / "letter.txt") in message
    assert byte in message
    assert f"offset {offset} " in message
    assert "iconv -f WINDOWS-1252 -t UTF-8" in message
    assert "\n" not in message


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-32"])
def test_other_unicode_encodings_are_recognised(folder: Path, encoding: str) -> None:
    (folder / "a.txt").write_bytes("Schöne Grüße".encode(encoding))
    with pytest.raises(DatasetError, match=rf"a\.txt is {encoding}, not UTF-8.*iconv -f {encoding}"):
        read(folder)


def test_binary_files_and_utf16_without_a_mark_are_rejected(folder: Path) -> None:
    (folder / "a.txt").write_bytes("plain letters".encode("utf-16-le"))
    with pytest.raises(DatasetError, match=r"a\.txt looks like a binary file: 13 of its 26 bytes are NUL"):
        read(folder)


def test_a_stray_nul_is_kept(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"x" * 1500 + b"\0")
    assert read(folder)[0].endswith("x\0")


@pytest.mark.parametrize("content", [b"", b" \t\r\n\n", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_rejected_by_name(folder: Path, content: bytes) -> None:
    (folder / "full.txt").write_text("full")
    (folder / "void.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=r"void\.txt is empty"):
        read(folder)


def test_a_note_names_other_files_except_readme_and_hidden_ones(folder: Path) -> None:
    for name in ("a.txt", "README.md", ".DS_Store", "._a.txt", "b.docx"):
        (folder / name).write_text("x")
    (folder / "more").mkdir()
    (folder / "folder.txt").mkdir()
    text, notes = read(folder)
    assert text == "x"
    assert notes == ("Not used, because they are not .txt files: b.docx, folder.txt, more.",)


def test_a_folder_without_texts_and_a_missing_folder_have_different_errors(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"letters: it has no \.txt file"):
        read(folder)
    with pytest.raises(DatasetError, match="elsewhere: there is no such folder"):
        read(folder.parent / "elsewhere")


def test_a_broken_link_is_an_error(folder: Path) -> None:
    (folder / "a.txt").write_text("x")
    (folder / "b.txt").symlink_to("gone.txt")
    with pytest.raises(DatasetError, match=r"b\.txt cannot be read: No such file or directory"):
        read(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can access, unlike pytest's own."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "letters"
        folder.mkdir()
        folder.parent.chmod(0o755)
        yield folder


@contextmanager
def not_root() -> Iterator[None]:
    """Run as another user, because root may read every file."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_without_permission_is_named(open_folder: Path) -> None:
    (open_folder / "a.txt").write_text("x")
    (open_folder / "a.txt").chmod(0)
    with not_root(), pytest.raises(DatasetError, match=r"a\.txt cannot be read: Permission denied"):
        read(open_folder)


def test_a_folder_without_permission_is_named(open_folder: Path) -> None:
    open_folder.chmod(0)
    with not_root(), pytest.raises(DatasetError, match=r"letters cannot be read: Permission denied"):
        read(open_folder)


def test_a_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "a.txt")
    assert text_files(folder) == []


@pytest.mark.parametrize("name", ["../letters", "..", ".", "", "a/b", "/etc", "a\\b", ".hidden", "a\0b", "a\nb"])
def test_no_name_leads_out_of_the_data_folder(folder: Path, name: str) -> None:
    (folder / "a.txt").write_text("secret")
    with pytest.raises(DatasetError, match="cannot name a dataset"):
        TextFolder(name).read(folder / "data")


def test_there_is_no_corpus_once_the_files_are_gone(folder: Path) -> None:
    (folder / "a.txt").write_text("x")
    assert TextFolder("letters").read_user_files(folder.parent) == TextFolder("letters").read(folder.parent)
    (folder / "a.txt").unlink()
    assert TextFolder("letters").read_user_files(folder.parent) is None
    folder.rmdir()
    assert TextFolder("letters").read_user_files(folder.parent) is None
