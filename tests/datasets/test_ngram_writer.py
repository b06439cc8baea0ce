"""The index is written from the ids of every tokenizer, is small, and is complete or absent."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.models.indexed_text import copied_spans
from tests.tokenizers.texts import SENTENCES, sample

from gptbox.datasets import key_sorter, ngram_writer
from gptbox.datasets.ngram_writer import write_index
from gptbox.models.copied_spans import find_copied
from gptbox.models.ngram_index import FILE_NAME, NgramIndex
from gptbox.tokenizers import TOKENIZERS, Tokenizer
from gptbox.tokenizers.byte import ByteTokenizer


def tokenizer_of(name: str, text: str) -> Tokenizer:
    return TOKENIZERS[name].train((text,), sorted(set(text)), len(text.encode()))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_text_is_that_of_the_ids(name: str, tmp_path: Path) -> None:
    text = sample(3)
    tokenizer = tokenizer_of(name, sample())
    write_index(tmp_path, tokenizer.encode(text), tokenizer, len(text.encode()))
    index = NgramIndex(tmp_path / FILE_NAME)
    assert bytes(index.text).decode() == text
    query = "".join(sentence[3:40] for sentence in reversed(SENTENCES.values()))
    assert [(span.start, span.end) for span in find_copied(index, query)] == copied_spans(text, query)


def test_end_of_text_tokens_are_no_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bpe", sample())
    documents = ["the first document, which ends here\n", "and the second, after an end-of-text token\n"]
    ids = np.concatenate(list(tokenizer.encode_documents((documents[0], None, documents[1], None))))
    assert np.count_nonzero(ids == tokenizer.eos_id) == 2
    write_index(tmp_path, ids, tokenizer, len("".join(documents)))
    (span,) = find_copied(NgramIndex(tmp_path / FILE_NAME), "which ends here\nand the second")
    assert (span.start, span.end) == (0, 30)


def test_sorting_on_the_disk_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (sample(4) + "\n".join(f"{i} and again the very same words" for i in range(600))).encode()
    ids = np.frombuffer(content, np.uint8)

    def write(name: str) -> bytes:
        (tmp_path / name).mkdir()
        write_index(tmp_path / name, ids, ByteTokenizer(), len(content))
        assert [file.name for file in (tmp_path / name).iterdir()] == [FILE_NAME]
        return (tmp_path / name / FILE_NAME).read_bytes()

    in_memory = write("memory")
    monkeypatch.setattr(ngram_writer, "_CHUNK", 1000)
    assert write("chunks") == in_memory
    monkeypatch.setattr(key_sorter, "RUN", 5000)
    on_disk = write("disk")
    spans = [
        find_copied(NgramIndex(tmp_path / name / FILE_NAME), content[5:9000].decode()) for name in ("memory", "disk")
    ]
    assert spans[0] == spans[1]
    assert len(on_disk) <= 1.2 * len(in_memory)


def test_the_index_of_tiny_shakespeare_has_twice_its_size(tiny_shakespeare: Path, tmp_path: Path) -> None:
    content = tiny_shakespeare.read_bytes()
    write_index(tmp_path, np.frombuffer(content, np.uint8), ByteTokenizer(), len(content))
    assert (tmp_path / FILE_NAME).stat().st_size < 2 * len(content)
    text = content[500_000:500_500].decode()
    (span,) = find_copied(NgramIndex(tmp_path / FILE_NAME), text)
    assert (span.start, span.end, span.place) == (0, 500, 500_000)


@pytest.mark.parametrize("size", [-1, 1])
def test_ids_of_another_text_are_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes instead of"):
        write_index(tmp_path, np.full(1000, 65, np.uint16), ByteTokenizer(), 1000 + size)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ngram_writer._Writer, "_write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_index(tmp_path, np.full(1000, 65, np.uint16), ByteTokenizer(), 1000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "a", "é" * 19, "ab" * 10])
def test_short_texts_have_an_index(text: str, tmp_path: Path) -> None:
    content = text.encode()
    write_index(tmp_path, np.frombuffer(content, np.uint8), ByteTokenizer(), len(content))
    spans = find_copied(NgramIndex(tmp_path / FILE_NAME), f"-{text}-")
    assert [(span.start, span.end) for span in spans] == ([(1, 21)] if len(text) == 20 else [])


def test_progress_is_reported(tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    on_progress: Callable[[str, int, int], None] = lambda *report: reports.append(report)  # noqa: E731
    ids = np.full(200_000, 65, np.uint16)
    write_index(tmp_path, ids, ByteTokenizer(), len(ids), on_progress, "Indexing letters")
    assert reports[0][0] == "Indexing letters"
    assert reports[-1][1:] == (200_000, 200_000)
