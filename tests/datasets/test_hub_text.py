"""DATASET_URL=hf:...: the library `datasets` streams from a server on this machine that answers as the Hub does."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.datasets.hub_server import TOKEN, HubServer

from gptbox.datasets import find_dataset, hub_text
from gptbox.datasets.downloaded_text import FOLDER
from gptbox.datasets.hub_stream import _problem, public_text
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


slow = pytest.mark.acceptance
"""Each download starts a process that imports the library: two seconds, twice that on a busy machine."""


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


def refusal(url: str, data: Path, models: Path, is_permanent: bool = True, **limits: float) -> str:
    """The problem in the error's message."""
    with pytest.raises(DownloadError) as error:
        text_at(url, models, **limits).read(data)
    assert error.value.is_permanent == is_permanent
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
        [folder] = (path for path in (data / FOLDER).iterdir() if path.name != ".lock")
        assert {path.name for path in folder.iterdir()} == {"foxes.jsonl", "download.json"}
        content = (folder / "foxes.jsonl").read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        assert corpus.notes == (
            f"hf:me/foxes: split train, column text: 2,500 texts, {len(content):,} bytes, SHA-256 {sha256}.",
        )
        assert not (models.parent / "hf-home").exists(), "no lasting cache"

    @slow
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
        assert "split test, column content: 1 text, " in corpus.notes[0]

    @slow
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
            ": it has several configurations: en, de; name one, as in hf:me/foxes:en."
        )
        assert refusal_of(lambda: text_at("hf:me/foxes:fr", models).read(data)).endswith(
            ": it has no configuration 'fr'; its configurations: en, de; name one, as in hf:me/foxes:en."
        )

    @slow
    @pytest.mark.parametrize("url", ["hf:openwebtext", "hf://datasets/openwebtext"])
    def test_a_dataset_without_an_owner(self, hub: HubServer, data: Path, models: Path, url: str) -> None:
        hub.aliases["openwebtext"] = "me/foxes"
        hub.datasets["me/foxes"] = {"train.jsonl": jsonl({"text": "fox"})}
        assert text_at(url, models).read(data).text == "fox"

    @slow
    def test_a_local_folder_of_that_name_is_another_thing(
        self, hub: HubServer, data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for folder in ("me/foxes", "datasets"):
            (tmp_path / "here" / folder).mkdir(parents=True)
            (tmp_path / "here" / folder / "__init__.py").write_text("raise RuntimeError")
            (tmp_path / "here" / folder / "train.jsonl").write_bytes(jsonl({"text": "wrong"}))
        monkeypatch.chdir(tmp_path / "here")
        assert text_at("hf:me/foxes", models).read(data).summary.documents == 2500

    @slow
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

    @slow
    def test_a_larger_one_takes_everything(self, hub: HubServer, data: Path, models: Path) -> None:
        corpus = text_at("hf:me/foxes?size=0.1GB", models, max_bytes=10).read(data)
        assert corpus.summary.documents == 2500
        assert "column text: 2,500 texts" in corpus.notes[0]

    @slow
    def test_a_large_dataset_is_refused_while_it_is_read(self, hub: HubServer, data: Path, models: Path) -> None:
        problem = refusal("hf:me/foxes", data, models, max_bytes=10_000)
        assert problem == (
            "it has more than 10,000 bytes; take its beginning, as in hf:me/foxes?size=500MB, or name a larger size."
        )

    @slow
    def test_or_before_if_its_size_is_known(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {
            "README.md": card(train=(40_000_000_000, 8_013_769)),
            "train.parquet": b"never read",
        }
        assert refusal("hf:me/foxes", data, models).startswith("it has 40,000,000,000 bytes, more than 1,073,741,824;")

    @slow
    def test_it_may_end_after_one_text(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.jsonl": jsonl({"text": "x" * 2000}, {"text": "y"})}
        assert "column text: the first text, " in text_at("hf:me/foxes?size=1KB", models).read(data).notes[0]

    @slow
    @pytest.mark.parametrize(
        ("query", "has_card", "total"),
        [("", True, 2500), ("?size=50KB", True, 50_000), ("", False, 0), ("?size=50KB", False, 50_000)],
    )
    def test_progress(self, hub: HubServer, data: Path, models: Path, query: str, has_card: bool, total: int) -> None:
        hub.datasets["me/foxes"] = {"train.parquet": parquet(text=TEXTS)}
        if has_card:
            hub.datasets["me/foxes"]["README.md"] = card(train=(100_000, 2500))
        reports: list[tuple[str, int, int]] = []
        text_at(f"hf:me/foxes{query}", models).fetch(data, lambda *report: reports.append(report))
        assert reports[0] == ("Downloading foxes", 0, 0)
        assert {report[2] for report in reports[1:]} == {total}

    @slow
    def test_empty_texts_take_no_space(self, hub: HubServer, data: Path, models: Path) -> None:
        texts = ["fox\n", *1_000_000 * [None], "", "dog"]
        hub.datasets["me/foxes"] = {
            "README.md": card(train=(100_000, len(texts))),
            "train.parquet": parquet(text=pa.array(texts, pa.string())),
        }
        reports: list[tuple[str, int, int]] = []
        corpus = text_at("hf:me/foxes", models).read(data, lambda *report: reports.append(report))
        assert corpus.text == "fox\ndog"
        [file] = (data / FOLDER).rglob("foxes.jsonl")
        assert file.read_bytes() == b'{"text": "fox\\n"}\n{"text": "dog"}\n'
        assert "column text: 2 texts, " in corpus.notes[0]
        assert [done for operation, done, _ in reports if operation == "Downloading foxes" and done > 1], "no timeout"

    @slow
    def test_it_bounds_the_file_too(self, hub: HubServer, data: Path, models: Path) -> None:
        # Each character takes six bytes in JSON.
        hub.datasets["me/foxes"] = {"train.parquet": parquet(text=["\x01" * 100] * 2000)}
        assert refusal("hf:me/foxes", data, models, max_bytes=50_000) == (
            "it takes more than 200,000 bytes as JSON Lines; take its beginning, as in hf:me/foxes?size=500MB, or name "
            "a larger size."
        )
        text_at("hf:me/foxes?size=50KB", models).fetch(data)
        [file] = (data / FOLDER).rglob("foxes.jsonl")
        assert 200_000 <= file.stat().st_size < 201_000

    @slow
    def test_a_long_text_is_refused(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.parquet": parquet(text=["short", "x" * (1 << 24)])}
        assert refusal("hf:me/foxes", data, models) == ("the text in its row 2 is longer than 16,777,216 characters.")


class TestStored:
    @slow
    def test_it_is_downloaded_once(self, hub: HubServer, data: Path, models: Path) -> None:
        first = text_at("hf:me/foxes", models).read(data)
        num_requests = len(hub.requests)
        assert text_at("hf:me/foxes", models).read(data) == first
        assert len(hub.requests) == num_requests

    @slow
    def test_nothing_but_the_hub_is_asked(self, hub: HubServer, data: Path, models: Path) -> None:
        text_at("hf:me/foxes", models).read(data)
        assert all("/datasets/me/foxes" in request for request in hub.requests)

    @slow
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

    @slow
    def test_a_column_that_does_not_exist_in_json(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.jsonl": jsonl({"content": "fox", "n": 1})}
        assert (
            refusal("hf:me/foxes", data, models) == "it has no column 'text'; it has content, n: name one with ?text=."
        )

    @slow
    def test_a_column_of_numbers(self, hub: HubServer, data: Path, models: Path) -> None:
        problem = refusal("hf:me/foxes?text=number", data, models)
        assert problem == "its column 'number' holds int64, not text."

    @slow
    def test_a_column_of_lists_in_json(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.jsonl": jsonl({"text": ["fox"]})}
        assert refusal("hf:me/foxes", data, models) == "its column 'text' holds List, not text."

    @slow
    def test_a_split_that_does_not_exist(self, hub: HubServer, data: Path, models: Path) -> None:
        row = jsonl({"text": "fox"})
        hub.datasets["me/foxes"] = {"test.jsonl": row, "validation.jsonl": row}
        assert refusal("hf:me/foxes", data, models) == (
            "it has no split 'train'; it has validation, test: name one with ?split=."
        )

    @slow
    def test_no_text(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.datasets["me/foxes"] = {"train.parquet": parquet(text=pa.array(["", None], pa.string()))}
        assert refusal("hf:me/foxes", data, models) == "its column 'text' is empty."

    @slow
    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"README.md": b"# Foxes"}, "doesn't contain any data files"),
            ({"foxes.py": b"", "train.jsonl": b"{}"}, "Dataset scripts are no longer supported, but found foxes.py"),
            ({"train.parquet": b"no parquet"}, "Parquet magic bytes not found"),
            ({"train.jsonl": b"no JSON"}, "JSON parse error"),
        ],
    )
    def test_no_data(self, hub: HubServer, data: Path, models: Path, files: dict[str, bytes], expected: str) -> None:
        hub.datasets["me/foxes"] = files
        assert expected in refusal("hf:me/foxes", data, models)

    def test_a_refused_file_without_the_secrets_in_addresses(
        self, hub: HubServer, data: Path, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("//", "//me:SECRET@"))
        hub.data_status = 403
        problem = refusal("hf:me/foxes", data, models)
        assert problem.startswith("the Hub answered 403: ")
        assert f"{hub.endpoint}/signed/data/train-00000-of-00001.parquet" in problem
        assert "SECRET" not in problem

    @slow
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_busy_hub(self, hub: HubServer, data: Path, models: Path, status: int) -> None:
        hub.info_status = status
        assert refusal("hf:me/foxes", data, models, is_permanent=False).startswith(f"the Hub answered {status}: ")
        assert hub.requests == 2 * ["GET /api/datasets/me/foxes"]

    @pytest.mark.parametrize(
        ("error", "problem", "is_permanent"),
        [
            (ConnectionResetError(errno.ECONNRESET, "reset"), "the Hub cannot be reached ([Errno 104] reset)", False),
            (TimeoutError(), "the Hub cannot be reached (TimeoutError)", False),
            (OSError(errno.ENOSPC, "No space left on device"), "it cannot be stored: No space left on device", True),
            (RuntimeError("CAS service error"), "CAS service error", False),
            (
                UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
                "'utf-8' codec can't decode byte 0xff in position 0: no",
                True,
            ),
        ],
    )
    def test_faults_that_a_restart_may_cure(self, error: Exception, problem: str, is_permanent: bool) -> None:
        assert _problem(error) == (problem, is_permanent)

    def test_a_fault_that_the_network_caused_is_one_of_the_network(self) -> None:
        error = ValueError("wrong data")  # as of `raise error from None` where another one is handled
        error.__context__, error.__suppress_context__ = ConnectionResetError("reset"), True
        assert _problem(error) == ("the Hub cannot be reached (reset)", False)

    def test_an_unreachable_hub(
        self, hub: HubServer, data: Path, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        began = time.monotonic()
        assert refusal("hf:me/foxes", data, models, is_permanent=False).startswith("the Hub cannot be reached (")
        assert time.monotonic() - began < 20

    @slow
    def test_a_hub_that_does_not_answer(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.hangs.set()
        # Longer than importing `datasets` takes.
        problem = refusal("hf:me/foxes", data, models, is_permanent=False, attempts=4, timeout_s=20.0)
        assert problem == "nothing was received within 20 s."
        assert hub.requests

    def test_a_killed_download_leaves_nothing_behind(
        self, hub: HubServer, data: Path, models: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "tmp").mkdir()
        hub.hangs.set()
        settings = {"DATASET_URL": "hf:me/foxes", "GPTBOX_DATA": str(data), "GPTBOX_MODELS": str(models)}
        with subprocess.Popen(
            [sys.executable, "-m", "gptbox", "prepare"],
            env=os.environ | settings | {"TMPDIR": str(tmp_path / "tmp")},
            start_new_session=True,
        ) as process:
            wait_until(lambda: bool(hub.requests))
            process.kill()
        wait_until(lambda: not is_alive(process.pid))
        assert list((tmp_path / "tmp").iterdir()) == []
        hub.hangs.clear()
        assert text_at("hf:me/foxes", models).read(data).summary.documents == 2500
        assert len([path for path in (data / FOLDER).iterdir() if path.name != ".lock"]) == 1

    @slow
    def test_no_thread_can_be_started(
        self, hub: HubServer, data: Path, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = threading.Thread.start

        def fail(thread: Any) -> None:
            if getattr(thread, "_target", None) is hub_text._read:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", fail)
        hub.hangs.set()
        began = time.monotonic()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            text_at("hf:me/foxes", models).fetch(data)
        assert time.monotonic() - began < 10, "the process is not waited for"

    @pytest.mark.acceptance  # the library tries for half a minute
    def test_a_connection_that_is_lost(self, hub: HubServer, data: Path, models: Path) -> None:
        hub.fails_after = 30_000
        problem = refusal("hf:me/foxes", data, models, is_permanent=False, attempts=1)
        assert problem.startswith("the Hub cannot be reached (")

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

    def test_a_full_disk(self, hub: HubServer, models: Path, tmp_path: Path) -> None:
        (tmp_path / "foxes.jsonl").symlink_to("/dev/full")
        problem = refusal_of(lambda: text_at("hf:me/foxes", models)._stream(tmp_path / "foxes.jsonl", lambda *_: None))
        assert "it cannot be stored: No space left on device." in problem

    @slow
    def test_a_process_that_dies(
        self, hub: HubServer, data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "datasets.py").write_text(
            "import os\nos.write(2, b'at first\\n\\x1b[31mno memory for http://me:SECRET@hub/a?b=SECRET!\\n')\nos.abort()\n"
        )
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
        assert refusal("hf:me/foxes", data, models, is_permanent=False) == (
            "the process that reads it ended unexpectedly: [31mno memory for http://hub/a!."
        )

    def test_a_name_like_a_built_in_one_is_refused(self, data: Path) -> None:
        with pytest.raises(DatasetError, match="cannot be called plays"):
            find_dataset("plays", data, "hf:me/plays")


def refusal_of(action: object) -> str:
    with pytest.raises(DownloadError) as error:
        action()  # type: ignore[operator]
    return str(error.value)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(group: int) -> bool:
    """Whether a process group has processes."""
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("403 at\n'https://cdn.example/x?X-Amz-Signature=SECRET'.\nWhy?", "403 at 'https://cdn.example/x'. Why?"),
        ("(http://me:SEC@RET@hub:80/a#SECRET)", "(http://hub:80/a)"),
        ("error with url: /a/b?token=SECRET (caused by c)", "error with url: /a/b (caused by c)"),
        ("https://hub?SECRET,https://me:SECRET@hub", "https://hub"),
        ("http://[bad?SECRET", "http://[bad"),
        ("hf://datasets/me/foxes@c0ffee/train.jsonl and me@example.org", None),
        ("a\x1b[31mb\x00\u202ec", "a[31mbc"),
        ("x" * 501, "x" * 499 + "…"),
    ],
)
def test_public_text(text: str, public: str | None) -> None:
    assert public_text(text) == (public or text)
