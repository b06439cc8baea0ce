"""DATASET_URL=hf:...: the library `datasets` streams from a server on this machine that answers as the Hub does."""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.datasets.hub_server import TOKEN, HubServer

from gptbox.datasets import find_dataset
from gptbox.datasets.downloaded_text import FOLDER
from gptbox.datasets.hub_text import HubText
from gptbox.datasets.prepared import prepare
from gptbox.errors import DatasetError, DownloadError
from gptbox.models.runs import RunFolder
from gptbox.tokenizers.bpe import BPETokenizer

TEXTS = [f"The {n}th fox,\nquick and “brown”.\n" for n in range(2500)]


def parquet(**columns: object) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


def jsonl(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def card(**splits: tuple[int, int]) -> bytes:
    """A README.md with the numbers of bytes and texts of each split."""
    sizes = "".join(f"  - {{name: {name}, num_bytes: {b}, num_examples: {n}}}\n" for name, (b, n) in splits.items())
    return (
        f"---\ndataset_info:\n  features:\n  - {{name: text, dtype: string}}\n  splits:\n{sizes}---\n# Foxes\n".encode()
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    server = HubServer()
    server.datasets["me/foxes"] = {"data/train-00000-of-00001.parquet": parquet(text=TEXTS, number=list(range(2500)))}
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def text_at(url: str, models: Path, **limits: float) -> HubText:
    return HubText("foxes", url, models, **{"attempts": 2, "retry_delay_s": 0.01, **limits})  # type: ignore[arg-type]


def refusal(url: str, data: Path, models: Path, **limits: float) -> str:
    """The problem in the error's message."""
    with pytest.raises(DownloadError) as error:
        text_at(url, models, **limits).read(data)
    assert [path for path in (data / FOLDER).rglob("*") if path.name != ".lock"] == [], "nothing half-written"
    message = str(error.value)
    assert "\n" not in message
    start = f"The text foxes could not be downloaded from {url.partition('#')[0]}: "
    assert message.startswith(start)
    return message.removeprefix(start)


class TestForms:
    def test_parquet(self, hub: HubServer, data: Path, models: Path) -> None:
        corpus = text_at("hf:me/foxes", models).read(data)
        assert corpus.text == "".join(TEXTS)
        assert corpus.summary.documents == 2500
        assert corpus.source == "the text foxes (me/foxes from the Hugging Face Hub)"
        [file] = (data / FOLDER).rglob("foxes.jsonl")
        content = file.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        assert corpus.notes == (
            f"hf:me/foxes: split train, column text: 2,500 texts, {len(content):,} bytes, SHA-256 {sha256}.",
        )
        assert list(tmp_files(models.parent)) == []

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("train.jsonl", jsonl({"text": "one", "n": 1}, {"text": "two\n", "n": 2}, {"text": None, "n": 3})),
            ("train.csv", b"n,text\n1,one\n2,two\n3,\n"),
            ("foxes.txt", b"one\ntwo\n"),
        ],
    )
    def test_other_files(self, hub: HubServer, data: Path, models: Path, file: str, content: bytes) -> None:
        hub.datasets["me/foxes"] = {file: content}
        assert text_at("hf:me/foxes", models).read(data).text.rstrip("\n") == "one\ntwo"

    def test_split_and_column(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {
            "train.jsonl": jsonl({"content": "wrong", "text": "wrong"}),
            "test.jsonl": jsonl({"content": "right", "text": "wrong"}),
        }
        corpus = text_at("hf:me/foxes?split=test&text=content", models).read(data)
        assert corpus.text == "right"
        assert "split test, column content: 1 texts" in corpus.notes[0]

    def test_the_only_split_needs_no_name(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"test.jsonl": jsonl({"text": "right"})}
        assert text_at("hf:me/foxes", models).read(data).text == "right"

    def test_a_configuration(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {
            "README.md": b"---\nconfigs:\n- {config_name: en, data_files: en.jsonl}\n"
            b"- {config_name: de, data_files: de.jsonl}\n---\n",
            "en.jsonl": jsonl({"text": "fox"}),
            "de.jsonl": jsonl({"text": "Fuchs"}),
        }
        assert text_at("hf:me/foxes:de", models).read(data).text == "Fuchs"
        assert refusal_of(lambda: text_at("hf:me/foxes", models).read(data)).endswith(
            "it is several; it has en, de: name one, as in hf:me/foxes:en."
        )
        assert "it has no configuration 'fr'; it has en, de" in refusal_of(
            lambda: text_at("hf:me/foxes:fr", models).read(data)
        )

    @pytest.mark.parametrize("url", ["hf:openwebtext", "hf://datasets/openwebtext"])
    def test_a_dataset_without_an_owner(self, hub: HubServer, data: Path, models: Path, url: str) -> None:
        hub.aliases["openwebtext"] = "me/foxes"
        hub.datasets["me/foxes"] = {"train.jsonl": jsonl({"text": "fox"})}
        assert text_at(url, models).read(data).text == "fox"

    def test_a_local_folder_of_that_name_is_another_thing(
        self, hub: HubServer, data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for folder in ("me/foxes", "datasets"):
            (tmp_path / "here" / folder).mkdir(parents=True)
            (tmp_path / "here" / folder / "__init__.py").write_text("raise RuntimeError")
            (tmp_path / "here" / folder / "train.jsonl").write_bytes(jsonl({"text": "wrong"}))
        monkeypatch.chdir(tmp_path / "here")
        assert text_at("hf:me/foxes", models).read(data).summary.documents == 2500

    def test_other_columns_are_not_downloaded(self, hub: HubServer, data: Path, models: Path) -> None:
        noise = [os.urandom(6000) for _ in TEXTS]
        hub.datasets["me/foxes"] = {"train.parquet": parquet(text=TEXTS, noise=noise)}
        assert text_at("hf:me/foxes", models).read(data).text == "".join(TEXTS)
        assert hub.bytes_sent < len(hub.datasets["me/foxes"]["train.parquet"]) / 2


class TestSize:
    def test_it_ends_after_the_text_that_reaches_it(self, hub: HubServer, data: Path, models: Path) -> None:
        corpus = text_at("hf:me/foxes?size=10kb", models).read(data)
        num_texts = corpus.summary.documents
        assert corpus.text == "".join(TEXTS[:num_texts])
        assert len("".join(TEXTS[: num_texts - 1]).encode()) < 10_000 <= corpus.summary.bytes
        assert f"column text: the first {num_texts:,} texts, " in corpus.notes[0]

    def test_a_larger_one_takes_everything(self, hub: HubServer, data: Path, models: Path) -> None:
        corpus = text_at("hf:me/foxes?size=0.1GB", models, max_bytes=10).read(data)
        assert corpus.summary.documents == 2500
        assert "column text: 2,500 texts" in corpus.notes[0]

    def test_a_large_dataset_is_refused_while_it_is_read(self, hub: HubServer, data: Path, models: Path) -> None:
        problem = refusal("hf:me/foxes", data, models, max_bytes=10_000)
        assert problem == (
            "it has more than 10,000 bytes; take its beginning, as in hf:me/foxes?size=500MB, or name a larger size."
        )

    def test_or_before_if_its_size_is_known(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {
            "README.md": card(train=(40_000_000_000, 8_013_769)),
            "train.parquet": b"never read",
        }
        assert refusal("hf:me/foxes", data, models).startswith("it has 40,000,000,000 bytes, more than 1,073,741,824;")

    @pytest.mark.parametrize(("query", "by_texts"), [("", True), ("?size=50KB", False)])
    def test_progress(self, hub: HubServer, data: Path, models: Path, query: str, by_texts: bool) -> None:
        hub.datasets["me/foxes"] |= {"README.md": card(train=(100_000, 2500))}
        hub.datasets["me/foxes"]["data/train-00000-of-00001.parquet"] = parquet(text=TEXTS)
        reports: list[tuple[str, int, int]] = []
        text_at(f"hf:me/foxes{query}", models).fetch(data, lambda *report: reports.append(report))
        assert reports[0] == ("Downloading foxes", 0, 0)
        assert {total for _, _, total in reports[1:]} == {2500 if by_texts else 50_000}

    def test_a_long_text_is_refused(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.parquet": parquet(text=["short", "x" * (1 << 24)])}
        assert refusal("hf:me/foxes", data, models) == "its text 2 is longer than 16,777,216 characters."


class TestStored:
    def test_it_is_downloaded_once(self, hub: HubServer, data: Path, models: Path) -> None:
        first = text_at("hf:me/foxes", models).read(data)
        num_requests = len(hub.requests)
        assert text_at("hf:me/foxes", models).read(data) == first
        assert len(hub.requests) == num_requests

    def test_nothing_but_the_hub_is_asked(self, hub: HubServer, data: Path, models: Path) -> None:
        text_at("hf:me/foxes", models).read(data)
        assert all("/datasets/me/foxes" in request for request in hub.requests)

    def test_a_pinned_hash(self, hub: HubServer, data: Path, models: Path) -> None:
        problem = refusal(f"hf:me/foxes#sha256={'0' * 64}", data, models)
        sha256 = problem.removeprefix("its SHA-256 is ").partition(",")[0]
        corpus = text_at(f"hf:me/foxes#sha256={sha256}", models).read(data)
        assert f"SHA-256 {sha256}." in corpus.notes[0]

    def test_a_private_dataset_needs_a_token(
        self, hub: HubServer, data: Path, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.private.add("me/foxes")
        assert "or it is private: set HF_TOKEN" in refusal("hf:me/foxes", data, models)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert text_at("hf:me/foxes", models).read(data).summary.documents == 2500

    def test_prepared_with_an_end_after_each_text(self, hub: HubServer, data: Path, models: Path) -> None:
        prepared = prepare("foxes", RunFolder(models, "foxes"), data, tokenizer="bpe", url="hf:me/foxes")
        assert isinstance(prepared.tokenizer, BPETokenizer)
        ids = [*prepared.train, *prepared.val]
        assert ids.count(prepared.tokenizer.eos_id) == 2500
        num_requests = len(hub.requests)
        assert prepare("foxes", RunFolder(models, "foxes"), data, url="hf:me/foxes").text_sha256 == prepared.text_sha256
        assert len(hub.requests) == num_requests


class TestFaults:
    def test_a_dataset_that_does_not_exist(self, hub: HubServer, data: Path, models: Path) -> None:
        assert refusal("hf:me/dogs", data, models) == (
            "there is no such dataset, or it is private: set HF_TOKEN to a token that may read it."
        )

    def test_a_column_that_does_not_exist(self, hub: HubServer, data: Path, models: Path) -> None:
        problem = refusal("hf:me/foxes?text=content", data, models)
        assert problem == "it has no column 'content'; it has text, number: name one with ?text=."

    def test_a_column_that_does_not_exist_in_json(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.jsonl": jsonl({"content": "fox", "n": 1})}
        assert (
            refusal("hf:me/foxes", data, models) == "it has no column 'text'; it has content, n: name one with ?text=."
        )

    def test_a_column_of_numbers(self, hub: HubServer, data: Path, models: Path) -> None:
        problem = refusal("hf:me/foxes?text=number", data, models)
        assert problem == "its column 'number' has no text, but int64."

    def test_a_column_of_lists_in_json(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.jsonl": jsonl({"text": ["fox"]})}
        assert refusal("hf:me/foxes", data, models).startswith("its column 'text' has no text, but ")

    def test_a_split_that_does_not_exist(self, hub: HubServer, data: Path, models: Path) -> None:
        row = jsonl({"text": "fox"})
        hub.datasets["me/foxes"] = {"test.jsonl": row, "validation.jsonl": row}
        assert refusal("hf:me/foxes", data, models) == (
            "it has no split 'train'; it has validation, test: name one with ?split=."
        )

    def test_no_text(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.parquet": parquet(text=pa.array(["", None], pa.string()))}
        assert refusal("hf:me/foxes", data, models) == "its column 'text' is empty."

    @pytest.mark.parametrize(
        "files", [{"README.md": b"# Foxes"}, {"foxes.py": b"", "train.jsonl": b"{}"}, {"train.parquet": b"no parquet"}]
    )
    def test_no_data(self, hub: HubServer, data: Path, models: Path, files: dict[str, bytes]) -> None:
        hub.datasets["me/foxes"] = files
        assert refusal("hf:me/foxes", data, models)

    def test_an_unreachable_hub(
        self, hub: HubServer, data: Path, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        began = time.monotonic()
        assert refusal("hf:me/foxes", data, models).startswith("the Hub cannot be reached (")
        assert time.monotonic() - began < 20

    def test_a_hub_that_does_not_answer(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.hangs.set()
        assert refusal("hf:me/foxes", data, models, timeout_s=3.0) == "nothing was received within 3 s."

    @pytest.mark.acceptance  # the library tries for half a minute
    def test_a_connection_that_is_lost(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.fails_after = 30_000
        assert refusal("hf:me/foxes", data, models, attempts=1).startswith("the Hub cannot be reached (")

    def test_without_the_package(
        self, hub: HubServer, data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.modules['datasets'] = None\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
        message = refusal_of(lambda: text_at("hf:me/foxes", models).read(data))
        assert message == (
            "DATASET_URL=hf:me/foxes needs the Python package datasets, which is not installed: "
            "pip install 'gptbox[hf]', or make hf, or with Docker docker-compose.hf.yml."
        )
        assert hub.requests == []

    def test_a_full_disk(self, hub: HubServer, data: Path, models: Path) -> None:
        problem = refusal_of(lambda: text_at("hf:me/foxes", models)._stream(Path("/dev/full"), lambda *_: None))
        assert "it cannot be stored: No space left on device." in problem

    def test_a_process_that_dies(
        self, hub: HubServer, data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "datasets.py").write_text("import os\nos.write(2, b'no memory')\nos.abort()\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
        assert refusal("hf:me/foxes", data, models).startswith(
            "the process that reads it ended unexpectedly: no memory"
        )

    def test_a_name_like_a_built_in_one_is_refused(self, data: Path) -> None:
        with pytest.raises(DatasetError, match="cannot be called plays"):
            find_dataset("plays", data, "hf:me/plays")


def refusal_of(action: object) -> str:
    with pytest.raises(DownloadError) as error:
        action()  # type: ignore[operator]
    return str(error.value)


def tmp_files(folder: Path) -> Iterator[Path]:
    """What a download should have removed, and what it should not have written."""
    yield from folder.rglob("*.tmp")
    yield from (path for path in folder.glob("hf-home/**/*") if path.is_file())
