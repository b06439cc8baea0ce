"""Tiny Shakespeare: the user's copy, a download from a real server with real faults, and the plays as a fallback."""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.datasets.http_server import Server, refuses, sends

from gptbox.datasets.base import Corpus, Dataset
from gptbox.datasets.progress import ProgressCallback, no_progress
from gptbox.datasets.tiny_shakespeare import SHA256, URL, TinyShakespeare
from gptbox.errors import DatasetError, DownloadError


class Plays(Dataset):
    name = "plays"

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        return Corpus.from_text(
            "HAMLET:\nTo be, or not to be\n\n", "the complete plays of Shakespeare", ("A note of the plays.",)
        )


class Missing(Dataset):
    name = "plays"

    def read(self, data: Path, on_progress: ProgressCallback = no_progress) -> Corpus:
        raise DatasetError("The plays are not installed.")


def dataset(
    url: str, fallback: Dataset | None = None, timeout_s: float = 5.0, total_timeout_s: float = 30.0
) -> TinyShakespeare:
    return TinyShakespeare(url, fallback or Plays(), timeout_s, total_timeout_s, retry_delays_s=(0.01, 0.02))


def failure(source: TinyShakespeare) -> str:
    with pytest.raises(DownloadError) as error:
        source.download()
    return str(error.value)


def test_the_url_is_pinned_to_a_commit() -> None:
    assert re.search(r"/char-rnn/[0-9a-f]{40}/data/tinyshakespeare/input\.txt$", URL)


def test_the_download_is_the_text(serve: Callable[..., Server], tiny_shakespeare: Path, tmp_path: Path) -> None:
    server = serve(sends(tiny_shakespeare.read_bytes()))
    corpus = dataset(server.url).read(tmp_path)
    assert corpus.text == tiny_shakespeare.read_text(encoding="utf-8")
    assert hashlib.sha256(corpus.text.encode()).hexdigest() == SHA256
    assert corpus.source == "Tiny Shakespeare (downloaded)"
    assert corpus.notes == ()
    assert server.requests == ["gptbox"]


def test_transient_errors_are_retried(serve: Callable[..., Server], tiny_shakespeare: Path) -> None:
    whole = tiny_shakespeare.read_bytes()
    server = serve(refuses(503), sends(whole[:1000], promised=len(whole)), sends(whole))
    assert dataset(server.url).download() == whole.decode()
    assert len(server.requests) == 3


def test_a_lasting_error_ends_after_three_attempts(serve: Callable[..., Server]) -> None:
    server = serve(refuses(502))
    message = failure(dataset(server.url))
    assert "502 Bad Gateway" in message
    assert server.url in message
    assert len(server.requests) == 3


def test_an_incomplete_download_is_retried(serve: Callable[..., Server]) -> None:
    server = serve(sends(b"x" * 10, promised=1000))
    assert "ended after 10 of 1000 bytes" in failure(dataset(server.url))
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_wrong_url_is_not_retried(serve: Callable[..., Server], code: int) -> None:
    server = serve(refuses(code))
    assert f"answered {code} " in failure(dataset(server.url))
    assert len(server.requests) == 1


def test_another_text_is_rejected_with_both_hashes(serve: Callable[..., Server]) -> None:
    server = serve(sends(b"another text"))
    message = failure(dataset(server.url))
    assert hashlib.sha256(b"another text").hexdigest() in message
    assert SHA256 in message
    assert len(server.requests) == 1


def test_an_endless_answer_is_cut_off(serve: Callable[..., Server]) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            pass  # the client closed the connection

    server = serve(endless)
    assert "it has more than 8,388,608 bytes" in failure(dataset(server.url))
    assert len(server.requests) == 1


def test_a_silent_server_times_out(serve: Callable[..., Server]) -> None:
    released = threading.Event()
    server = serve(lambda _: released.wait(3) and None)
    began = time.monotonic()
    assert "timed out" in failure(dataset(server.url, timeout_s=0.2))
    assert time.monotonic() - began < 3
    released.set()
    assert len(server.requests) == 3


