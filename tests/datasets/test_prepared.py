"""Prepared datasets: nanoGPT's bytes, written atomically, replaced only before training has begun."""

import gzip
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tokenizers.texts import SENTENCES

from gptbox.datasets import DATASETS, text_file
from gptbox.datasets import prepared as prepared_module
from gptbox.datasets.base import Corpus, Dataset
from gptbox.datasets.prepared import PreparedDataset, prepare
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.text_file import TextFile
from gptbox.datasets.tiny_shakespeare import SHA256, TinyShakespeare
from gptbox.datasets.token_files import write_ids
from gptbox.errors import DatasetError, RunError
from gptbox.models.runs import RunFolder
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte import ByteTokenizer

# SHA-256 of the files that nanoGPT's data/shakespeare_char/prepare.py writes.
NANOGPT = {
    "train.bin": "6ec305602a99ac2802745a134e1f5e33e2231b4855525b00b9aebb730ac2626f",
    "val.bin": "d37d30cc0c8327c270d493299c3dca54135f6d5f1c9ef60cda78076e311204b1",
}


def first_outputs() -> list[Callable[[RunFolder], None]]:
    def checkpoint(run: RunFolder) -> None:
        run.checkpoint.mkdir()

    def snapshot(run: RunFolder) -> None:
        run.snapshot(250).mkdir(parents=True)

    return [checkpoint, snapshot]


begins = pytest.mark.parametrize("begin", first_outputs(), ids=lambda output: output.__name__)


def unchanged(run: RunFolder) -> Callable[[], bool]:
    """A function that tells whether the prepared files are still the same ones."""
    before = [(file.name, file.stat().st_ino) for file in sorted(run.dataset.iterdir())]
    return lambda: before == [(file.name, file.stat().st_ino) for file in sorted(run.dataset.iterdir())]


def test_tiny_shakespeare_becomes_nanogpts_files(tiny_shakespeare: Path, data: Path, run: RunFolder) -> None:
    (data / "shakespeare_char").mkdir()
    shutil.copy(tiny_shakespeare, data / "shakespeare_char" / "input.txt")
    prepared = prepare("shakespeare_char", run, data)
    for name, expected in NANOGPT.items():
        assert hashlib.sha256((run.dataset / name).read_bytes()).hexdigest() == expected
    assert (prepared.vocab_size, prepared.train_tokens, prepared.val_tokens) == (65, 1_003_854, 111_540)
    assert (prepared.characters, prepared.text_bytes, prepared.text_sha256) == (1_115_394, 1_115_394, SHA256)
    assert prepared.source == "Tiny Shakespeare (input.txt)"
    assert prepared.describe() == [
        "shakespeare_char: Tiny Shakespeare (input.txt)",
        "size: 1,115,394 characters, 1,115,394 bytes",
        "vocabulary: 65 characters: (line break) (space) ! $ & ' , - . 3 : ; ? A-Z a-z",
        "split: 1,003,854 tokens for training (90 %), 111,540 for validation",
        "tokenizer: char, because the text has only 65 different characters and is not very long",
        "repeated passages: none of 200 characters or more, white space ignored",
        "rare characters, hardly learned: $ (1 x), & (3 x)",
        "outlook: good for a model of five minutes, too small for one of hours; a run of five minutes on two cores "
        "reads it about 8 times",
    ]


def test_the_two_splits_are_the_whole_text(data: Path, run: RunFolder) -> None:
    text = "Zwölf Boxkämpfer\njagen 🐎 über den Deich.\n" * 7
    (data / "letters" / "a.txt").write_text(text, encoding="utf-8")
    prepared = prepare("letters", run, data)
    cut = int(len(text) * 0.9)
    assert prepared.tokenizer.decode(prepared.train) == text[:cut]
    assert prepared.tokenizer.decode(prepared.val) == text[cut:]
    assert prepared.train_bytes == len(text[:cut].encode())
    assert prepared.val_bytes == len(text[cut:].encode())
    assert prepared.text_bytes == prepared.train_bytes + prepared.val_bytes == len(text.encode())
    assert prepared.text_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert prepared.train.dtype == np.dtype("<u2")
    with pytest.raises(ValueError, match="read-only"):
        prepared.train[0] = 0


