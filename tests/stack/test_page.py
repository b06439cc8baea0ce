"""The page and its files, which Apache serves from its image: compressed, cached, and while web is down."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from gptbox.web.page.assets import minified

Until = Callable[..., Any]

STATIC = Path(__file__).parents[2] / "src" / "gptbox" / "web" / "static"
IMMUTABLE = "public, max-age=31536000, immutable"
NAMES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())
NAMES.remove("index.html")
OTHER = "0123456789ab"
"""The fingerprint of no version."""
CHANGED = "net::ERR_NETWORK_CHANGED"


def fingerprint(page: httpx.Response) -> str:
    """The one that all addresses in the page have."""
    found = {match[1] for match in re.finditer(r'(?:src|href)="static/([0-9a-f]{12})/', page.text)}
    assert len(found) == 1
    return str(found.pop())


@pytest.fixture
def folder(serving: Any) -> str:
    """The address of the page's files."""
    return f"/static/{fingerprint(serving.http.get('/'))}"


def test_apache_and_web_have_the_same_page(serving: Any) -> None:
    code = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8000/').read().decode(), end='')"
    assert serving.inside("web", "python", "-c", code) == (0, serving.http.get("/").text)


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_every_file_comes_from_apache_as_web_would_send_it_but_for_comments(
    serving: Any, folder: str, encoding: str
) -> None:
    headers = {"Accept-Encoding": encoding}
    for name in NAMES:
        reply = serving.http.get(f"{folder}/{name}", headers=headers)
        assert reply.status_code == 200, name
        assert "x-request-id" not in reply.headers, "not from web"
        assert reply.content == minified(STATIC, name)
        assert reply.headers["cache-control"] == IMMUTABLE
        assert reply.headers["vary"] == "Accept-Encoding"
        is_text = Path(name).suffix in (".css", ".js", ".svg")
        assert reply.headers.get("content-encoding") == ("gzip" if encoding == "gzip" and is_text else None)
        from_web = serving.http.get(f"/static/{OTHER}/{name}", headers=headers)
        assert "x-request-id" in from_web.headers
        assert from_web.headers["cache-control"] == "no-cache"
        assert from_web.headers["content-type"] == reply.headers["content-type"]
        assert from_web.content == (STATIC / name).read_bytes()


def test_the_compressed_copies_are_as_small_as_gzip_can_make_them(serving: Any, folder: str) -> None:
    sizes = {
        prefix: sum(len(b"".join(stream(serving, f"{prefix}/{name}"))) for name in NAMES)
        for prefix in (folder, f"/static/{OTHER}")
    }
    assert sizes[folder] < sizes[f"/static/{OTHER}"], "compressed once more for each request, faster and less"


