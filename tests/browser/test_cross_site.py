"""Another site's page in the same browser cannot use the engine; gptbox's own page can.

Tested over plain http with host names, where browsers send no Sec-Fetch-Site, and over 127.0.0.1, where they do.
"""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gptbox.web.middleware import CrossSiteMiddleware

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

BODY = json.dumps({"max_tokens": 50, "prompt": "x"})
# A form sends `name=value`; the equals sign ends up in the ignored field `user`.
FORM = """<!doctype html><title>elsewhere</title><link rel="icon" href="data:,">
<form method="post" action="{url}v1/completions" enctype="text/plain">
<input name='{{"max_tokens": 50, "user": "' value='"}}'><button>Win a prize</button></form>"""
FETCH = """async ([url, body]) => {
  const options = {method: "POST", mode: "no-cors", body, headers: {"Content-Type": "text/plain"}};
  const response = await fetch(`${url}v1/completions`, options);
  return [response.type, response.status];
}"""


@pytest.fixture
def evil(ready: Any) -> Iterator[int]:
    """The port of another site. Its path names the host to attack; pages below /sandboxed/ have no origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            *sandboxed, host = self.path.removeprefix("/").split("/")
            content = FORM.format(url=f"http://{host}:{ready.port}/").encode()
            self.send_response(200)
            if sandboxed:
                self.send_header("Content-Security-Policy", "sandbox allow-forms allow-scripts")
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def posts(monkeypatch: pytest.MonkeyPatch) -> list[Headers]:
    """The headers of each POST that gptbox receives, as the browser sent them."""
    found: list[Headers] = []
    call = CrossSiteMiddleware.__call__

    async def recording(self: CrossSiteMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            found.append(Headers(scope=scope))
        await call(self, scope, receive, send)

    monkeypatch.setattr(CrossSiteMiddleware, "__call__", recording)
    return found


@pytest.mark.parametrize(
    ("host", "other"), [("gptbox.test", "evil.test"), ("127.0.0.1", "localhost"), ("gptbox.test", "gptbox.test")]
)
@pytest.mark.parametrize("sandboxed", [False, True])
def test_other_sites_page_is_refused_and_generates_nothing(
    ready: Any, evil: int, posts: list[Headers], open_page: Open, host: str, other: str, sandboxed: bool
) -> None:
    page = open_page(f"http://{other}:{evil}/{'sandboxed/' if sandboxed else ''}{host}", allowed="403|404")
    with page.expect_response("**/v1/completions") as refused:
        assert page.evaluate(FETCH, [f"http://{host}:{ready.port}/", BODY]) == ["opaque", 0]
    assert refused.value.status == 403
    with page.expect_navigation():
        page.get_by_role("button").click()
    assert "cross_site_request" in page.content()
    assert [sent["origin"] for sent in posts] == ["null" if sandboxed else f"http://{other}:{evil}"] * 2
    assert {sent["host"] for sent in posts} == {f"{host}:{ready.port}"}
    assert {sent.get("sec-fetch-site") for sent in posts} == {"cross-site" if host == "127.0.0.1" else None}
    assert ready.service.scheduler.tokens == 0


@pytest.mark.parametrize("host", ["gptbox.test", "127.0.0.1", "localhost"])
def test_own_page_generates(ready: Any, posts: list[Headers], open_page: Open, host: str) -> None:
    page = open_page(f"http://{host}:{ready.port}/")
    page.get_by_label("Length", exact=True).fill("40")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#copy")).to_be_visible()
    assert len(page.locator("#text ins").text_content() or "") == 40
    [sent] = posts
    assert sent["origin"] == f"http://{host}:{ready.port}"
    assert sent.get("sec-fetch-site") == (None if host == "gptbox.test" else "same-origin")