def test_the_folder_has_four_files_and_meta_json_a_tokenizer(data: Path, run: RunFolder) -> None:
    prepared = prepare("letters", run, data)
    names = ["meta.json", "train.bin", "train.ngrams", "val.bin"]
    assert sorted(file.name for file in run.dataset.iterdir()) == names
    assert [file.name for file in run.path.iterdir()] == ["dataset"]
    meta = json.loads((run.dataset / "meta.json").read_text(encoding="utf-8"))
    assert meta["tokenizer"] == prepared.tokenizer.to_json()
    assert meta["source"] == "the text letters (1 file)"


def test_loading_gives_the_prepared_dataset(data: Path, run: RunFolder) -> None:
    prepared = prepare("letters", run, data)
    loaded = PreparedDataset.load(run.dataset)
    assert loaded.describe() == prepared.describe()
    assert loaded.tokenizer.to_json() == prepared.tokenizer.to_json()
    assert np.array_equal(loaded.val, prepared.val)


class TestPrepareAgain:
    def test_a_prepared_text_is_reused(self, data: Path, run: RunFolder) -> None:
        prepare("letters", run, data)
        same = unchanged(run)
        prepare("letters", run, data)
        assert same()

    def test_a_downloaded_text_is_reused_without_the_network(
        self, data: Path, run: RunFolder, tiny_shakespeare: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Once(TinyShakespeare):
            downloads = 0

            def download(self) -> str:
                Once.downloads += 1
                return tiny_shakespeare.read_text(encoding="utf-8")

        monkeypatch.setitem(DATASETS, "shakespeare_char", Once)
        assert prepare("shakespeare_char", run, data).source == "Tiny Shakespeare (downloaded)"
        assert prepare("shakespeare_char", run, data).source == "Tiny Shakespeare (downloaded)"
        assert Once.downloads == 1

    def test_a_fallback_stays_until_there_is_a_copy(
        self, data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Plays(Dataset):
            name = "plays"

            def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
                return Corpus.from_text("HAMLET:\nTo be, or not to be\n\n", "the complete plays of Shakespeare")

        refused = lambda: TinyShakespeare("http://127.0.0.1:9/", Plays(), retry_delays_s=())  # noqa: E731
        monkeypatch.setitem(DATASETS, "shakespeare_char", refused)
        prepared = prepare("shakespeare_char", run, data)
        assert "could not be downloaded" in prepared.source
        assert prepare("shakespeare_char", run, data).source == prepared.source
        (data / "shakespeare_char").mkdir()
        (data / "shakespeare_char" / "input.txt").write_text("my own copy\n")
        assert prepare("shakespeare_char", run, data).characters == 12

    def test_a_fallback_has_the_tokenizer_of_the_text_that_it_replaces(
        self, data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Plays(Dataset):
            name = "plays"

            def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
                return Corpus.from_text("".join(map(chr, range(0x4E00, 0x5E00))), "a text with many characters")

        assert Corpus.from_text("x", "any other text").tokenizer == "auto"
        refused = lambda: TinyShakespeare("http://127.0.0.1:9/", Plays(), retry_delays_s=())  # noqa: E731
        monkeypatch.setitem(DATASETS, "shakespeare_char", refused)
        prepared = prepare("shakespeare_char", run, data)
        assert "tokenizer: char, because it is that of shakespeare_char" in prepared.describe()

    def test_a_changed_text_is_prepared_again_before_training(self, data: Path, run: RunFolder) -> None:
        prepare("letters", run, data)
        (data / "letters" / "b.txt").write_text("more")
        assert prepare("letters", run, data).characters == 204
        assert [file.name for file in run.path.iterdir()] == ["dataset"]

    @begins
    def test_a_changed_text_is_an_error_once_training_has_begun(
        self, data: Path, run: RunFolder, begin: Callable[[RunFolder], None]
    ) -> None:
        prepare("letters", run, data)
        begin(run)
        same = unchanged(run)
        (data / "letters" / "b.txt").write_text("more")
        with pytest.raises(RunError) as error:
            prepare("letters", run, data)
        message = str(error.value)
        assert "200 characters then (the text letters (1 file)), 204 now (the text letters (2 files))" in message
        assert "--run" in message
        assert "gptbox delete letters" in message
        assert same()

    @begins
    def test_a_renamed_file_is_no_change(self, data: Path, run: RunFolder, begin: Callable[[RunFolder], None]) -> None:
        prepare("letters", run, data)
        begin(run)
        (data / "letters" / "a.txt").rename(data / "letters" / "renamed.txt")
        assert prepare("letters", run, data).characters == 200

    @begins
    def test_a_deleted_text_is_no_error(self, data: Path, run: RunFolder, begin: Callable[[RunFolder], None]) -> None:
        prepare("letters", run, data)
        begin(run)
        (data / "letters" / "a.txt").unlink()
        assert prepare("letters", run, data).characters == 200
        shutil.rmtree(data)
        assert prepare("letters", run, data).characters == 200

    def test_a_text_that_became_invalid_is_an_error(self, data: Path, run: RunFolder) -> None:
        prepare("letters", run, data)
        same = unchanged(run)
        (data / "letters" / "a.txt").write_bytes(b"\xff")
        with pytest.raises(DatasetError, match="0xff at offset 0"):
            prepare("letters", run, data)
        assert same()

    @begins
    def test_a_run_belongs_to_one_dataset(self, data: Path, run: RunFolder, begin: Callable[[RunFolder], None]) -> None:
        (data / "diary").mkdir()
        (data / "diary" / "a.txt").write_text("dear diary\n")
        prepare("letters", run, data)
        assert prepare("diary", run, data).dataset == "diary"
        begin(run)
        with pytest.raises(RunError, match="was trained on diary, not on letters"):
            prepare("letters", run, data)


def delete_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def cut_meta(folder: Path) -> None:
    (folder / "meta.json").write_text((folder / "meta.json").read_text()[:-20])


def empty_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("{}")


def list_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("[]")


def cut_train(folder: Path) -> None:
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-1])


def delete_val(folder: Path) -> None:
    (folder / "val.bin").unlink()


def other_counts(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"val_counts": [20]}))


