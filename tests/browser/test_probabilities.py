"""Show probabilities: tokens coloured by their probability, with the alternatives as tooltips."""

import re
from collections.abc import Callable
from math import log
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from gptbox.tokenizers.byte import ByteTokenizer

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

TOOLTIP = re.compile(
    r"(.|\(space\)|\(line break\)) (\d+ %|\d\.\d %|< 0\.1 %)\. Alternatives: .+ %(, .+ %){3,4}", re.DOTALL
)


def toggle(page: Page) -> None:
    page.get_by_role("button", name="Show probabilities").click()


def generate(page: Page, length: int = 50, seed: str = "7") -> dict[str, Any]:
    """Generate a text, and return the request's body."""
    page.get_by_label("Prompt").fill("TO BE")
    page.get_by_label("Length").fill(str(length))
    page.get_by_label("Seed").fill(seed)
    with page.expect_request("**/v1/completions") as request:
        page.get_by_role("button", name="Generate").click()
    body: dict[str, Any] = request.value.post_data_json
    return body


def finished(page: Page) -> str:
    expect(page.locator("#copy")).to_be_visible()
    return page.locator("#text-completion").text_content() or ""


def tokens(page: Page) -> Any:
    return page.locator("#text-completion [data-level]")


def test_probabilities_are_off_by_default(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Show probabilities")).to_have_attribute("aria-pressed", "false")
    assert "logprobs" not in generate(page)
    finished(page)
    expect(tokens(page)).to_have_count(0)
    expect(page.locator("#legend")).to_be_hidden()
    expect(page.locator("#legend-hint")).to_be_hidden()


def test_each_token_has_a_colour_and_its_alternatives(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page)
    plain = finished(page)
    toggle(page)
    expect(page.get_by_role("button", name="Show probabilities")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#legend-hint")).to_have_text("The next text will have probabilities.")
    assert generate(page)["logprobs"] == 5
    expect(tokens(page)).to_have_count(50)
    assert finished(page) == plain, "probabilities do not change the text"
    for character, title, level in tokens(page).evaluate_all(
        "all => all.map((token) => [token.textContent, token.title, token.dataset.level])"
    ):
        assert TOOLTIP.fullmatch(title), title
        assert title.startswith({" ": "(space)", "\n": "(line break)"}.get(character, character))
        assert level in "01234"
    looks = "all => new Set(all.map((token) => getComputedStyle(token).backgroundColor)).size"
    assert page.locator("#legend [data-level]").evaluate_all(looks) == 5
    expect(page.locator("#legend")).to_be_visible()


def test_colour_and_tooltip_follow_the_probability(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    single = [
        {"text": "e", "key": "e", "logprob": log(p), "top": [["e", log(p)], [" ", log(0.002)], ["\n", log(0.0001)]]}
        for p in (0.85, 0.6, 0.3, 0.1, 0.01)
    ]
    double = [
        {"text": "", "key": "bytes:\\xc3", "logprob": log(0.5), "top": []},
        {"text": "\u00e9", "key": "bytes:\\xa9", "logprob": log(0.5), "top": []},
    ]
    elements = page.evaluate(
        """async (groups) => {
          const { tokenElement } = await import(new URL("static/probabilities.js", document.baseURI));
          return groups.map(tokenElement).map((token) => [token.textContent, token.dataset.level, token.title]);
        }""",
        [*([token] for token in single), double],
    )
    assert [level for _, level, _ in elements] == ["0", "1", "2", "3", "4", "2"]
    assert elements[0][2] == "e 85 %. Alternatives: (space) 0.2 %, (line break) < 0.1 %"
    assert elements[4][2].startswith("e 1.0 %.")
    assert elements[5] == ["\u00e9", "2", "bytes:\\xc3 50 %.\nbytes:\\xa9 50 %."]


def test_the_bytes_of_a_character_are_one_element(box, open_page: Open) -> None:
    """A model with random weights writes all kinds of bytes, most of them no character, and some a mark."""
    box.publish(tokenizer=ByteTokenizer())
    page = open_page(box.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    toggle(page)
    body = generate(page, length=200)
    text = finished(page)
    assert text == httpx.post(f"{box.url}v1/completions", json=body | {"stream": False}).json()["choices"][0]["text"]
    characters = page.evaluate("text => [...new Intl.Segmenter().segment(text)].map((each) => each.segment)", text)
    assert tokens(page).all_text_contents() == characters
    keys = [
        re.split(r" (?:\d|<)", line)[0]
        for title in tokens(page).evaluate_all("all => all.map((token) => token.title)")
        for line in title.split("\n")
    ]
    assert len(keys) == 200
    assert any(key.startswith("bytes:\\x") for key in keys)
    assert len(text) < 200, "no character has two bytes"


def test_tokens_are_coloured_as_they_arrive_and_never_drawn_again(ready, open_page: Open, wait_for) -> None:
    page = open_page(ready.url)
    toggle(page)
    generate(page, length=100_000)
    drawn = "length => document.querySelectorAll('#text-completion [data-level]').length > length"
    wait_for(page, drawn, 20)
    page.evaluate("window.firstToken = document.querySelector('#text-completion [data-level]')")
    seen = tokens(page).count()
    wait_for(page, drawn, seen)
    assert page.evaluate("firstToken === document.querySelector('#text-completion [data-level]')")
    page.keyboard.press("Escape")
    assert len(finished(page)) == tokens(page).count()
    assert page.evaluate("firstToken.isConnected")
    expect(page.locator("#facts")).to_contain_text("Stopped: ")


def test_two_thousand_tokens_stay_smooth(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    toggle(page)
    generate(page, length=2000)
    assert len(finished(page)) == 2000
    expect(tokens(page)).to_have_count(2000)
    # Twice everything, plain and coloured; while tokens arrive, only the new ones are drawn.
    milliseconds = page.evaluate(
        """() => {
          const start = performance.now();
          document.getElementById("probabilities").click();
          document.getElementById("probabilities").click();
          document.getElementById("output").getBoundingClientRect();
          return performance.now() - start;
        }"""
    )
    assert milliseconds < 1000


def test_switching_off_shows_the_plain_text_at_once(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    toggle(page)
    generate(page)
    text = finished(page)
    toggle(page)
    expect(tokens(page)).to_have_count(0)
    expect(page.locator("#legend")).to_be_hidden()
    assert page.locator("#text-completion").text_content() == text
    toggle(page)
    expect(tokens(page)).to_have_count(50)
    assert page.locator("#text-completion").text_content() == text


def test_tapping_a_token_shows_its_alternatives(ready, open_page: Open) -> None:
    page = open_page(ready.url, has_touch=True, viewport={"width": 360, "height": 740})
    toggle(page)
    expect(page.locator("#legend-hint")).to_contain_text("Point at a token or tap it")
    generate(page)
    text = finished(page)
    token = tokens(page).nth(next(i for i, character in enumerate(text) if not character.isspace()))
    token.tap()
    expect(page.locator("#legend-hint")).to_have_text(token.get_attribute("title"))
    expect(page.locator("#announcer")).to_have_text(token.get_attribute("title"))


def test_choice_survives_a_reload(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    toggle(page)
    page.reload()
    expect(page.get_by_role("button", name="Show probabilities")).to_have_attribute("aria-pressed", "true")
    assert generate(page)["logprobs"] == 5
    expect(tokens(page)).to_have_count(50)


def test_copied_and_recent_texts_are_plain(ready, open_page: Open) -> None:
    page = open_page(ready.url, permissions=["clipboard-read", "clipboard-write"])
    toggle(page)
    generate(page)
    text = finished(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "TO BE" + text
    page.evaluate("getSelection().selectAllChildren(document.getElementById('text'))")
    page.evaluate("navigator.clipboard.writeText('replaced')")
    page.keyboard.press("Control+C")
    assert page.evaluate("navigator.clipboard.readText()").split() == ("TO BE" + text).split()
    types = "navigator.clipboard.read().then((items) => items.flatMap((item) => item.types))"
    assert page.evaluate(types) == ["text/plain"]
    generate(page)
    page.locator("#recent-list summary").click()
    expect(page.locator("#recent-list [data-level]")).to_have_count(0)
    assert page.locator("#recent-list .text").text_content() == "TO BE" + text


def test_printed_text_is_plain(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    toggle(page)
    generate(page)
    finished(page)
    background = "all => [...new Set(all.map((token) => getComputedStyle(token).backgroundColor))]"
    assert tokens(page).evaluate_all(background) != ["rgba(0, 0, 0, 0)"]
    page.emulate_media(media="print")
    assert tokens(page).evaluate_all(background) == ["rgba(0, 0, 0, 0)"]
    expect(page.locator("#legend")).to_be_hidden()
    expect(page.locator("#legend-hint")).to_be_hidden()
