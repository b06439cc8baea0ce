"""Downloads from a real server. test_tiny_shakespeare.py has the faults of the network and their retries."""

import hashlib
import io
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.datasets.http_server import Answer, Server, redirects, refuses, sends

from gptbox.datasets.download import Download, public_url
from gptbox.errors import DownloadError

CONTENT = b"a text\n" * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def download(url: str, max_bytes: int = 1 << 20, sha256: str | None = None) -> Download:
    return Download("The text", url, max_bytes, sha256, retry_delays_s=(0.01,))


def test_the_content_its_hash_and_its_address(serve: Callable[..., Server]) -> None:
    file = io.BytesIO()
    server = serve(sends(CONTENT))
    found = download(server.url, sha256=SHA256).to_file(file)
    assert file.getvalue() == CONTENT
    assert found == (len(CONTENT), SHA256, server.url)


def test_a_redirect_is_followed(serve: Callable[..., Server]) -> None:
    server = serve(redirects("/files/a.txt"), sends(CONTENT))
    assert download(server.url).to_file(io.BytesIO()).url == server.at("files/a.txt")


@pytest.mark.parametrize("target", ["ftp://127.0.0.1:9/a.txt", "file:///etc/passwd", "data:,text"])
def test_a_redirect_to_another_protocol_is_not_followed(serve: Callable[..., Server], target: str) -> None:
    file = io.BytesIO()
    with pytest.raises(DownloadError):
        download(serve(redirects(target)).url).to_file(file)
    assert file.getvalue() == b""


def test_a_failed_attempt_leaves_nothing_in_the_next(serve: Callable[..., Server]) -> None:
    file = io.BytesIO()
    download(serve(sends(b"x" * 5000, promised=100_000), sends(b"short")).url).to_file(file)
    assert file.getvalue() == b"short"


def test_a_promised_size_above_the_limit_is_refused_at_once(serve: Callable[..., Server]) -> None:
    with pytest.raises(DownloadError, match="it has 5,000,000,000 bytes, more than 1,048,576"):
        download(serve(sends(b"x", promised=5_000_000_000)).url).to_file(io.BytesIO())


@pytest.mark.parametrize(
    ("answer", "is_permanent"),
    [(refuses(404), True), (refuses(503), False), (sends(b"another"), True), (sends(b"x", promised=9), False)],
)
def test_an_error_says_whether_another_attempt_would_help(
    serve: Callable[..., Server], answer: Answer, is_permanent: bool
) -> None:
    with pytest.raises(DownloadError) as error:
        download(serve(answer).url, sha256=SHA256).to_file(io.BytesIO())
    assert error.value.is_permanent == is_permanent


def test_a_web_page_is_refused(serve: Callable[..., Server]) -> None:
    server = serve(sends(b"<html>", content_type="text/html; charset=utf-8"))
    with pytest.raises(DownloadError, match="the server answered with a web page, not with a text"):
        download(server.url).to_file(io.BytesIO())
    assert len(server.requests) == 1


def test_a_file_that_cannot_grow_is_reported_and_not_retried(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(sends(CONTENT))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "a.txt").open("wb") as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as on a full disk
        try:
            with pytest.raises(DownloadError) as error:
                download(server.url).to_file(file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).endswith("it cannot be stored: File too large.")
    assert len(server.requests) == 1


def test_progress_is_reported(serve: Callable[..., Server]) -> None:
    def slow(handler: object) -> None:
        send = sends(CONTENT[:1000], promised=2000)
        send(handler)  # type: ignore[arg-type]
        time.sleep(0.7)
        handler.wfile.write(CONTENT[:1000])  # type: ignore[attr-defined]

    reports: list[tuple[int, int]] = []
    download(serve(slow).url).to_file(io.BytesIO(), lambda done, total: reports.append((done, total)))
    assert (1000, 2000) in reports


def test_spaces_and_letters_beyond_ascii_are_escaped(serve: Callable[..., Server]) -> None:
    server = serve(sends(CONTENT))
    found = download(server.at("schöne texte/a%20b.txt?q=ü#sha256=0")).to_file(io.BytesIO())
    assert found.url == server.at("sch%C3%B6ne%20texte/a%20b.txt?q=%C3%BC")


def test_a_public_address_has_no_secrets() -> None:
    assert public_url("https://me:secret@example.org/a.txt?token=1#sha256=2") == "https://example.org/a.txt"


def test_errors_have_no_secrets() -> None:
    with pytest.raises(DownloadError) as error:
        download("http://127.0.0.1:9/a.txt?token=secret").to_file(io.BytesIO())
    assert "secret" not in str(error.value)
    assert "from http://127.0.0.1:9/a.txt: Connection refused." in str(error.value)