def other_version(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format_version": 99}))


def no_tokenizer(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"tokenizer": {"model": {"type": "BPE"}}}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (delete_meta, "meta.json is missing"),
        (cut_meta, "no readable prepared text"),
        (empty_meta, "format_version"),
        (list_meta, "no readable prepared text"),
        (cut_train, "train.bin has 359 bytes; meta.json says 360"),
        (delete_val, "val.bin is missing"),
        (other_counts, "meta.json counts 1 ids"),
        (other_version, "another version of gptbox"),
        (no_tokenizer, "BPE"),
    ],
)
class TestDamage:
    def test_it_is_named(self, data: Path, run: RunFolder, damage: Callable[[Path], None], named: str) -> None:
        prepare("letters", run, data)
        damage(run.dataset)
        with pytest.raises(DatasetError) as error:
            PreparedDataset.load(run.dataset)
        assert named in str(error.value)

    def test_it_is_repaired_before_training(
        self, data: Path, run: RunFolder, damage: Callable[[Path], None], named: str
    ) -> None:
        prepare("letters", run, data)
        damage(run.dataset)
        prepare("letters", run, data)
        assert PreparedDataset.load(run.dataset).characters == 200

    def test_it_is_an_error_once_training_has_begun(
        self, data: Path, run: RunFolder, damage: Callable[[Path], None], named: str
    ) -> None:
        prepare("letters", run, data)
        run.checkpoint.mkdir()
        damage(run.dataset)
        with pytest.raises(RunError) as error:
            prepare("letters", run, data)
        assert named in str(error.value)
        assert str(run.path) in str(error.value)


