"""A pinned line: scored at every snapshot of the run, live."""

from collections.abc import Callable
from math import exp
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from tests.browser.test_tabs import set_hidden

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


@pytest.fixture
def learning(ready) -> Any:
    """A run with samples and snapshots of steps 250 and 500."""
    ready.learn(500)
    ready.publish(500, seed=1)
    return ready


def section(page: Page) -> Locator:
    return page.get_by_role("region", name="A line to watch")


def sparkline(page: Page) -> Locator:
    return page.get_by_role("img", name="Probability of each letter")


def scored(page: Page) -> list[dict[str, Any]]:
    """The bodies of the requests for scores, from now on."""
    requests: list[dict[str, Any]] = []
    page.on("request", lambda request: requests.append(request.post_data_json) if "api/scores" in request.url else None)
    return requests


def watch(page: Page, line: str) -> None:
    section(page).get_by_role("textbox").fill(line)
    section(page).get_by_role("button", name="Watch").click()


def test_line_is_scored_at_every_snapshot_and_live(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    expect(section(page)).to_be_visible()
    requests = scored(page)
    page.wait_for_timeout(1000)
    assert requests == [], "nothing is asked before the reader wants it"
    watch(page, "TO BE OR NOT")
    points = sparkline(page).locator("circle")
    expect(points).to_have_count(2)
    expect(page.locator("#pinned-facts")).to_contain_text("Now it expects each letter of this line with")
    expect(page.locator("#pinned-facts")).to_contain_text("at first, at step 250, with")
    assert requests == [{"model": "shakespeare", "text": "TO BE OR NOT", "snapshots": "all"}]
    learning.run.append("samples", {"step": 750, "val_loss": 1.5, "prompt": "", "seed": 1, "text": "New."})
    learning.publish(750, seed=2)
    expect(points).to_have_count(3)
    assert requests[1:] == [{"model": "shakespeare", "text": "TO BE OR NOT", "snapshots": ["step-000750"]}]
    expect(page.locator("#sample-position")).to_contain_text("of 4")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#pinned-facts")).to_contain_text("At step 500 it expected each letter of this line with")


def test_percentages_are_those_of_the_scores(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    with page.expect_response("**/api/scores") as response:
        watch(page, "TO BE OR NOT")
    bits = [score["bits_per_character"] for score in response.value.json()["scores"]]
    first, last = (f"{100 * 2**-value:.1f} %" for value in bits)
    expect(page.locator("#pinned-facts")).to_have_text(
        f"Now it expects each letter of this line with {last}, at first, at step 250, with {first}. "
        "What is marked surprises it."
    )


def test_letters_of_the_line_are_inked_by_the_chosen_snapshot(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    with page.expect_response("**/api/scores") as response:
        watch(page, "TO BE <B>")
    letters = page.locator("#pinned-letters [data-surprise]")

    def expect_levels(score: dict[str, Any]) -> None:
        levels = [sum(exp(logprob) < step for step in (0.7, 0.4, 0.15, 0.04)) for logprob in score["logprobs"]]
        expect(page.locator("#pinned-letters")).to_have_text("TO BE <B>")
        for i, level in enumerate(levels):
            expect(letters.nth(i)).to_have_attribute("data-surprise", str(level))

    first, last = response.value.json()["scores"]
    expect_levels(last)
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect_levels(first)


@pytest.mark.acceptance
def test_sparkline_shares_the_axis_of_the_curve(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    watch(page, "TO BE OR NOT")
    curve = page.get_by_role("img", name="Loss over").locator(".val-point")
    expect(sparkline(page).locator("circle")).to_have_count(2)

    def x(locator: Locator) -> float:
        box = locator.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2

    for _ in ("logarithmic", "linear"):
        for index in range(2):
            assert x(sparkline(page).locator("circle").nth(index)) == pytest.approx(x(curve.nth(index + 1)), abs=1)
        page.get_by_role("button", name="Stretch the beginning").click()


@pytest.mark.acceptance
def test_line_is_kept_in_this_browser(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    watch(page, "<B>MY OWN</B> LINE")
    expect(sparkline(page)).to_be_visible()
    page.close()
    again = open_page(learning.url, beside=page)
    section(again).scroll_into_view_if_needed()
    expect(section(again).get_by_role("textbox")).to_have_value("<B>MY OWN</B> LINE")
    expect(sparkline(again)).to_be_visible()


@pytest.mark.acceptance
def test_changed_line_is_scored_once_after_typing(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    watch(page, "TO BE")
    expect(sparkline(page)).to_be_visible()
    requests = scored(page)
    section(page).get_by_role("textbox").press("End")
    section(page).get_by_role("textbox").press_sequentially(" OR NOT", delay=30)
    page.wait_for_timeout(2000)
    assert [request["text"] for request in requests] == ["TO BE OR NOT"]
    section(page).get_by_role("textbox").fill("")
    expect(sparkline(page)).to_be_hidden()
    expect(section(page).get_by_role("button", name="Watch", exact=True)).to_be_visible()


@pytest.mark.acceptance
def test_hidden_tab_asks_nothing(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    watch(page, "TO BE OR NOT")
    points = sparkline(page).locator("circle")
    expect(points).to_have_count(2)
    requests = scored(page)
    set_hidden(page, hidden=True)
    learning.publish(750, seed=2)
    page.wait_for_timeout(3000)
    assert requests == []
    set_hidden(page, hidden=False)
    expect(points).to_have_count(3)
    assert len(requests) == 1


@pytest.mark.acceptance
def test_full_queue_is_retried_after_a_pause(learning, open_page: Open) -> None:
    page = open_page(learning.url, allowed="429")
    scheduler = learning.service.scheduler
    capacity = scheduler.max_active, scheduler.max_queue
    scheduler.max_active = scheduler.max_queue = 0
    requests = scored(page)
    watch(page, "TO BE OR NOT")
    expect(page.locator("#pinned-error")).to_have_text("The line could not be scored yet: next attempt in 5 s.")
    page.wait_for_timeout(2000)
    assert len(requests) == 1
    scheduler.max_active, scheduler.max_queue = capacity
    expect(sparkline(page)).to_be_visible()
    expect(page.locator("#pinned-error")).to_be_empty()
    assert len(requests) == 2


@pytest.mark.acceptance
def test_unknown_characters_are_named(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    watch(page, "CAF\u00e9")
    expect(page.locator("#pinned-error")).to_contain_text("\u00e9")
    expect(sparkline(page)).to_be_visible()
