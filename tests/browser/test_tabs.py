"""Many tabs of one browser: one feed for all of them, as long as somebody looks."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

# Of a server that is gone for a moment.
GONE = "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE"


def feeds(box) -> int:
    return int(box.service.feed.watchers)


def shows(page: Page, step: int) -> None:
    expect(page.locator("#steps-done")).to_have_text(f"Step {step:,} of 4,000")


def see(page: Page, hidden: bool) -> None:
    """Hide or show a tab, as switching to another one does."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def shorter_minute(box) -> None:
    """Tabs tell every half second that they are seen, and two seconds after the last one did the feed is let go."""
    box.edits += [
        (b"LEASE_MS = 60_000", b"LEASE_MS =  2_000"),
        (b"WATCH_EVERY_MS = 20_000", b"WATCH_EVERY_MS =    500"),
    ]


def test_seven_tabs_share_one_feed_without_a_secure_place(ready, open_page: Open) -> None:
    """HTTP/1.1 has six connections to a host: with a feed a tab the seventh would never load."""
    ready.status("training", step=250, steps=4000)
    page = open_page(f"http://gptbox.test:{ready.port}/")
    assert page.evaluate("isSecureContext") is False
    tabs = [page, *(open_page(page.url, beside=page) for _ in range(6))]
    for tab in tabs:
        shows(tab, 250)
    assert feeds(ready) == 1
    ready.status("training", step=300)
    for tab in tabs:
        shows(tab, 300)
    seventh = tabs[-1]
    seventh.get_by_label("Length").fill("300")
    seventh.get_by_role("button", name="Generate").click()
    expect(seventh.locator("#facts")).to_contain_text("300 characters in")
    assert feeds(ready) == 1


def test_the_feed_survives_the_tab_that_opened_it(ready, open_page: Open) -> None:
    ready.status("training", step=250, steps=4000)
    page = open_page(ready.url)
    other = open_page(ready.url, beside=page)
    shows(other, 250)
    page.close()
    ready.status("training", step=300)
    shows(other, 300)
    other.reload()
    shows(other, 300)
    ready.status("training", step=350)
    shows(other, 350)
    assert feeds(ready) == 1
    other.close()
    ready.wait_until(lambda: feeds(ready) == 0)


def test_a_tab_that_comes_later_knows_the_state_at_once(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.locator("#connection")).to_contain_text("step 250")
    ready.service.feed.poll_s = 60.0  # whatever it gets now, it is not a new event
    other = open_page(ready.url, beside=page)
    expect(other.locator("#connection")).to_contain_text("step 250")


def test_every_tab_comes_back_with_the_server(ready, open_page: Open) -> None:
    page = open_page(ready.url, allowed=GONE)
    other = open_page(ready.url, allowed=GONE, beside=page)
    ready.stop()
    for tab in (page, other):
        expect(tab.locator("#connection")).to_have_text("Connection lost, trying again\u2026")
    ready.publish(500)
    ready.start()
    for tab in (page, other):
        expect(tab.locator("#connection")).to_contain_text("step 500", timeout=30_000)
    assert feeds(ready) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_a_feed_that_nobody_has_seen_for_a_minute_is_let_go(make_box, open_page: Open, shared: bool) -> None:
    box = make_box(model=True)
    shorter_minute(box)
    box.status("training", step=250, steps=4000)
    page = open_page(box.url, script="" if shared else "delete window.SharedWorker")
    other = open_page(box.url, beside=page)
    shows(page, 250)
    shows(other, 250)
    assert feeds(box) == (1 if shared else 2)
    see(page, hidden=True)
    page.wait_for_timeout(4000)
    assert feeds(box) == 1, "one is seen"
    box.status("training", step=275)
    shows(other, 275)
    shows(page, 250)
    see(other, hidden=True)
    box.wait_until(lambda: feeds(box) == 0)
    expect(page.locator("#connection")).to_contain_text("step 250"), "that is not a lost connection"
    box.status("training", step=300)
    see(page, hidden=False)
    shows(page, 300)
    assert feeds(box) == 1


def test_a_page_that_is_left_and_come_back_to_goes_on(ready, open_page: Open) -> None:
    """As browsers do that keep a page in memory: no reload, the same document."""
    ready.status("training", step=250, steps=4000)
    page = open_page(ready.url)
    shows(page, 250)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    ready.status("training", step=300)
    page.wait_for_timeout(1500)
    shows(page, 250)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    shows(page, 300)
    ready.status("training", step=350)
    shows(page, 350)
    assert feeds(ready) == 1


@pytest.mark.parametrize(
    ("edits", "allowed"),
    [
        ([(b"import { Feed, LEASE_MS }", b"imp0rt { Feed, LEASE_MS }")], "SyntaxError|Unexpected token"),
        (
            [
                (b'addEventListener("connect"', b'addEventListener("no-such"'),
                (b"PATIENCE_MS = 10_000", b"PATIENCE_MS =    500"),
            ],
            "",
        ),
    ],
    ids=["cannot be loaded", "does not answer"],
)
def test_without_the_worker_each_tab_has_its_own_feed(
    make_box, open_page: Open, edits: list[tuple[bytes, bytes]], allowed: str
) -> None:
    box = make_box(model=True)
    box.edits += edits
    page = open_page(box.url, allowed=allowed)
    other = open_page(box.url, allowed=allowed, beside=page)
    for tab in (page, other):
        expect(tab.locator("#connection")).to_contain_text("step 250")
    box.publish(500)
    for tab in (page, other):
        expect(tab.locator("#connection")).to_contain_text("step 500")
    assert feeds(box) == 2
