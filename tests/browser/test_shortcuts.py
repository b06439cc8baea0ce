"""Keyboard shortcuts and the dialog that lists them."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

REGISTER = """async ([key, words]) => {
  const { register } = await import(new URL("shortcuts.js", document.styleSheets[0].href));
  register(key, words, () => { document.body.dataset.pressed = `${document.body.dataset.pressed ?? ""}${key} `; });
}"""


@pytest.fixture
def page(box, open_page: Open) -> Page:
    """A page on which the keys x, Shift+y and Mod+k are noted in `data-pressed`."""
    page = open_page(box.url)
    for key, words in (("x", "Do x"), ("Shift+y", "Do y"), ("Mod+k", "Do k"), ("/", "Do /")):
        page.evaluate(REGISTER, [key, words])
    return page


def pressed(page: Page) -> str:
    return str(page.evaluate("document.body.dataset.pressed ?? ''"))


def test_question_mark_lists_all_shortcuts(page: Page) -> None:
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    rows = dialog.locator("tbody tr").all_inner_texts()
    listed = {row.split("\t")[0].strip(): row.split("\t")[1].strip() for row in rows}
    assert listed["?"] == "Show these shortcuts"
    assert listed["X"] == "Do x"
    assert listed["Shift + Y"] == "Do y"
    assert listed["Ctrl + K"] == "Do k"
    assert "S" in listed
    assert "Ctrl + Enter" in listed
    assert "1 … 8" in listed
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_dialog_opens_by_its_button_and_gives_the_focus_back(page: Page) -> None:
    button = page.get_by_role("button", name="Keyboard shortcuts")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    button.click()
    page.mouse.click(5, 5)
    expect(dialog).to_be_hidden()


@pytest.mark.acceptance
def test_single_keys_rest_while_the_reader_types(page: Page) -> None:
    page.keyboard.press("x")
    page.keyboard.press("Shift+Y")
    page.keyboard.press("y")
    page.keyboard.press("/")
    assert pressed(page) == "x Shift+y / "
    field = page.get_by_role("textbox").first
    field.focus()
    for key in ("x", "Shift+Y", "?"):
        page.keyboard.press(key)
    assert pressed(page) == "x Shift+y / "
    expect(field).to_have_value("xY?")
    page.keyboard.press("Control+k")
    assert pressed(page) == "x Shift+y / Mod+k "
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.acceptance
def test_other_modifiers_are_the_browsers(page: Page) -> None:
    for key in ("Control+x", "Alt+x", "k", "Control+Shift+k"):
        page.keyboard.press(key)
    assert pressed(page) == ""


@pytest.mark.acceptance
def test_single_keys_can_be_turned_off(page: Page, open_page: Open) -> None:
    """For this and all later visits."""
    page.get_by_role("button", name="Keyboard shortcuts").click()
    choice = page.get_by_label("Shortcuts of a single key")
    expect(choice).to_be_checked()
    page.keyboard.press("x")  # nor do they reach the page behind a dialog
    choice.uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    assert pressed(page) == ""
    page.keyboard.press("Control+k")
    assert pressed(page) == "Mod+k "
    other = open_page(page.url, beside=page)
    other.get_by_role("button", name="Keyboard shortcuts").click()
    expect(other.get_by_label("Shortcuts of a single key")).not_to_be_checked()


@pytest.mark.acceptance
def test_a_shortcut_that_does_not_apply_leaves_the_key_to_the_next(box, open_page: Open) -> None:
    page = open_page(box.url)
    order = page.evaluate(
        """async () => {
          const { register } = await import(new URL("shortcuts.js", document.styleSheets[0].href));
          const order = [];
          register("j", "One", () => { order.push("one"); return false; });
          register("j", "Two", () => { order.push("two"); });
          register("j", "Three", () => { order.push("three"); });
          const event = new KeyboardEvent("keydown", { key: "j", bubbles: true, cancelable: true });
          document.body.dispatchEvent(event);
          return [...order, event.defaultPrevented];
        }"""
    )
    assert order == ["one", "two", True]