class TestFolderOfAnOlderVersion:
    """Its meta.json has no counts of the ids."""

    @pytest.fixture
    def older(self, data: Path, run: RunFolder) -> PreparedDataset:
        prepare("letters", run, data)
        meta = json.loads((run.dataset / "meta.json").read_text())
        for key in ("train_counts", "val_counts", "files", "origin"):
            del meta[key]
        (run.dataset / "meta.json").write_text(json.dumps(meta))
        return PreparedDataset.load(run.dataset)

    def test_its_description_is_the_same(self, older: PreparedDataset, tmp_path: Path, data: Path) -> None:
        assert older.train_counts is None
        assert older.describe() == prepare("letters", RunFolder(tmp_path / "models", "new"), data).describe()

    def test_ids_outside_the_vocabulary_are_found(self, older: PreparedDataset) -> None:
        (older.folder / "val.bin").write_bytes(b"\xff" * 40)
        with pytest.raises(DatasetError, match="damaged: its vocabulary lacks the id 65,535"):
            older.describe()

    @pytest.mark.parametrize("begun", [True, False])
    def test_files_that_it_did_not_read_matter_only_before_training(
        self, older: PreparedDataset, run: RunFolder, data: Path, begun: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text_file, "_SETTLE_TIME_NS", -1)
        prepare("letters", run, data)  # stores the stat data of a.txt, as older versions did
        (data / "letters" / "notes.md").write_text("notes\n")
        (data / "letters" / "more").mkdir()
        (data / "letters" / "more" / "b.txt").write_text("more\n")
        if begun:
            run.checkpoint.mkdir()
        assert prepare("letters", run, data).characters == (200 if begun else 211)

    def test_its_text_is_recognised(self, older: PreparedDataset, run: RunFolder, data: Path) -> None:
        run.checkpoint.mkdir()
        assert prepare("letters", run, data).text_sha256 == older.text_sha256


def test_the_description_does_not_read_the_ids(data: Path, run: RunFolder) -> None:
    prepared = prepare("letters", run, data)
    expected = prepared.describe()
    (run.dataset / "train.bin").write_bytes(b"\xff" * 360)
    assert prepared.describe() == PreparedDataset.load(run.dataset).describe() == expected


