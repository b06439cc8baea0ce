"""The name tells how a file is read."""

import pytest

from gptbox.datasets.text_form import TextForm, is_archive, printable_name


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.txt", TextForm("text")),
        ("A.TXT", TextForm("text")),
        ("notes.v2.md", TextForm("text")),
        ("a.jsonl", TextForm("json_lines")),
        ("a.zip", TextForm("zip")),
        ("a.txt.gz", TextForm("text", True)),
        ("a.md.GZ", TextForm("text", True)),
        ("a.jsonl.gz", TextForm("json_lines", True)),
        ("letters.gz", TextForm("text", True)),
        ("a.zip.gz", TextForm("nested", True)),
        ("a.tar.gz", TextForm("nested", True)),
        ("a.tgz", TextForm("nested", True)),
        ("a.txt.gz.gz", TextForm("nested", True)),
        ("a.csv.gz", None),
        ("a.tar", None),
        ("a.pdf", None),
        ("letters", None),
        (".txt", None),
        ("", None),
    ],
)
def test_forms(name: str, form: TextForm | None) -> None:
    assert TextForm.of(name) == form


def test_archives() -> None:
    assert is_archive("A.Tar")
    assert is_archive("a.tgz")
    assert not is_archive("a.txt")


def test_a_printable_name_is_one_line_of_valid_unicode() -> None:
    assert printable_name("süß 日本.txt") == "süß 日本.txt"
    assert printable_name("a\nb\x1b[31m\udcff.txt") == "a\\nb\\x1b[31m\\udcff.txt"
