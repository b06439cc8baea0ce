"""JSON Lines: the field `text` of each line, and errors with the line's number."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptbox.datasets import json_lines
from gptbox.datasets.text_file import TextFile, TextFiles
from gptbox.errors import DatasetError


def write(folder: Path, *lines: str | dict[str, str], name: str = "a.jsonl") -> Path:
    path = folder / name
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(content, encoding="utf-8")
    return path


def documents(path: Path) -> list[tuple[str, str]]:
    return [(document.name, "".join(document.blocks)) for document in TextFile(path).documents()]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(lines=st.lists(texts, min_size=1, max_size=8), size=st.integers(1, 30), ascii_only=st.booleans())
def test_every_text_and_number_is_found_wherever_the_blocks_end(lines: list[str], size: int, ascii_only: bool) -> None:
    content = "".join(json.dumps({"id": 1, "text": line}, ensure_ascii=ascii_only) + "\n" for line in lines)
    blocks = (content[start : start + size] for start in range(0, len(content), size))
    assert list(json_lines.texts(blocks, "a.jsonl")) == list(enumerate(lines, 1))


def test_each_line_is_a_document_that_ends_with_a_line_end(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"text": "one"}, "", {"text": "two\nlines\n"}, {"text": " \n"}, {"text": "three\r\n\u2028end"}, ""
    )
    file = TextFile(path)
    found = [(document.name, "".join(document.blocks)) for document in file.documents()]
    assert found == [
        ("a.jsonl, line 1", "one\n"),
        ("a.jsonl, line 3", "two\nlines\n"),
        ("a.jsonl, line 5", "three\n\u2028end"),
    ]
    assert file.notes == [
        "a.jsonl: 1 Windows line endings (CR LF) became LF.",
        "a.jsonl: 1 lines without text were passed over.",
    ]


def test_a_file_after_it_starts_on_a_new_line(tmp_path: Path) -> None:
    paths = [write(tmp_path, {"text": "one"}), write(tmp_path, {"text": "two"}, name="b.jsonl")]
    assert ["".join(document.blocks) for document in TextFiles(paths).documents()] == ["one\n", "two"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "cut', "not valid JSON (Unterminated string starting at, at column 10)"),
        ('{"text": "a"} {}', "not valid JSON (Extra data, at column 15)"),
        ("plain text", "not valid JSON (Expecting value, at column 1)"),
        ('["text"]', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"id": 1, "content": "x"}', "without a field 'text'; it has 'id', 'content'"),
        ("{}", "without a field 'text'; it has none"),
        ('{"a\\n": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}', "it has 'a\\n', 'b', 'c', 'd', 'e', ..."),
        ('{"text": null}', "without a text: its field 'text' is not a string"),
        ('{"text": ["x"]}', "without a text: its field 'text' is not a string"),
        ('{"text": "\\ud83d"}', "without a valid text: its field 'text' has half of a surrogate pair"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"text": "x", "n": ' + "9" * 10_000 + "}", "not JSON that can be read"),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path, {"text": "good"}, "", line, {"text": "good"})
    with pytest.raises(DatasetError) as error:
        documents(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line 3, is ")
    assert problem in message
    assert message.endswith("Correct the line or delete it.")
    assert "\n" not in message


@pytest.mark.parametrize("lines", [(), ("", " "), ({"text": ""}, {"text": " \n"})])
def test_a_file_without_text_is_refused(tmp_path: Path, lines: tuple[str | dict[str, str], ...]) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(DatasetError, match=r"a\.jsonl has no line with text"):
        documents(path)


def test_a_very_long_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_LINE", 1 << 20)
    path = write(tmp_path, {"text": "short"}, {"text": "x" * (1 << 21)})
    with pytest.raises(DatasetError, match=r"a\.jsonl, line 2, is longer than 1,048,576 characters"):
        documents(path)