def test_a_slow_download_ends_at_the_total_timeout(serve: Callable[..., Server]) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass  # the client closed the connection

    server = serve(trickle)
    began = time.monotonic()
    assert re.search("within 0.5 s|in 0.5 s", failure(dataset(server.url, total_timeout_s=0.5)))
    assert time.monotonic() - began < 3


def test_a_refused_connection_takes_less_than_five_seconds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    corpus = TinyShakespeare(f"http://127.0.0.1:{port}/input.txt", Plays()).read(tmp_path)
    assert time.monotonic() - began < 5
    assert "Connection refused" in corpus.notes[0]


def test_the_default_timeouts_are_below_forty_seconds() -> None:
    source = TinyShakespeare()
    assert source.timeout_s <= 10
    assert source.total_timeout_s < 40


def test_the_plays_replace_a_failed_download_with_notes(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(refuses(404))
    corpus = dataset(server.url).read(tmp_path)
    assert corpus.text == Plays().read(tmp_path).text
    assert corpus.source == "the complete plays of Shakespeare (Tiny Shakespeare could not be downloaded)"
    reason, advice, *rest = corpus.notes
    assert "404" in reason
    assert f"save {server.url} as {tmp_path / 'shakespeare_char' / 'input.txt'}" in advice
    assert rest == ["A note of the plays."]


def test_without_the_plays_the_error_names_both_failures(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(refuses(404))
    with pytest.raises(DownloadError, match=r"404.*save .*input\.txt.*The plays are not installed\."):
        dataset(server.url, Missing()).read(tmp_path)


class TestUserCopy:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "shakespeare_char").mkdir()
        return tmp_path / "shakespeare_char" / "input.txt"

    def test_it_takes_precedence_over_the_download(
        self, serve: Callable[..., Server], file: Path, tmp_path: Path, tiny_shakespeare: Path
    ) -> None:
        server = serve(refuses(500))
        file.write_bytes(tiny_shakespeare.read_bytes())
        corpus = dataset(server.url).read(tmp_path)
        assert corpus.text == tiny_shakespeare.read_text(encoding="utf-8")
        assert corpus.source == "Tiny Shakespeare (input.txt)"
        assert corpus.notes == ()
        assert server.requests == []

    def test_a_copy_with_windows_line_endings_is_recognised(
        self, file: Path, tmp_path: Path, tiny_shakespeare: Path
    ) -> None:
        file.write_bytes(tiny_shakespeare.read_bytes().replace(b"\n", b"\r\n"))
        corpus = TinyShakespeare().read(tmp_path)
        assert corpus.source == "Tiny Shakespeare (input.txt)"
        assert corpus.notes == ("input.txt: 40,000 Windows line endings (CR LF) became LF.",)

    def test_another_text_is_used_with_a_note(self, file: Path, tmp_path: Path) -> None:
        file.write_text("Something else.\n")
        corpus = TinyShakespeare().read(tmp_path)
        assert corpus.text == "Something else.\n"
        assert corpus.source == "the text shakespeare_char (input.txt)"
        [note] = corpus.notes
        assert SHA256 in note
        assert hashlib.sha256(b"Something else.\n").hexdigest() in note

    def test_an_empty_file_is_an_error_and_not_downloaded_instead(self, file: Path, tmp_path: Path) -> None:
        file.touch()
        with pytest.raises(DatasetError, match=r"input\.txt is empty"):
            TinyShakespeare().read(tmp_path)

    def test_a_broken_link_is_an_error(self, file: Path, tmp_path: Path) -> None:
        file.symlink_to("gone.txt")
        with pytest.raises(DatasetError, match=r"input\.txt cannot be read"):
            TinyShakespeare().read(tmp_path)

    def test_a_file_of_another_name_is_noted(self, serve: Callable[..., Server], file: Path, tmp_path: Path) -> None:
        file.with_name("mine.txt").write_text("x")
        corpus = dataset(serve(refuses(404)).url).read(tmp_path)
        assert corpus.notes[0] == f"Only a file named {file} would be used, not mine.txt beside it."
