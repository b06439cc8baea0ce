"""The reader's text at each snapshot, written by the model as it was then."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from tests.browser import paper
from tests.browser.modules import run_module

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


@pytest.fixture
def learning(ready) -> Any:
    """A run with samples of steps 0 to 1000, of whose snapshots those of steps 250 and 1000 are kept."""
    ready.learn(1000)
    ready.publish(1000, seed=1)
    return ready


def output(page: Page) -> Locator:
    return page.get_by_role("region", name="Your text, at step").locator("#rewriting-output")


def button(page: Page) -> Locator:
    return page.locator("#rewrite")


def open_with_text(open_page: Open, box, text: str = "ROMEO:", **options) -> Page:
    page = open_page(box.url, **options)
    expect(page.get_by_role("region", name="Your text, at step 1,000")).to_be_visible()
    paper.edit(page, text)
    return page


def write_here(page: Page) -> str:
    """Write at the chosen snapshot; returns the text."""
    expect(button(page)).to_be_enabled()
    button(page).click()
    expect(output(page)).to_have_attribute("data-state", "finished")
    return page.locator("#rewriting-completion").inner_text()


def test_text_is_written_by_the_chosen_snapshot_and_kept(learning, open_page: Open) -> None:
    page = open_with_text(open_page, learning)
    requests: list[dict] = []
    page.on(
        "request", lambda request: requests.append(request.post_data_json) if "completions" in request.url else None
    )
    newest = write_here(page)
    expect(page.locator("#rewriting-prompt")).to_have_text("ROMEO:")
    page.get_by_role("slider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", name="Your text, at step 250")).to_be_visible()
    expect(output(page)).to_have_text("Not written at this snapshot yet.")
    earlier = write_here(page)
    assert earlier != newest
    assert [request["model"] for request in requests] == ["shakespeare@step-001000", "shakespeare@step-000250"]
    assert requests[0] == requests[1] | {"model": "shakespeare@step-001000"}, "the same prompt, seed and settings"
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    expect(page.locator("#rewriting-completion")).to_have_text(newest)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#rewriting-completion")).to_have_text(earlier)
    expect(button(page)).to_be_disabled()
    assert len(requests) == 2


def test_thinned_out_snapshot_is_named_and_the_nearest_kept_one_used(learning, open_page: Open) -> None:
    page = open_with_text(open_page, learning)
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#rewriting-hint")).to_contain_text(
        "The model of step 500 was thinned out to save space. The nearest kept one is that of step 250."
    )
    expect(button(page)).to_have_text("Write my text at step 250")
    with page.expect_request(re.compile("completions")) as request:
        write_here(page)
    assert request.value.post_data_json["model"] == "shakespeare@step-000250"


@pytest.mark.acceptance
def test_without_words_there_is_nothing_to_go_on_with(learning, open_page: Open) -> None:
    page = open_with_text(open_page, learning, text="")
    expect(page.locator("#rewriting-hint")).to_contain_text("Write a few words on the paper")
    button(page).click()
    expect(page.locator("#rewriting-error")).to_have_text("The paper is empty: write a few words on it first.")
    paper.edit(page, "<B>A WORD</B>")
    write_here(page)
    expect(page.locator("#rewriting-prompt")).to_have_text("<B>A WORD</B>")
    expect(page.locator("#rewriting-hint")).to_contain_text("It goes on from “<B>A WORD</B>”")
    expect(page.locator("#rewriting-error")).to_be_empty()


@pytest.mark.acceptance
def test_failure_is_said_and_writing_again_is_possible(learning, open_page: Open) -> None:
    page = open_with_text(open_page, learning, allowed="ERR_CONNECTION|500|ERR_INCOMPLETE|ERR_EMPTY")
    learning.stop()
    button(page).click()
    expect(page.locator("#rewriting-error")).to_contain_text("The server cannot be reached")
    learning.start()
    write_here(page)
    expect(page.locator("#rewriting-error")).to_be_empty()


@pytest.mark.acceptance
def test_stored_values_of_the_page_are_of_this_tab_or_kept(learning, open_page: Open) -> None:
    page = open_page(learning.url)
    script = (
        "({ save, load, keep, recall }) => [save('a', 1), load('a', 0), keep('b', 2), recall('b', 0), recall('a', 0)]"
    )
    assert run_module(page, "storage.js", script) == [True, 1, True, 2, 0]
    other = open_page(learning.url, beside=page)
    assert run_module(other, "storage.js", "({ load, recall }) => [load('a', 0), recall('b', 0)]") == [0, 2]
