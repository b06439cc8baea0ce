"""Texts of all scripts on the page: right-to-left lines, joined letters, and characters of several code points."""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.browser import paper
from tests.browser.paper import ink, tokens

from gptbox.tokenizers.char import CharTokenizer

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

HEBREW, ARABIC = "אבגדהוזחטיךכלמ", "ابتثجحخدذرزسشص"
PARTS = ["e", "o", "\u0301", "\u0323", "👩", "🚀", "👍", "🏽", "🇩", "🇪", "❤", "\u200d", "\ufe0f", " ", "\n"]
"""Letters, marks and the code points of emoji: in any order, they form characters of one code point or many."""

# The horizontal extent of the text between two offsets in an element that has one text node.
EXTENT = """([selector, start, end]) => {
  const range = new Range();
  const node = document.querySelector(selector).firstChild;
  range.setStart(node, start);
  range.setEnd(node, end);
  const { left, right } = range.getBoundingClientRect();
  return [left, right];
}"""


def character_model(box: Any, characters: str | list[str]) -> None:
    """Publish a model with random weights, which writes these characters in random order."""
    box.publish(tokenizer=CharTokenizer(list(characters)))


def generate(page: Page, prompt: str, length: int = 40) -> str:
    """Generate a text, and return it."""
    expect(page.get_by_role("button", name=re.compile("Generate|Continue"))).to_be_enabled()
    paper.generate(page, prompt, Length=str(length), Seed="7")
    expect(page.locator("#facts")).to_contain_text("seed 7")
    return paper.whole(page)[len(prompt) :]


def extent(page: Page, selector: str, start: int, end: int) -> tuple[float, float]:
    left, right = page.evaluate(EXTENT, [selector, start, end])
    return left, right


def inner_box(page: Page, selector: str) -> tuple[float, float]:
    """The left and right edges of an element's content."""
    left, right = page.locator(selector).evaluate(
        """(element) => {
          const { left, right } = element.getBoundingClientRect();
          const style = getComputedStyle(element);
          return [left + parseFloat(style.paddingLeft), right - parseFloat(style.paddingRight)];
        }"""
    )
    return left, right


def characters(page: Page, text: str) -> list[str]:
    """The text's characters as people see them."""
    found: list[str] = page.evaluate("text => [...new Intl.Segmenter().segment(text)].map((it) => it.segment)", text)
    return found


def test_each_line_of_a_text_has_its_own_direction(box, open_page: Open) -> None:
    character_model(box, HEBREW)
    page = open_page(box.url)
    generate(page, "שלום.\nabc.\n", length=3)
    left, right = inner_box(page, "#text > div")
    assert extent(page, "#text .reader", 0, 1)[1] == pytest.approx(right, abs=1)
    full_stop, letter = extent(page, "#text .reader", 4, 5), extent(page, "#text .reader", 3, 4)
    assert full_stop[1] <= letter[0] + 1, "the full stop of a Hebrew line is at its left end"
    assert extent(page, "#text .reader", 6, 7)[0] == pytest.approx(left, abs=1)
    assert extent(page, "#text ins", 0, 1)[1] == pytest.approx(right, abs=1)


