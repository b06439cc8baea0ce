"""The user's .txt files: joined, normalised, or rejected with a helpful message."""

import os
from pathlib import Path

import pytest
from tests.datasets.conftest import not_root

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


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-32", "UTF-16-BE", "UTF-32-BE"])
def test_other_unicode_encodings_are_converted_by_their_mark(folder: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("BE") else ""
    (folder / "a.txt").write_bytes(f"{mark}Schöne Grüße 🐎\r\n".encode(encoding))
    text, notes = read(folder)
    assert text == "Schöne Grüße 🐎\n"
    assert notes[0] == f"a.txt: {encoding[:6]}, by its byte order mark, was converted to UTF-8."


def test_another_encoding_is_guessed_and_said(folder: Path) -> None:
    text = "Schöne Grüße aus der Küche: Äpfel, Öl und süße Brötchen für fünf Gäste.\n" * 2
    (folder / "a.txt").write_bytes(text.encode("cp1252"))
    assert read(folder) == (
        text,
        (
            "a.txt: WINDOWS-1252, by a guess of 92 % confidence, was converted to UTF-8. If the text looks wrong, "
            "convert the file yourself.",
        ),
    )


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
    for name in ("a.txt", "README.md", ".DS_Store", "._a.txt", "b.docx", "c.tar"):
        (folder / name).write_text("x")
    (folder / "more").mkdir()
    (folder / "more" / "pic\ture.png").touch()
    text, notes = read(folder)
    assert text == "x"
    kinds = ".txt, .md and .jsonl files, also as .gz or .zip"
    assert notes == (f"Not used, because they are of other kinds than {kinds}: b.docx, c.tar, more/pic\\ture.png.",)


def test_sub_folders_are_read_in_the_order_of_their_paths(folder: Path) -> None:
    for path in ("b.txt", "a/2.txt", "a/1/z.md", "c.txt/d.txt", ".git/e.txt", "a/.f.txt", "a/README.md"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    text, notes = read(folder)
    assert text.split("\n") == ["a/1/z.md", "a/2.txt", "a/README.md", "b.txt", "c.txt/d.txt"]
    assert notes == ()


def test_files_in_sub_folders_are_named_by_their_path(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "b.txt").write_bytes(b"one\r\n")
    corpus = TextFolder("letters").read(folder.parent)
    assert corpus.notes == ("a/b.txt: 1 Windows line endings (CR LF) became LF.",)
    assert [document.name for document in corpus.documents()] == ["a/b.txt"]
    assert [stat.name for stat in TextFolder("letters").user_files(folder.parent)] == ["a/b.txt"]


def test_notes_about_many_files_are_limited(folder: Path) -> None:
    for i in range(30):
        (folder / f"{i:02}.txt").write_bytes(b"one\r\n")
    notes = read(folder)[1]
    assert len(notes) == 21
    assert notes[-1] == "10 more notes of this kind are left out."


class TestLinks:
    @pytest.fixture(autouse=True)
    def _outside(self, folder: Path) -> None:
        (folder / "a.txt").write_text("a\n")
        (folder.parent / "outside").mkdir()
        (folder.parent / "outside" / "b.txt").write_text("b\n")

    @pytest.mark.parametrize("target", ["a.txt", "../outside/b.txt"])
    def test_one_to_a_file_is_read(self, folder: Path, target: str) -> None:
        (folder / "b.txt").symlink_to(target)
        assert read(folder)[0] == "a\n" + (folder / target).read_text()

    @pytest.mark.parametrize("target", ["..", "../../outside"])
    def test_one_to_a_folder_is_not_followed(self, folder: Path, target: str) -> None:
        (folder / "more").mkdir()
        (folder / "more" / "link").symlink_to(target)
        text, notes = read(folder)
        assert text == "a\n"
        assert "more/link" in notes[0]

    def test_the_datasets_folder_itself_may_be_a_link(self, folder: Path) -> None:
        (folder.parent / "linked").symlink_to("outside")
        assert TextFolder("linked").read(folder.parent).text == "b\n"

    def test_a_circle_is_an_error(self, folder: Path) -> None:
        (folder / "b.txt").symlink_to("c.txt")
        (folder / "c.txt").symlink_to("b.txt")
        with pytest.raises(DatasetError, match=r"b\.txt cannot be read: Too many levels of symbolic links"):
            read(folder)


def test_a_folder_without_texts_and_a_missing_folder_have_different_errors(folder: Path) -> None:
    with pytest.raises(DatasetError, match="letters: it has no file of a supported kind"):
        read(folder)
    with pytest.raises(DatasetError, match="elsewhere: there is no such folder"):
        read(folder.parent / "elsewhere")


def test_a_broken_link_is_an_error(folder: Path) -> None:
    (folder / "a.txt").write_text("x")
    (folder / "b.txt").symlink_to("gone.txt")
    with pytest.raises(DatasetError, match=r"b\.txt cannot be read: No such file or directory"):
        read(folder)


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