class TestReadingAgain:
    @pytest.fixture
    def file(self, data: Path) -> Path:
        return data / "letters" / "a.txt"

    @pytest.fixture(autouse=True)
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of the files read, in order. Every file counts as old enough for its times to be reliable."""
        reads: list[str] = []

        def counted(file: TextFile) -> Iterator[str]:
            reads.append(file.path.name)
            return blocks(file)

        blocks = TextFile.blocks
        monkeypatch.setattr(TextFile, "blocks", counted)
        monkeypatch.setattr(text_file, "_SETTLE_TIME_NS", -1)
        return reads

    def test_unchanged_files_are_not_read(self, data: Path, run: RunFolder, reads: list[str]) -> None:
        prepare("letters", run, data)
        assert reads == ["a.txt", "a.txt"]  # for the vocabulary and for the ids
        run.checkpoint.mkdir()
        prepare("letters", run, data)
        assert len(reads) == 2

    def test_files_with_another_time_are_read_once(
        self, data: Path, run: RunFolder, reads: list[str], file: Path
    ) -> None:
        prepare("letters", run, data)
        os.utime(file, (1, 1))
        del reads[:]
        assert prepare("letters", run, data).characters == 200
        prepare("letters", run, data)
        assert reads == ["a.txt"]

    def test_unchanged_files_in_sub_folders_and_archives_are_not_read(
        self, data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (data / "letters" / "more").mkdir()
        (data / "letters" / "more" / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "b"}'))
        with zipfile.ZipFile(data / "letters" / "more" / "c.zip", "w") as file:
            file.writestr("c.txt", "c")
        prepared = prepare("letters", run, data)
        assert [stat.name for stat in prepared.files] == ["a.txt", "more/b.jsonl.gz", "more/c.zip"]
        assert prepared.characters == 203
        run.checkpoint.mkdir()
        monkeypatch.setattr(TextFile, "documents", lambda *_: pytest.fail("a file was read"))
        assert prepare("letters", run, data).files == prepared.files

    @pytest.mark.parametrize("name", ["more/b.txt", "b.zip"])
    def test_a_changed_archive_or_file_in_a_sub_folder_is_noticed(self, data: Path, run: RunFolder, name: str) -> None:
        path = data / "letters" / name
        path.parent.mkdir(exist_ok=True)
        for content in ("one", "three"):
            if name.endswith("zip"):
                with zipfile.ZipFile(path, "w") as file:
                    file.writestr("b.txt", content)
            else:
                path.write_text(content)
            assert prepare("letters", run, data).characters == 200 + len(content)

    def test_a_new_file_is_read(self, data: Path, run: RunFolder, reads: list[str]) -> None:
        prepare("letters", run, data)
        (data / "letters" / "b.txt").write_text("more\n")
        assert prepare("letters", run, data).characters == 205

    @pytest.mark.parametrize("settled", [True, False])
    def test_another_text_of_the_same_length_and_time_is_noticed(
        self, data: Path, run: RunFolder, file: Path, settled: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not settled:
            monkeypatch.setattr(text_file, "_SETTLE_TIME_NS", 2_000_000_000)
        before = file.stat()
        prepare("letters", run, data)
        if settled:
            time.sleep(0.02)  # longer than the kernel's tick, so that ctime, which cannot be set back, differs
        file.write_text("THE QUICK BROWN FOX\n" * 10)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert prepare("letters", run, data).tokenizer.decode([1, 2, 3]) == " BC"

    def test_a_file_that_was_just_written_is_read_once_more(
        self, data: Path, run: RunFolder, reads: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text_file, "_SETTLE_TIME_NS", 10**15)
        assert prepare("letters", run, data).files == ()
        monkeypatch.setattr(text_file, "_SETTLE_TIME_NS", -1)
        assert prepare("letters", run, data).files != ()
        prepare("letters", run, data)
        assert len(reads) == 3

    def test_a_run_in_a_read_only_folder_goes_on(
        self, data: Path, run: RunFolder, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepare("letters", run, data)
        os.utime(file, (1, 1))

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(prepared_module, "write_json", refuse)
        assert prepare("letters", run, data).characters == 200


def test_an_archive_that_changes_between_the_two_readings_is_an_error(
    data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_archive(text: str) -> None:
        with zipfile.ZipFile(data / "letters" / "b.zip", "w") as file:
            file.writestr("b.txt", text)

    def write_later(corpus: Corpus, *others: Any) -> Any:
        write_archive("other")
        return write_ids(corpus, *others)

    write_archive("text")
    monkeypatch.setattr(prepared_module, "write_ids", write_later)
    with pytest.raises(DatasetError, match=r"b\.zip changed while it was read"):
        prepare("letters", run, data)
    assert not run.dataset.exists()


def test_a_file_that_changes_between_the_two_readings_is_an_error(
    data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_later(corpus: Corpus, *others: Any) -> Any:
        (data / "letters" / "a.txt").write_text("other")
        return write_ids(corpus, *others)

    monkeypatch.setattr(prepared_module, "write_ids", write_later)
    with pytest.raises(DatasetError, match=r"a\.txt changed while it was read"):
        prepare("letters", run, data)
    assert not run.dataset.exists()
    assert [file.name for file in run.path.iterdir()] == []


class TestTokenizers:
    TEXT = "Zwölf Boxkämpfer\njagen 🐎 über den Deich.\n" * 7

    @pytest.fixture(autouse=True)
    def _text(self, data: Path) -> None:
        (data / "letters" / "a.txt").write_text(self.TEXT, encoding="utf-8")

    def test_the_ids_are_those_of_the_tokenizer_and_the_cut_is_by_characters(self, data: Path, run: RunFolder) -> None:
        prepared = prepare("letters", run, data, tokenizer="byte")
        cut = int(len(self.TEXT) * 0.9)
        train, val = self.TEXT[:cut].encode(), self.TEXT[cut:].encode()
        assert prepared.tokenizer.name == "byte"
        assert prepared.vocab_size == 256
        assert (prepared.train.tolist(), prepared.val.tolist()) == (list(train), list(val))
        assert (prepared.train_tokens, prepared.val_tokens) == (len(train), len(val))
        assert (prepared.train_bytes, prepared.val_bytes) == (len(train), len(val))
        assert prepared.characters == len(self.TEXT)
        assert prepared.characters_per_token == len(self.TEXT) / len(self.TEXT.encode())
        assert prepared.describe()[1:5] == [
            f"size: {len(self.TEXT)} characters, {len(train) + len(val)} bytes",
            "vocabulary: 256 bytes, of which 33 occur in the text",
            f"split: {len(train)} tokens for training (90 %), {len(val)} for validation",
            "tokenizer: byte",
        ]

    @pytest.mark.parametrize(
        ("text", "letters"),
        [
            (TEXT, "characters"),
            ("".join(map(chr, range(0x4E00, 0x5200))), "bytes"),  # Chinese: 1,024 characters of three bytes
            ("".join(map(chr, range(0xAC00, 0xAE00))), "bytes"),  # Korean
            (SENTENCES["Hindi"] * 9, "characters"),
            (SENTENCES["Russian"] * 9, "characters"),
            ("".join(map(chr, range(0x4E00, 0x5000))) + "plain English words " * 500, "characters"),
        ],
    )
    def test_letters_are_characters_or_in_scripts_with_many_of_them_bytes(
        self, data: Path, run: RunFolder, text: str, letters: str
    ) -> None:
        (data / "letters" / "a.txt").write_text(text, encoding="utf-8")
        prepared = prepare("letters", run, data, tokenizer="byte")
        expected = len(text) / len(text.encode()) if letters == "characters" else 1.0
        assert prepared.letters_per_token == expected
        assert prepared.characters_per_token == len(text) / len(text.encode())

    def test_bits_per_byte_are_comparable(self, data: Path, tmp_path: Path) -> None:
        """The same bits for the whole validation split, spread over fewer or more tokens."""
        nats, results = 50.0, set()
        for name in ("char", "byte"):
            prepared = prepare("letters", RunFolder(tmp_path / "models", name), data, tokenizer=name)
            results.add(round(prepared.bits_per_byte(nats / prepared.val_tokens), 12))
        assert len(results) == 1

    def test_auto_is_char(self, data: Path, tmp_path: Path) -> None:
        runs = [RunFolder(tmp_path / "models", name) for name in ("auto", "char")]
        prepared = [prepare("letters", run, data, tokenizer=run.name) for run in runs]
        assert [each.tokenizer.name for each in prepared] == ["char", "char"]
        for file in ("train.bin", "val.bin"):
            first, second = ((run.dataset / file).read_bytes() for run in runs)
            assert first == second
        reasons = [next(line for line in each.describe() if line.startswith("tokenizer: ")) for each in prepared]
        assert reasons == [
            "tokenizer: char, because the text has only 29 different characters and is not very long",
            "tokenizer: char",
        ]

    def test_auto_is_bpe_for_a_text_with_many_characters(self, data: Path, run: RunFolder) -> None:
        text = "".join(map(chr, range(0x10000, 0x20001)))
        (data / "letters" / "a.txt").write_text(text, encoding="utf-8")
        with pytest.raises(DatasetError, match="65,537 different characters"):
            prepare("letters", run, data, tokenizer="char")
        prepared = prepare("letters", run, data)
        assert prepared.tokenizer.name == "bpe"
        assert prepared.tokenizer.decode(np.concatenate([prepared.train, prepared.val])) == text
        assert "tokenizer: bpe, because the text has 65,537 different characters" in prepared.describe()

    def test_tokens_are_learned_from_the_training_text_alone(self, data: Path, run: RunFolder) -> None:
        """Else the words of the validation text would be tokens, and its loss lower than that of any other text."""
        text = "The quick brown fox.\n" * 900 + "Seventy zebras gallop.\n" * 80  # in the last tenth
        (data / "letters" / "a.txt").write_text(text, encoding="utf-8")
        prepared = prepare("letters", run, data, tokenizer="bpe")
        tokens = {prepared.tokenizer.token_bytes(i) for i in range(prepared.vocab_size)}
        assert {b" quick", b" brown"} <= tokens
        assert "zebras" not in prepared.tokenizer.decode(prepared.train)
        assert not any(b"zeb" in token or b"gall" in token for token in tokens)

    def test_a_trained_tokenizer_is_used_as_it_is(self, data: Path, run: RunFolder) -> None:
        tokenizer = BPETokenizer.train(["another text\n" * 100])
        prepared = prepare("letters", run, data, tokenizer=tokenizer)
        assert prepared.tokenizer.to_json() == tokenizer.to_json()
        (data / "letters" / "b.txt").write_text("more")
        assert prepare("letters", run, data, tokenizer=tokenizer).tokenizer.to_json() == tokenizer.to_json()
        with pytest.raises(RunError, match="prepared with the tokenizer bpe, not with byte"):
            prepare("letters", run, data, tokenizer=ByteTokenizer())

    @pytest.mark.parametrize(("merges", "dtype"), [(0, "uint16"), (65_279, "uint16"), (65_280, "uint32")])
    def test_ids_are_as_wide_as_the_vocabulary_needs(self, data: Path, run: RunFolder, merges: int, dtype: str) -> None:
        pairs = [bytes((first, second)) for first in range(256) for second in range(256)]
        tokenizer = BPETokenizer([bytes((byte,)) for byte in range(256)] + pairs[:merges])
        (data / "letters" / "b.txt").write_text("more", encoding="utf-8")
        prepared = prepare("letters", run, data, tokenizer=tokenizer)
        assert json.loads((run.dataset / "meta.json").read_text(encoding="utf-8"))["dtype"] == dtype
        assert prepared.train.dtype == prepared.val.dtype == tokenizer.dtype == np.dtype(dtype)
        ids = np.concatenate([prepared.train, prepared.val])
        assert prepared.tokenizer.decode(ids) == self.TEXT + "more"
        assert int(ids[-1]) == int(ids.max()) == prepared.vocab_size - 1 == 256 + merges
        assert (ids == tokenizer.eos_id).sum() == 2  # one behind each file

    def test_a_dtype_that_is_none_of_ours_is_an_error(self, data: Path, run: RunFolder) -> None:
        prepare("letters", run, data)
        meta = json.loads((run.dataset / "meta.json").read_text(encoding="utf-8"))
        (run.dataset / "meta.json").write_text(json.dumps(meta | {"dtype": "object"}))
        with pytest.raises(DatasetError, match=r"no readable prepared text: meta.json has the dtype 'object'"):
            PreparedDataset.load(run.dataset)
        (run.dataset / "meta.json").write_text(json.dumps(meta | {"dtype": "uint32"}))
        with pytest.raises(DatasetError, match=r"meta.json says"):
            PreparedDataset.load(run.dataset)
        del meta["dtype"]  # as older versions wrote it
        (run.dataset / "meta.json").write_text(json.dumps(meta))
        assert PreparedDataset.load(run.dataset).train.dtype == np.uint16

    @pytest.mark.parametrize(("first", "second"), [("char", "byte"), ("byte", "char")])
    def test_another_tokenizer_than_the_runs_is_an_error(
        self, data: Path, run: RunFolder, first: str, second: str
    ) -> None:
        prepare("letters", run, data, tokenizer=first)
        same = unchanged(run)
        with pytest.raises(RunError) as error:
            prepare("letters", run, data, tokenizer=second)
        assert f"'letters' was prepared with the tokenizer {first}, not with {second}" in str(error.value)
        assert "--run NAME" in str(error.value)
        assert "gptbox delete letters" in str(error.value)
        assert same()

    @pytest.mark.parametrize("name", ["char", "byte"])
    def test_auto_and_the_same_name_keep_the_runs_tokenizer(self, data: Path, run: RunFolder, name: str) -> None:
        prepare("letters", run, data, tokenizer=name)
        same = unchanged(run)
        for asked in ("auto", name):
            assert prepare("letters", run, data, tokenizer=asked).tokenizer.name == name
        assert same()

    def test_a_changed_text_is_prepared_again_with_the_runs_tokenizer(self, data: Path, run: RunFolder) -> None:
        prepare("letters", run, data, tokenizer="byte")
        (data / "letters" / "b.txt").write_text("more")
        prepared = prepare("letters", run, data)
        assert prepared.tokenizer.name == "byte"
        assert prepared.text_bytes == len(self.TEXT.encode()) + 4

    def test_a_text_that_is_too_short_is_counted_in_tokens(self, data: Path, run: RunFolder) -> None:
        prepared = prepare("letters", run, data, tokenizer="byte")
        prepared.require_context(prepared.val_tokens - 1)
        with pytest.raises(DatasetError) as error:
            prepared.require_context(prepared.val_tokens)
        message = str(error.value)
        assert f"{len(self.TEXT.encode())} bytes, of which the last tenth, {prepared.val_tokens}," in message
        assert f"about {10 * (prepared.val_tokens + 1)} bytes" in message


def test_progress_is_reported(data: Path, run: RunFolder) -> None:
    reports = []
    prepare("letters", run, data, lambda *report: reports.append(report))
    assert reports[-2:] == [("Writing the token ids of letters", 200, 200), ("Indexing letters", 180, 180)]
    assert ("Reading letters", 200, 200) in reports
    prepare("letters", RunFolder(run.path.parent, "bpe"), data, lambda *report: reports.append(report), "bpe")
    assert ("Learning the tokens of letters", 180, 180) in reports  # the training split


def test_an_unusable_text_leaves_nothing_behind(data: Path, run: RunFolder) -> None:
    (data / "letters" / "a.txt").write_text("x")
    with pytest.raises(DatasetError, match="has fewer than 2 characters: too few"):
        prepare("letters", run, data)
    assert not run.path.exists()


def test_a_folder_that_cannot_be_written_is_named(data: Path, run: RunFolder) -> None:
    run.path.parent.write_text("a file where the models folder should be")
    with pytest.raises(RunError, match=r"cannot be written to .*dataset: Not a directory"):
        prepare("letters", run, data)


def test_both_splits_must_be_longer_than_the_context(data: Path, run: RunFolder) -> None:
    prepared = prepare("letters", run, data)  # 200 characters: 180 and 20
    prepared.require_context(19)
    with pytest.raises(DatasetError) as error:
        prepared.require_context(20)
    message = str(error.value)
    for number in ("200 characters", "last tenth, 20,", "context of 20 ", "needs 21 ", "about 210 characters"):
        assert number in message
    assert "Add text" in message