def test_the_prompt_field_has_the_direction_of_what_is_typed(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    direction = "field => getComputedStyle(field).direction"
    for prompt, expected in (("", "ltr"), ("שלום", "rtl"), ("Hello", "ltr"), ("يولد", "rtl")):
        page.get_by_label("Prompt").fill(prompt)
        assert page.get_by_label("Prompt").evaluate(direction) == expected


def test_samples_have_their_direction(box, open_page: Open) -> None:
    character_model(box, HEBREW)
    box.run.append("samples", {"step": 250, "prompt": "\n", "seed": 1, "text": "\nשלום.", "val_loss": 2.0})
    page = open_page(box.url)
    expect(page.locator("#sample-completion")).to_have_text("שלום.")
    sample_right = inner_box(page, "#sample-output .text")[1]
    assert extent(page, "#sample-completion", 0, 1)[1] == pytest.approx(sample_right, abs=1)


def test_right_to_left_letters_in_a_warning_stay_in_their_places(box, open_page: Open) -> None:
    """ "ا for א, ا for ב" has nothing but neutral characters between an א and the next ا."""
    character_model(box, ARABIC)
    page = open_page(box.url)
    generate(page, "אבג")
    warning = page.locator("#warnings li").text_content() or ""
    places = [extent(page, "#warnings li", at, at + 1) for at in map(warning.index, "אבג")]
    assert places == sorted(places)
    replacement = warning.index(ARABIC[0], warning.index("א"))
    assert places[0] < extent(page, "#warnings li", replacement, replacement + 1) < places[1]


def test_right_to_left_alternatives_stay_with_their_probabilities(box, open_page: Open) -> None:
    character_model(box, ARABIC)
    page = open_page(box.url)
    generate(page, "ابت")
    page.locator("#text ins").click(position={"x": 10, "y": 10})
    rows = page.locator("#steer-list button")
    expect(rows).to_have_count(8)
    for number, sign, share in rows.evaluate_all(
        """all => all.map((row) => ["kbd", ".sign", ".share"].map((part) => {
          const { left, right } = row.querySelector(part).getBoundingClientRect();
          return [left, right];
        }))"""
    ):
        assert number[1] <= sign[0] < sign[1] <= share[0]


def test_letters_join_across_tokens(box, open_page: Open) -> None:
    character_model(box, ARABIC)
    page = open_page(box.url)
    width = """() => {
      const range = new Range();
      range.selectNodeContents(document.getElementById("text"));
      return range.getBoundingClientRect().width;
    }"""
    ink(page)
    generate(page, "ا", length=20)
    expect(tokens(page)).to_have_count(21)
    coloured = page.evaluate(width)
    ink(page)
    expect(tokens(page)).to_have_count(0)
    assert page.evaluate(width) == pytest.approx(coloured, abs=0.5)


def test_prompt_and_text_join(box, open_page: Open) -> None:
    """A mark, half an emoji or the second part of a ligature may come first in a text."""
    character_model(box, ["ا", "آ"])
    page = open_page(box.url)
    text = generate(page, "ل", length=1)
    assert text in ("ا", "آ")
    joined, single = page.evaluate(
        """(string) => {
          const width = (element) => {
            const range = new Range();
            range.selectNodeContents(element);
            return range.getBoundingClientRect().width;
          };
          const block = document.querySelector("#text > div");
          const joined = width(block);
          block.replaceChildren(string);
          return [joined, width(block)];
        }""",
        "ل" + text,
    )
    assert joined == pytest.approx(single, abs=0.5)


def test_the_code_points_of_a_character_are_one_element(box, open_page: Open) -> None:
    character_model(box, PARTS)
    page = open_page(box.url)
    ink(page)
    text = generate(page, "e", length=400)
    assert len(text) == 400
    expect(page.locator("#text .reader [data-surprise]")).to_have_count(1)
    elements = tokens(page).all_text_contents()
    assert elements == characters(page, "e" + text)
    assert any(len(element) > 2 for element in elements)
    assert not any(element[0] in "\u0301\u0323\ufe0f" for a, element in pairwise(elements) if a != "\n")
    drawn = page.evaluate(
        "[...document.querySelectorAll('#text ins, #text .reader')].reduce((sum, it) => sum + it.childNodes.length, 0)"
    )
    assert drawn == len(elements)


def test_marks_without_end_are_no_element_without_end(box, open_page: Open) -> None:
    character_model(box, ["\u0301", "\u0302"])
    page = open_page(box.url)
    ink(page)
    assert len(generate(page, "", length=2000)) == 2000
    lengths = tokens(page).evaluate_all("all => all.map((it) => it.textContent.length)")
    assert sum(lengths) == 2000
    assert max(lengths) <= 51


@pytest.mark.parametrize(
    ("token", "visible"),
    [
        ("ab", "ab"), (" ", "(space)"), ("\n", "(line break)"), ("\u0301", "\u2068◌\u0301\u2069"), ("\u200d", "U+200D"),
        ("\ufe0f", "U+FE0F"), ("\u00ad", "U+00AD"), ("a\nb", "a\u2068↵\u2069b"),
        (" שלום עולם.", " \u2068שלום עולם\u2069."),
    ],
)  # fmt: skip
def test_tokens_are_made_visible(ready, open_page: Open, token: str, visible: str) -> None:
    page = open_page(ready.url)
    shown = page.evaluate(
        'async (text) => (await import(new URL("format.js", document.styleSheets[0].href))).printable(text)',
        token,
    )
    assert shown == visible


@pytest.mark.parametrize("coloured", [False, True])
def test_copies_are_exact(box, open_page: Open, coloured: bool) -> None:
    character_model(box, [*PARTS, *HEBREW])
    page = open_page(box.url, permissions=["clipboard-read", "clipboard-write"])
    if coloured:
        ink(page)
    text = generate(page, "👩\u200d", length=200)
    page.locator("#copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "👩\u200d" + text
    page.evaluate("getSelection().selectAllChildren(document.getElementById('text'))")
    page.keyboard.press("Control+C")
    assert page.evaluate("navigator.clipboard.readText()").split() == ("👩\u200d" + text).split()
