"""Preparing writes an index of the training text, also to a prepared dataset that has none; it never fails for one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.datasets.test_prepared import begins, unchanged

from gptbox.datasets import ngram_writer
from gptbox.datasets import prepared as prepared_module
from gptbox.datasets.prepared import prepare
from gptbox.models.copied_spans import find_copied
from gptbox.models.ngram_index import FILE_NAME, NgramIndex, has_index
from gptbox.models.runs import RunFolder

NO_INDEX = "copied words: not shown, because "


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_the_index_has_the_training_text_only(data: Path, run: RunFolder, tokenizer: str) -> None:
    texts = ["".join(f"{n} {what} an der Wand\n" for n in range(50)) for what in ("Flaschen grünes Bier", "Krüge")]
    for i, text in enumerate(texts):  # with BPE, an end-of-text token stands between the two
        (data / "letters" / f"{'ab'[i]}.txt").write_text(text, encoding="utf-8")
    prepared = prepare("letters", run, data, tokenizer=tokenizer)
    index = NgramIndex(run.dataset / FILE_NAME)
    train = bytes(index.text).decode()
    assert train == "".join(texts)[: int(len("".join(texts)) * 0.9)]
    assert len(train.encode()) == prepared.train_bytes
    across = texts[0][-20:] + texts[1][:20]
    assert [(span.start, span.end) for span in find_copied(index, across)] == [(0, 40)]
    assert find_copied(index, "49 Krüge an der Wand") == []
    assert not [line for line in prepared.describe() if line.startswith(NO_INDEX)]


@begins
@pytest.mark.parametrize("damage", ["missing", "cut", "of another text"])
def test_a_prepared_dataset_gets_its_index_later(data: Path, run: RunFolder, begin: Any, damage: str) -> None:
    prepare("letters", run, data)
    file = run.dataset / FILE_NAME
    whole = file.read_bytes()
    begin(run)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[:-1] if damage == "cut" else whole.replace(b'"text_bytes": 1', b'"text_bytes": 2', 1))
    assert not has_index(run.dataset)
    prepare("letters", run, data)
    assert file.read_bytes() == whole
    same = unchanged(run)
    prepare("letters", run, data)
    assert same()


def test_another_text_gets_another_index(data: Path, run: RunFolder) -> None:
    prepare("letters", run, data)
    (data / "letters" / "a.txt").write_text("the slow brown fox\n" * 30)
    prepare("letters", run, data)
    assert bytes(NgramIndex(run.dataset / FILE_NAME).text[:8]) == b"the slow"


@begins
def test_without_an_index_the_dataset_is_complete(
    data: Path, run: RunFolder, begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared_module, "write_index", full)
    missing = f"{NO_INDEX}the index of the training text could not be written"
    assert prepare("letters", run, data).describe()[-1] == missing
    begin(run)
    assert prepare("letters", run, data).describe()[-1] == missing
    assert sorted(file.name for file in run.dataset.iterdir()) == ["meta.json", "train.bin", "val.bin"]


def test_a_text_above_the_limit_has_none_and_says_so(
    data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngram_writer, "MAX_TEXT_BYTES", 100)
    assert prepare("letters", run, data).describe()[-1].startswith(f"{NO_INDEX}a training text of more than")


def test_a_small_disk_is_left_for_the_run(data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 4 * 2 * 180
    disk = SimpleNamespace(free=free - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    assert prepare("letters", run, data).describe()[-1].startswith(f"{NO_INDEX}writing the index would take")
    disk.free = free
    assert has_index(prepare("letters", run, data).folder)


def test_damaged_ids_get_no_index(data: Path, run: RunFolder) -> None:
    prepare("letters", run, data)
    (run.dataset / FILE_NAME).unlink()
    (run.dataset / "train.bin").write_bytes(b"\xff" * 360)
    prepare("letters", run, data)
    assert not has_index(run.dataset)