def stream(stack: Any, path: str) -> Iterator[bytes]:
    """The body as it is transferred."""
    with stack.http.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as reply:
        yield from reply.iter_raw()


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("deflate, gzip;q=0.01, br", "gzip"),
        ("gzip;q=0", None),
        ("gzip ; q=0.000, br", None),
        ("br", None),
        ("", None),
    ],
)
def test_the_encoding_is_one_that_the_client_accepts(
    serving: Any, folder: str, accepted: str, encoding: str | None
) -> None:
    for path in ("/", f"{folder}/main.js"):
        reply = serving.http.get(path, headers={"Accept-Encoding": accepted})
        assert reply.status_code == 200
        assert reply.headers.get("content-encoding") == encoding


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_page_and_its_files_can_be_revalidated(serving: Any, folder: str, encoding: str) -> None:
    headers = {"Accept-Encoding": encoding}
    for path, caching in (("/", "no-cache"), (f"{folder}/main.js", IMMUTABLE)):
        first = serving.http.get(path, headers=headers)
        assert first.headers["cache-control"] == caching
        again = serving.http.get(path, headers={**headers, "If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["cache-control"] == caching
        assert serving.http.get(path, headers={**headers, "If-None-Match": '"other"'}).status_code == 200


def test_the_encodings_of_a_file_have_etags_of_their_own(serving: Any, folder: str) -> None:
    for path in ("/", f"{folder}/main.js"):
        etags = {serving.http.get(path, headers={"Accept-Encoding": e}).headers["etag"] for e in ("gzip", "identity")}
        assert len(etags) == 2


def test_head_and_range_requests(serving: Any, folder: str) -> None:
    whole = minified(STATIC, "app.css")
    for path, length in (("/", len(serving.http.get("/").content)), (f"{folder}/app.css", len(whole))):
        head = serving.http.head(path, headers={"Accept-Encoding": "identity"})
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(length))
    part = serving.http.get(f"{folder}/app.css", headers={"Accept-Encoding": "identity", "Range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, whole[10:30])
    assert part.headers["content-range"] == f"bytes 10-29/{len(whole)}"
    beyond = serving.http.get(f"{folder}/app.css", headers={"Range": "bytes=9999999-"})
    assert beyond.status_code == 416
    assert "immutable" not in beyond.headers.get("cache-control", "")


def test_other_methods_are_left_to_web(serving: Any, folder: str) -> None:
    for path in ("/", f"{folder}/main.js"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            reply = serving.http.request(method, path)
            assert reply.status_code == 405
            assert "x-request-id" in reply.headers


def test_nothing_else_of_the_site_can_be_requested(serving: Any, folder: str) -> None:
    for path in (
        folder, f"{folder}/", f"{folder}/nothing.js", f"{folder}/index.html", f"{folder}/main.js.gz", "/index.html",
        f"{folder}/%2e%2e/%2e%2e/index.html", "/site/index.html", "/srv/gptbox/site/index.html",
        f"{folder}/..%2f..%2findex.html", f"{folder}/main.js%00", "/static/", "/pages/starting",
    ):  # fmt: skip
        reply = serving.http.get(path)
        assert reply.status_code == 404, path
        assert "immutable" not in reply.headers.get("cache-control", "")


def test_a_page_of_an_older_version_finds_its_files(serving: Any) -> None:
    """Of before an update, or of before files had fingerprints."""
    for path in (f"/static/{OTHER}/feed-worker.js", "/static/feed-worker.js"):
        reply = serving.http.get(path)
        assert reply.status_code == 200
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.content == (STATIC / "feed-worker.js").read_bytes()


@pytest.fixture
def without_web(serving: Any, until: Until) -> Iterator[Any]:
    serving.compose("stop", "web")
    yield serving
    serving.compose("up", "--detach", "--no-build", "web")
    until(lambda: serving.http.get("/readyz").status_code == 200, within=60, what="a model after the test")


def test_the_page_loads_while_web_is_down(without_web: Any) -> None:
    started = time.monotonic()
    page = without_web.http.get("/")
    assert page.status_code == 200
    for name in NAMES:
        reply = without_web.http.get(f"/static/{fingerprint(page)}/{name}")
        assert (reply.status_code, reply.content) == (200, minified(STATIC, name))
    assert time.monotonic() - started < 3
    assert without_web.http.get("/api/status").json()["error"]["code"] == "unavailable"
    starting = without_web.http.get("/cgi-bin/test")
    assert starting.status_code == 503
    assert "gptbox is starting" in starting.text


# Of this module, not of the session: while Playwright runs, no other test can run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        reason = "Chromium is not installed (Debian: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def open_page(chromium: Browser, url: str) -> Page:
    """A new page; again if Chromium drops a request, as it does when a container starts or stops on this machine."""
    page = chromium.new_page()
    dropped: list[str] = []
    page.on(
        "requestfailed", lambda request: dropped.append(request.url) if CHANGED in (request.failure or "") else None
    )
    for _ in range(5):
        dropped.clear()
        try:
            page.goto(url)
        except Error as error:
            if CHANGED not in error.message:
                raise
            continue
        if not dropped:
            return page
    pytest.fail(f"Chromium dropped {dropped}, five times")


def test_a_browser_that_comes_while_web_is_down_reconnects(without_web: Any, chromium: Browser) -> None:
    page = open_page(chromium, without_web.url)
    expect(page.locator("#connection")).to_have_text("Connection lost. Reconnecting\u2026", timeout=10_000)
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()
    without_web.compose("start", "web")
    expect(page.locator("#connection")).to_contain_text("Model: ", timeout=30_000)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    page.close()


def test_a_browser_asks_for_files_once_and_revalidates_the_page(serving: Any, chromium: Browser) -> None:
    """What reaches Apache: Chromium reports 304 and its cache to the page as 200, but its sizes tell them apart."""
    page = open_page(chromium, serving.url)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))

    def transferred() -> tuple[int, int]:
        """Bytes of the document and of the files, headers included."""
        expect(page.get_by_role("button", name="Generate")).to_be_enabled(timeout=20_000)
        document, files = page.evaluate(
            """() => {
              const files = performance.getEntriesByType("resource").filter(({ name }) => name.includes("/static/"));
              return [performance.getEntriesByType("navigation"), files].map(
                (entries) => entries.reduce((sum, { transferSize }) => sum + transferSize, 0));
            }"""
        )
        return document, files

    first = transferred()
    page.goto("about:blank")
    page.goto(serving.url)
    second = transferred()
    assert first[1] > 10_000
    assert sum(first) < 100_000
    assert second[1] == 0, "no file is asked for again"
    assert second[0] < 1000, "the page is not sent again"
    assert errors == []
    page.close()
