"""Steering: a token's likeliest alternatives, of which one rewrites the rest."""

import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.browser.paper import edit, finished, generate, ink, whole, written

from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte import ByteTokenizer

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

PANEL = "#steer-list button"


def click_at(page: Page, offset: int) -> None:
    """Click in the middle of the letter at `offset` of the text."""
    x, y = page.evaluate(
        """(offset) => {
          const walker = document.createTreeWalker(document.getElementById("text"), NodeFilter.SHOW_TEXT);
          for (let at = 0; walker.nextNode(); at += walker.currentNode.length) {
            if (offset >= at + walker.currentNode.length) continue;
            const range = new Range();
            range.setStart(walker.currentNode, offset - at);
            range.setEnd(walker.currentNode, offset - at + 1);
            const { left, top, width, height } = range.getBoundingClientRect();
            return [left + width / 2, top + height / 2];
          }
        }""",
        offset,
    )
    page.mouse.click(x, y)


def shown(page: Page) -> list[tuple[str, str]]:
    """The alternatives: sign and probability."""
    expect(page.locator("#steer")).to_be_visible()
    expect(page.locator(PANEL).first).to_be_visible()
    rows: list[tuple[str, str]] = page.locator(PANEL).evaluate_all(
        "all => all.map((row) => [row.querySelector('.sign').textContent, row.querySelector('.share').textContent])"
    )
    return rows


def position(page: Page) -> int:
    """Where the cursor is in the text."""
    offset: int = page.evaluate(
        """() => {
          const range = new Range();
          range.setStart(document.getElementById("text"), 0);
          range.setEnd(document.querySelector("#text .cursor"), 0);
          return range.toString().length;
        }"""
    )
    return offset


@pytest.fixture
def page(ready, open_page: Open) -> Page:
    """The page with a text of 60 characters after TO BE."""
    page = open_page(ready.url)
    generate(page, "TO BE", Length="60", Seed="7")
    finished(page)
    return page


@pytest.mark.parametrize("inked", [False, True])
def test_a_click_shows_the_eight_likeliest_tokens(page: Page, ready, inked: bool) -> None:
    if inked:
        ink(page)
        expect(page.locator("#text [data-surprise]")).to_have_count(65)
    text = whole(page)
    click_at(page, 20)
    rows = shown(page)
    assert position(page) == 20
    body = {"prompt": text[:20], "text": text[20], "top_logprobs": 8}
    score = httpx.post(f"{ready.url}api/scores", json=body).json()["scores"][0]
    best = sorted(score["top_logprobs"][0], key=lambda it: -it["logprob"])[:8]
    signs = [{" ": "(space)", "\n": "(line break)"}.get(it["token"], it["token"]) for it in best]
    assert [sign for sign, _ in rows] == signs
    widths = page.locator("#steer-list .bar").evaluate_all("all => all.map((it) => it.getBoundingClientRect().width)")
    assert widths == sorted(widths, reverse=True)
    assert whole(page) == text


def test_taking_one_rewrites_the_rest_as_a_new_version(page: Page, ready) -> None:
    text = whole(page)
    click_at(page, 20)
    signs = [sign for sign, _ in shown(page)]
    number = next(i for i, sign in enumerate(signs) if len(sign) == 1 and sign != text[20])
    with page.expect_request("**/v1/completions") as request:
        page.keyboard.press(str(number + 1))
    body = request.value.post_data_json
    assert (body["prompt"], body["seed"]) == (text[:20] + signs[number], 7)
    assert (body["temperature"], body["top_k"]) == (0.8, 200)
    expect(page.locator("#version")).to_have_text("Version 2 of 2")
    finished(page)
    steered = whole(page)
    assert steered.startswith(text[:20] + signs[number])
    assert page.locator("#text .reader").all_text_contents() == ["TO BE", signs[number]]
    body = {key: body[key] for key in ("prompt", "max_tokens", "temperature", "top_k", "seed")}
    again = httpx.post(f"{ready.url}v1/completions", json=body).json()["choices"][0]["text"]
    assert steered == text[:20] + signs[number] + again
    expect(page.locator("#steer")).to_be_hidden()
    page.get_by_role("button", name="Undo").click()
    assert whole(page) == text
    page.get_by_role("button", name="Redo").click()
    page.get_by_role("button", name="Previous version").click()
    assert whole(page) == text


def test_the_keyboard_walks_opens_and_closes(page: Page) -> None:
    page.locator("#output").focus()
    page.keyboard.press("ArrowRight")
    cursor = page.locator("#text .cursor")
    expect(cursor).to_be_focused()
    assert position(page) == 5, "it begins with the model's first token"
    expect(cursor).to_have_attribute("role", "button")
    page.keyboard.press("ArrowLeft")
    expect(cursor).to_have_text("E")
    page.keyboard.press("Enter")
    first = shown(page)
    expect(page.locator("#announcer")).to_contain_text("1: ")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert shown(page) != first
    assert position(page) == 6
    page.keyboard.press("ArrowDown")
    expect(page.locator(PANEL).first).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(cursor).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#steer")).to_be_hidden()
    expect(cursor).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#output")).to_be_focused()
    expect(cursor).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(cursor).to_be_focused()
    assert position(page) == 6, "it goes on where it was"
    tabs = page.evaluate("[...document.querySelectorAll('#output [tabindex=\"0\"]')].length")
    assert tabs == 0, "the text is one tab stop"


