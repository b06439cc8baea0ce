"""Many tabs of one browser share one feed, as long as one of them is visible."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

# Errors while the server is down.
SERVER_DOWN = "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE"


def feeds(box) -> int:
    return int(box.service.feed.subscribers)


def expect_step(page: Page, step: int) -> None:
    expect(page.locator("#steps-done")).to_have_text(f"Step {step:,} of 4,000")


def set_hidden(page: Page, hidden: bool) -> None:
    """Hide or show a tab, as switching to another one does."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def shorten_lease(box) -> None:
    """Visible tabs renew the feed every half second; it closes two seconds after the last renewal."""
    box.edits += [
        (b"LEASE_MS = 60_000", b"LEASE_MS =  2_000"),
        (b"WATCH_INTERVAL_MS = 20_000", b"WATCH_INTERVAL_MS =    500"),
    ]


def test_seven_tabs_share_one_feed_in_an_insecure_context(ready, open_page: Open) -> None:
    """Browsers limit HTTP/1.1 to six connections per host: with one feed per tab the seventh would never load."""
    ready.status("training", step=250, steps=4000)
    page = open_page(f"http://gptbox.test:{ready.port}/")
    assert page.evaluate("isSecureContext") is False
    tabs = [page, *(open_page(page.url, beside=page) for _ in range(6))]
    for tab in tabs:
        expect_step(tab, 250)
    assert feeds(ready) == 1
    ready.status("training", step=300)
    for tab in tabs:
        expect_step(tab, 300)
    seventh = tabs[-1]
    seventh.get_by_label("Length").fill("300")
    seventh.get_by_role("button", name="Generate").click()
    expect(seventh.locator("#facts")).to_contain_text("300 characters in")
    assert feeds(ready) == 1


def test_feed_outlives_the_tab_that_opened_it(ready, open_page: Open) -> None:
    ready.status("training", step=250, steps=4000)
    page = open_page(ready.url)
    other = open_page(ready.url, beside=page)
    expect_step(other, 250)
    page.close()
    ready.status("training", step=300)
    expect_step(other, 300)
    other.reload()
    expect_step(other, 300)
    ready.status("training", step=350)
    expect_step(other, 350)
    assert feeds(ready) == 1
    other.close()
    ready.wait_until(lambda: feeds(ready) == 0)


def test_later_tab_shows_the_state_at_once(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.locator("#connection")).to_contain_text("step 250")
    ready.service.feed.poll_s = 60.0  # so that no new event is sent
    other = open_page(ready.url, beside=page)
    expect(other.locator("#connection")).to_contain_text("step 250")


def test_every_tab_reconnects_when_the_server_returns(ready, open_page: Open) -> None:
    page = open_page(ready.url, allowed=SERVER_DOWN)
    other = open_page(ready.url, allowed=SERVER_DOWN, beside=page)
    ready.stop()
    for tab in (page, other):
        expect(tab.locator("#connection")).to_have_text("Connection lost. Reconnecting\u2026")
    ready.publish(500)
    ready.start()
    for tab in (page, other):
        expect(tab.locator("#connection")).to_contain_text("step 500", timeout=30_000)
    assert feeds(ready) == 1


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.acceptance)])
def test_feed_closes_after_a_minute_without_a_visible_tab(make_box, open_page: Open, shared: bool) -> None:
    box = make_box(model=True)
    shorten_lease(box)
    box.status("training", step=250, steps=4000)
    page = open_page(box.url, script="" if shared else "delete window.SharedWorker")
    other = open_page(box.url, beside=page)
    expect_step(page, 250)
    expect_step(other, 250)
    assert feeds(box) == (1 if shared else 2)
    set_hidden(page, hidden=True)
    page.wait_for_timeout(4000)
    assert feeds(box) == 1, "one tab is visible"
    box.status("training", step=275)
    expect_step(other, 275)
    expect_step(page, 250)
    set_hidden(other, hidden=True)
    box.wait_until(lambda: feeds(box) == 0)
    expect(page.locator("#connection"), "closing the feed is not a lost connection").to_contain_text("step 250")
    box.status("training", step=300)
    set_hidden(page, hidden=False)
    expect_step(page, 300)
    assert feeds(box) == 1


def test_page_restored_from_the_back_forward_cache_continues(ready, open_page: Open) -> None:
    """No reload: the same document."""
    ready.status("training", step=250, steps=4000)
    page = open_page(ready.url)
    expect_step(page, 250)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    ready.status("training", step=300)
    page.wait_for_timeout(1500)
    expect_step(page, 250)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect_step(page, 300)
    ready.status("training", step=350)
    expect_step(page, 350)
    assert feeds(ready) == 1


@pytest.mark.parametrize(
    ("edits", "allowed"),
    [
        ([(b"import { Feed, LEASE_MS }", b"imp0rt { Feed, LEASE_MS }")], "SyntaxError|Unexpected token"),
        (
            [
                (b'addEventListener("connect"', b'addEventListener("no-such"'),
                (b"REPLY_TIMEOUT_MS = 10_000", b"REPLY_TIMEOUT_MS =    500"),
            ],
            "",
        ),
    ],
    ids=["cannot be loaded", "does not answer"],
)
def test_each_tab_has_its_own_feed_if_the_worker_fails(
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
