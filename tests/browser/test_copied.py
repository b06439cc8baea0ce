"""Copied words: passages that stand in the training text, underlined, with their share and their places."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.browser.paper import edit, finished, generate, ink, whole
from tests.models.indexed_text import index_of

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

TRAIN = "THE QUALITY OF MERCY IS NOT STRAINED.\n" + "".join(f"{n} GREEN BOTTLES ON THE WALL\n" for n in range(100, 900))


@pytest.fixture
def indexed(box: Any) -> Any:
    """A server of a run with an index."""
    box.run.dataset.mkdir(parents=True)
    index_of(TRAIN, box.run.dataset)
    box.publish()
    return box


def switch(page: Page) -> None:
    page.get_by_role("button", name="Copied words").click()


def passages(page: Page) -> list[str]:
    return page.locator("#text .copied").all_text_contents()


def test_copied_passages_are_underlined_with_their_share(indexed, open_page: Open) -> None:
    page = open_page(indexed.url)
    edit(page, "I SAY: THE QUALITY OF MERCY IS NOT STRAINED!")
    switch(page)
    expect(page.locator("#copied-share")).to_contain_text("82 % copied: one passage stands word for word")
    assert [text.strip() for text in passages(page)] == ["THE QUALITY OF MERCY IS NOT STRAINED"]
    style = page.locator("#text .copied").evaluate("element => getComputedStyle(element).borderBottomStyle")
    assert style == "dotted"
    assert whole(page) == "I SAY: THE QUALITY OF MERCY IS NOT STRAINED!"
    page.locator("#text .copied").hover()
    expect(page.locator("#source")).to_be_visible()
    expect(page.locator("#source-place")).to_have_text("In the training text, line 1:")
    expect(page.locator("#source-context")).to_contain_text("100 GREEN BOTTLES")
    page.mouse.move(5, 5)
    expect(page.locator("#source")).to_be_hidden()


def test_the_keyboard_goes_from_passage_to_passage(indexed, open_page: Open) -> None:
    page = open_page(indexed.url)
    edit(page, "345 GREEN BOTTLES ON THE WALL, AND\nTHE QUALITY OF MERCY IS NOT")
    switch(page)
    expect(page.locator("#copied-share")).to_contain_text("2 passages stand")
    next_ = page.get_by_role("button", name="Next", exact=True)
    next_.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text .copied").first).to_be_focused()
    expect(page.locator("#source-place")).to_have_text("In the training text, line 247:")
    expect(page.locator("#announcer")).to_contain_text("line 247")
    next_.click()
    expect(page.locator("#source-place")).to_have_text("In the training text, line 1:")


@pytest.mark.acceptance
def test_ink_and_underlines_stand_together(indexed, open_page: Open) -> None:
    page = open_page(indexed.url)
    text = "SO: THE QUALITY OF MERCY IS NOT STRAINED"
    edit(page, text)
    switch(page)
    ink(page)
    expect(page.locator("#text [data-surprise]")).to_have_count(len(text))
    assert "".join(passages(page)).strip() == "THE QUALITY OF MERCY IS NOT STRAINED"
    assert whole(page) == text
    ink(page)
    expect(page.locator("#text [data-surprise]")).to_have_count(0)
    assert "".join(passages(page)).strip() == "THE QUALITY OF MERCY IS NOT STRAINED"
    switch(page)
    expect(page.locator("#text .copied")).to_have_count(0)
    expect(page.get_by_label("Prompt")).to_have_value(text)


@pytest.mark.acceptance
def test_what_the_model_writes_is_compared_when_it_has_ended(indexed, open_page: Open) -> None:
    page = open_page(indexed.url)
    generate(page, "THE QUALITY OF MERCY IS NOT STRAINED", Length="50")
    finished(page)
    with page.expect_request("**/api/copied") as request:
        switch(page)
    assert request.value.post_data_json == {"model": "shakespeare", "text": whole(page)}
    expect(page.locator("#copied-share")).to_contain_text("copied: one passage stands")
    generate(page, "Q", Length="30")
    finished(page)
    expect(page.locator("#copied-share")).to_contain_text("Nothing copied")


@pytest.mark.acceptance
def test_the_choice_survives_a_reload(indexed, open_page: Open) -> None:
    page = open_page(indexed.url)
    edit(page, "THE QUALITY OF MERCY IS NOT STRAINED")
    switch(page)
    page.reload()
    expect(page.get_by_role("button", name="Copied words")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#text .copied")).to_have_count(1)


@pytest.mark.acceptance
def test_a_run_without_an_index_hides_it(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, "TO BE", Length="30")
    finished(page)
    expect(page.get_by_role("button", name="Copied words")).to_be_hidden()