def test_walking_goes_through_the_whole_text(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, "TO BE", Length="150", Seed="7")
    finished(page)
    click_at(page, 80)
    for i in range(79, 20, -1):
        shown(page)
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#text .cursor")).to_have_count(1)
        for _ in range(50):
            if position(page) == i:
                break
            page.wait_for_timeout(20)
        assert position(page) == i
    text = whole(page)
    assert text.startswith("TO BE")
    assert len(text) == 155


@pytest.mark.acceptance
def test_a_tap_opens_it_at_the_bottom_of_a_phone(ready, open_page: Open) -> None:
    page = open_page(ready.url, has_touch=True, viewport={"width": 360, "height": 740})
    generate(page, "TO BE", Length="60")
    text = finished(page)
    box = page.locator("#text ins").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + 40, box["y"] + 10)
    shown(page)
    panel = page.locator("#steer").bounding_box()
    assert panel is not None
    assert panel["y"] + panel["height"] == pytest.approx(740, abs=1)
    page.locator(PANEL).nth(2).tap()
    expect(page.locator("#version")).to_have_text("Version 2 of 2")
    assert finished(page) != text


@pytest.mark.acceptance
def test_an_edit_closes_it_and_own_words_can_be_steered(page: Page) -> None:
    click_at(page, 20)
    shown(page)
    page.locator("#output").dblclick(position={"x": 60, "y": 30})
    expect(page.locator("#steer")).to_be_hidden()
    expect(page.get_by_label("Prompt")).to_be_focused()
    edit(page, "MY OWN WORDS")
    ink(page)
    expect(page.locator("#text [data-surprise]")).to_have_count(12)
    click_at(page, 3)
    signs = [sign for sign, _ in shown(page)]
    page.locator(PANEL).nth(4).click()
    finished(page)
    token = {"(space)": " ", "(line break)": "\n"}.get(signs[4], signs[4])
    assert whole(page).startswith(f"MY {token}")
    assert len(written(page)) >= 60


@pytest.mark.acceptance
def test_a_selection_is_no_click(page: Page) -> None:
    box = page.locator("#text ins").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 10, steps=5)
    page.mouse.up()
    assert page.evaluate("getSelection().toString().length") > 2
    page.wait_for_timeout(300)
    expect(page.locator("#steer")).to_be_hidden()


@pytest.mark.acceptance
def test_parts_of_characters_can_be_taken(box, open_page: Open) -> None:
    box.publish(tokenizer=ByteTokenizer())
    page = open_page(box.url)
    generate(page, "caf\u00e9", Length="40", Seed="7")
    finished(page)
    click_at(page, 3)
    expect(page.locator("#steer-title")).to_contain_text("part 1 of 2 of a character")
    shown(page)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#steer-title")).to_contain_text("part 2 of 2 of a character")
    rows = shown(page)
    assert any(sign.startswith("bytes:") for sign, _ in rows)
    number, byte = next(
        (i, int(sign.removeprefix("bytes:\\x"), 16))
        for i, (sign, _) in enumerate(rows)
        if sign.startswith("bytes:") and sign != "bytes:\\xa9"
    )
    with page.expect_request("**/v1/completions") as request:
        page.keyboard.press(str(number + 1))
    character = bytes([0xC3, byte]).decode()
    assert request.value.post_data_json["prompt"] == f"caf{character}"
    expect(page.locator("#version")).to_have_text("Version 2 of 2")
    finished(page)
    assert whole(page).startswith(f"caf{character}")

    click_at(page, 1)
    shown(page)
    lead, taken = None, 0
    while lead is None:  # until one of the likeliest begins a longer character
        page.keyboard.press("ArrowRight")
        expect(page.locator(PANEL)).to_have_count(8)
        taken += 1
        for i, (sign, _) in enumerate(shown(page)):
            if sign.startswith("bytes:") and 0xC2 <= int(sign.removeprefix("bytes:\\x"), 16) < 0xF4:
                lead = i
                break
    start, before = position(page), whole(page)
    with page.expect_request("**/v1/completions") as request:
        page.keyboard.press(str(lead + 1))
    ids = request.value.post_data_json["prompt"]
    assert bytes(ids[:-1]) == before[:start].encode()
    assert 0xC2 <= ids[-1] < 0xF4
    expect(page.locator("#version")).to_have_text(re.compile("Version [34] of [34]"))
    finished(page)
    assert "\ufffd" not in whole(page)
    assert len(whole(page)[start].encode()) > 1, "the model's text begins with that character"


@pytest.mark.acceptance
def test_tokens_of_several_letters_are_replaced_as_a_whole(box, open_page: Open) -> None:
    box.publish(tokenizer=BPETokenizer.train(["the king and the queen and the fool " * 200]))
    page = open_page(box.url)
    generate(page, "the king and the queen", Length="40", Seed="7")
    finished(page)
    click_at(page, 5)
    shown(page)
    token = page.locator("#text .cursor").text_content() or ""
    assert len(token) > 1
    start = position(page)
    assert whole(page)[start : start + len(token)] == token
    text = whole(page)
    page.keyboard.press("2")
    expect(page.locator("#version")).to_have_text("Version 2 of 2")
    finished(page)
    assert whole(page).startswith(text[:start])


@pytest.mark.acceptance
def test_a_failure_is_explained_in_the_panel(ready, open_page: Open) -> None:
    page = open_page(ready.url, allowed="429|Failed to load")
    generate(page, "TO BE", Length="60")
    finished(page)
    page.route("**/api/scores", lambda route: route.fulfill(status=429, headers={"Retry-After": "7"}, body=""))
    click_at(page, 20)
    expect(page.locator("#steer-title")).to_have_text("The server is busy and its queue is full. Try again in 7 s.")
