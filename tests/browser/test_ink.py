"""Surprise ink: tokens shaded by how surprising they were, from the stream or from /api/scores."""

from collections.abc import Callable
from math import log

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.browser.paper import edit, finished, generate, ink, settings, tokens, whole, written

from gptbox.tokenizers.byte import ByteTokenizer

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

LEVELS = "all => all.map((token) => Number(token.dataset.surprise))"


def expected_levels(logprobs: list[float]) -> list[int]:
    return [sum(value < log(step) for step in (0.7, 0.4, 0.15, 0.04)) for value in logprobs]


def test_ink_is_off_by_default(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Surprise ink")).to_have_attribute("aria-pressed", "false")
    with page.expect_request("**/v1/completions") as request:
        generate(page, "TO BE", Length="50")
    assert "logprobs" not in request.value.post_data_json
    finished(page)
    expect(tokens(page)).to_have_count(0)
    expect(page.locator("#ink-legend")).to_be_hidden()


def test_any_text_on_the_paper_is_inked_the_visitors_own_too(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    page.get_by_label("Prompt").fill("TO BE, OR NOT\nTO BE")
    ink(page)
    expect(tokens(page)).to_have_count(19)
    assert whole(page) == "TO BE, OR NOT\nTO BE"
    score = httpx.post(f"{ready.url}api/scores", json={"text": whole(page)}).json()["scores"][0]
    assert tokens(page).evaluate_all(LEVELS) == expected_levels(score["logprobs"])
    expect(page.locator("#ink-legend")).to_contain_text("it was sure")
    expect(page.locator("#ink-legend")).to_contain_text("it was guessing")


def test_ink_comes_with_the_stream_and_changes_no_text(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, "TO BE", Length="50", Seed="7")
    plain = finished(page)
    ink(page)
    expect(tokens(page)).to_have_count(55)
    scored = tokens(page).evaluate_all(LEVELS)
    edit(page, "TO BE")
    with page.expect_request("**/v1/completions") as request:
        page.locator("#generate").click()
    assert request.value.post_data_json["logprobs"] == 5
    expect(tokens(page)).to_have_count(55)
    assert finished(page) == plain
    assert tokens(page).evaluate_all(LEVELS) == scored, "both sources say the same"
    for style in ("backgroundColor", "textDecorationThickness"):
        distinct = f"all => new Set(all.map((token) => getComputedStyle(token).{style})).size"
        assert page.locator("#ink-legend [data-surprise]").evaluate_all(distinct) == 5


def test_colour_follows_the_probability(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    single = [[{"text": "e", "key": "e", "logprob": log(p)}] for p in (0.71, 0.6, 0.3, 0.1, 0.01)]
    double = [
        {"text": "", "key": "bytes:\\xc3", "logprob": log(0.5)},
        {"text": "\u00e9", "key": "bytes:\\xa9", "logprob": log(0.5)},
    ]
    elements = page.evaluate(
        """async (groups) => {
          const { tokenElement } = await import(new URL("text-view.js", document.styleSheets[0].href));
          return groups.map(tokenElement).map((token) => [token.textContent, token.dataset.surprise]);
        }""",
        [*single, double],
    )
    assert [level for _, level in elements] == ["0", "1", "2", "3", "4", "2"]
    assert elements[5][0] == "\u00e9"


@pytest.mark.acceptance
def test_the_bytes_of_a_character_are_one_element(box, open_page: Open) -> None:
    """A model with random weights writes all kinds of bytes, most of them no character, and some a mark."""
    box.publish(tokenizer=ByteTokenizer())
    page = open_page(box.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    ink(page)
    for how in ("stream", "scores"):
        if how == "stream":
            generate(page, "A", Length="200", Seed="7")
        else:
            page.reload()
        text = finished(page)
        assert len(text) < 200, "no character has two bytes"
        expect(page.locator("#text .reader [data-surprise]")).to_have_count(1)
        characters = page.evaluate(
            "text => [...new Intl.Segmenter().segment(text)].map((it) => it.segment)", whole(page)
        )
        assert tokens(page).all_text_contents() == characters


@pytest.mark.acceptance
def test_tokens_are_inked_as_they_arrive_and_never_drawn_again(ready, open_page: Open, wait_for) -> None:
    page = open_page(ready.url)
    ink(page)
    generate(page, Length="100000")
    drawn = "length => document.querySelectorAll('#text [data-surprise]').length > length"
    wait_for(page, drawn, 20)
    page.evaluate("window.firstToken = document.querySelector('#text [data-surprise]')")
    seen = tokens(page).count()
    wait_for(page, drawn, seen)
    assert page.evaluate("firstToken === document.querySelector('#text [data-surprise]')")
    page.keyboard.press("Escape")
    assert len(finished(page)) == tokens(page).count()
    assert page.evaluate("firstToken.isConnected")


@pytest.mark.acceptance
def test_next_surprise_goes_from_guess_to_guess(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, "TO BE", Length="200")
    finished(page)
    ink(page)
    expect(tokens(page)).to_have_count(205)
    levels = tokens(page).evaluate_all(LEVELS)
    guesses = [i for i, level in enumerate(levels) if level == max(levels)]
    index = """() => [...document.querySelectorAll('#text [data-surprise]')].findIndex((it) =>
      it.contains(document.activeElement))"""
    page.get_by_role("button", name="Next surprise").click()
    for i, guess in enumerate(guesses[:4]):
        if i:
            page.keyboard.press("n")
        expect(page.locator("#text .cursor")).to_be_focused()
        page.wait_for_timeout(300)
        assert page.evaluate(index) == guess
    assert "%" in (page.locator("#text .cursor").get_attribute("aria-label") or "")
    page.get_by_label("Length").focus()
    page.keyboard.press("n")
    expect(page.get_by_label("Length")).to_be_focused()


@pytest.mark.acceptance
def test_pointing_at_a_token_tells_its_probability(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    page.get_by_label("Prompt").fill("TO BE")
    ink(page)
    tokens(page).first.hover()
    assert (tokens(page).first.get_attribute("title") or "").startswith("T ")


@pytest.mark.acceptance
def test_a_long_text_is_scored_in_parts(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    text = "TO BE OR NOT TO BE.\n" * 500
    page.get_by_label("Prompt").fill(text)
    ink(page)
    expect(tokens(page)).to_have_count(10_000)
    assert whole(page) == text


@pytest.mark.acceptance
def test_switching_off_shows_the_plain_text_at_once_and_the_choice_stays(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    ink(page)
    generate(page, "TO BE", Length="50")
    text = finished(page)
    ink(page)
    expect(tokens(page)).to_have_count(0)
    assert written(page) == text
    ink(page)
    expect(tokens(page)).to_have_count(55)
    page.reload()
    expect(tokens(page)).to_have_count(55)
    assert written(page) == text


@pytest.mark.acceptance
def test_what_cannot_be_scored_is_explained(ready, open_page: Open) -> None:
    page = open_page(ready.url, allowed="429|Failed to load")
    page.route("**/api/scores", lambda route: route.fulfill(status=429, headers={"Retry-After": "7"}, body=""))
    page.get_by_label("Prompt").fill("TO BE")
    ink(page)
    expect(page.locator("#ink-note")).to_have_text(
        "The ink is missing: The server is busy and its queue is full. Try again in 7 s."
    )
    assert whole(page) == "TO BE"


@pytest.mark.acceptance
def test_printed_text_is_plain(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    page.get_by_label("Prompt").fill("TO BE OR NOT")
    ink(page)
    expect(tokens(page)).to_have_count(12)
    background = "all => [...new Set(all.map((token) => getComputedStyle(token).backgroundColor))]"
    assert tokens(page).evaluate_all(background) != ["rgba(0, 0, 0, 0)"]
    page.emulate_media(media="print")
    assert tokens(page).evaluate_all(background) == ["rgba(0, 0, 0, 0)"]


# how strange is my text?


@pytest.mark.acceptance
def test_a_text_is_as_strange_as_its_bits_per_character(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    field = page.get_by_label("A text to be read by the model")
    field.fill("TO BE, OR NOT TO BE")
    page.get_by_role("button", name="How strange?").click()
    score = httpx.post(f"{ready.url}api/scores", json={"text": "TO BE, OR NOT TO BE"}).json()
    bits = score["scores"][0]["bits_per_character"]
    expect(page.locator("#strange-verdict")).to_contain_text(f"{bits:.2f} bits per character")
    if score["validation"]:
        beside = f"tested on has {score['validation']['bits_per_character']:.2f}"
        expect(page.locator("#strange-verdict")).to_contain_text(beside)
    inked = page.locator("#strange-text [data-surprise]")
    assert inked.evaluate_all(LEVELS) == expected_levels(score["scores"][0]["logprobs"])
    field.fill("")
    page.get_by_role("button", name="How strange?").click()
    expect(page.locator("#strange-error")).to_have_text("Paste or write a text first.")
    field.fill("x" * 9000)
    page.get_by_role("button", name="How strange?").click()
    expect(page.locator("#strange-error")).to_have_text("This text is too long: 9 KiB. The limit is 8 KiB.")


@pytest.mark.acceptance
def test_settings_choose_the_model_of_the_ink_for_what_no_model_wrote(ready, open_page: Open) -> None:
    ready.publish(500, seed=1)
    page = open_page(ready.url)
    expect(page.locator("#connection")).to_contain_text("step 500")
    page.locator("#more summary").click()
    page.get_by_label("Model", exact=True).select_option("shakespeare@step-000250")
    settings(page, Length="30")
    page.get_by_label("Prompt").fill("TO BE")
    with page.expect_request("**/api/scores") as request:
        ink(page)
    assert request.value.post_data_json["model"] == "shakespeare@step-000250"
