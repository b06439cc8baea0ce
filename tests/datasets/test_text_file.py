"""Reading a file in blocks gives the same as reading it at once, wherever the blocks end."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptbox.datasets import encoding
from gptbox.datasets.text_file import TextFile, TextFiles
from gptbox.errors import DatasetError

# Characters of one to four bytes, all line endings, the byte order mark, white space, and invalid bytes.
PIECES = ["a", "b", "\n", "\r", "\r\n", "é", "\u2028", "日", "🐎", "\ufeff", " ", "\0", "\x85"]
BAD = [b"\xff", b"\xe2\x82", b"\xf0\x9f", b"\xc0\xaf", b"\xed\xa0\x80", b"\x80", b"\xf5", b"\xc3"]
anything = st.lists(st.sampled_from([piece.encode() for piece in PIECES] + BAD), max_size=12).map(b"".join)
blocks = st.integers(1, 9)
quickly = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)


def read_whole(path: Path) -> tuple[str, list[str]]:
    """Reference implementation that reads the whole file at once. Raises DatasetError with the same message."""
    content, name = path.read_bytes(), path.name
    text, notes = decode_whole(path, content)
    if windows := text.count("\r\n"):
        text = text.replace("\r\n", "\n")
        notes.append(f"{name}: {windows:,} Windows line endings (CR LF) became LF.")
    if returns := text.count("\r"):
        text = text.replace("\r", "\n")
        notes.append(f"{name}: {returns:,} lone carriage returns (CR) became LF.")
    if not text.strip():
        raise DatasetError(f"{path} is empty or has only white space. Put text into it or remove it.")
    return text, notes


def decode_whole(path: Path, content: bytes) -> tuple[str, list[str]]:
    name = path.name
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        kind = "utf-32" if content.startswith(b"\xff\xfe\0\0") else "utf-16"
        try:
            text = content.decode(kind)
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} is not {kind.upper()}, at {error.start}") from None
        if text.count("\0") * 1000 > len(text):
            raise DatasetError(
                f"{path} looks like a binary file: {text.count(chr(0)):,} of its {len(text):,} characters are NUL. "
                "Save only its text, as UTF-8, or remove the file."
            )
        return text, [f"{name}: {kind.upper()}, by its byte order mark, was converted to UTF-8."]
    if content.count(0) * 1000 > len(content):
        raise DatasetError(
            f"{path} looks like a binary file: {content.count(0):,} of its {len(content):,} bytes are NUL. "
            "Save only its text, as UTF-8, or remove the file."
        )
    has_mark = content.startswith("\ufeff".encode())
    guess = None if has_mark or encoding.is_mostly_utf8(content) or 0 in content else encoding.guess(content)
    if guess is not None and guess.confidence >= 0.9:
        return content.decode(guess.codec), [
            f"{name}: {guess.name}, by a guess of {int(100 * guess.confidence)} % confidence, was converted to UTF-8. "
            "If the text looks wrong, convert the file yourself."
        ]
    if guess is not None and guess.confidence < 0.75:
        guess = None
    perhaps = f" Perhaps it is {guess.name} ({int(100 * guess.confidence)} % confidence)." if guess else ""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not UTF-8: invalid byte 0x{content[error.start]:02x} at offset {error.start} (counted from 0)."
            f"{perhaps} Convert it: iconv -f {guess.name if guess else 'WINDOWS-1252'} -t UTF-8 {name} > new.txt"
        ) from None
    if has_mark:
        return text[1:], [f"{name}: the byte order mark at the beginning was dropped."]
    return text, []


def outcome(read: Callable[[], tuple[str, list[str]]]) -> tuple[str, list[str]] | str:
    """The result, or the message of the error."""
    try:
        return read()
    except DatasetError as error:
        # Where it ends may be found by the decoder at the beginning or the end of a character.
        return re.sub(r", which its beginning looks like: invalid byte 0x.. at offset (\d+) .*", r", at \1", str(error))


@quickly
@given(content=anything, block=blocks)
def test_every_block_size_gives_the_same_text_notes_or_error(tmp_path: Path, content: bytes, block: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    file = TextFile(path, block)
    expected = outcome(lambda: read_whole(path))
    assert outcome(lambda: ("".join(file.blocks()), file.notes)) == expected
    assert outcome(lambda: ("".join(file.blocks()), file.notes)) == expected, "the second time"


@quickly
@given(contents=st.lists(st.text(st.sampled_from("a\n\ré🐎"), min_size=1), min_size=1, max_size=4), block=blocks)
def test_files_are_joined_as_if_read_at_once(tmp_path: Path, contents: list[str], block: int) -> None:
    paths = []
    for i, content in enumerate(contents):
        paths.append(tmp_path / f"{i}.txt")
        paths[-1].write_bytes(b"x" + content.encode())  # "x", because blank files are rejected
    texts = [read_whole(path)[0] for path in paths]
    whole = "".join(text if text.endswith("\n") else text + "\n" for text in texts[:-1]) + texts[-1]
    files = TextFiles(paths, block)
    assert "".join(text for document in files.documents() for text in document.blocks) == whole
    assert files.notes == [note for path in paths for note in read_whole(path)[1]]


def test_an_invalid_byte_late_in_a_long_file_has_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    content = "né 🐎\r\n".encode() * 300_000
    path.write_bytes(content + b"\xe9 and more" * 1000)
    with pytest.raises(DatasetError, match=f"byte 0xe9 at offset {len(content)} "):
        list(TextFile(path, 1 << 16).blocks())


def test_no_block_is_longer_than_the_block_size(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abcdefgh" * 1000)
    assert max(map(len, TextFile(path, 100).blocks())) == 100
