"""What tests do with the paper: fill in text and settings, generate, and read what the model wrote."""

from typing import Any

from playwright.sync_api import Page, expect

LONGER_THAN = """length => [...document.querySelectorAll("#text ins")]
  .reduce((sum, { textContent }) => sum + textContent.length, 0) > length"""


def edit(page: Page, text: str) -> None:
    """Put a text on the paper, in the place of what is there."""
    if page.locator("#prompt").is_hidden():
        page.get_by_role("button", name="Edit").click()
    page.get_by_label("Prompt").fill(text)


def settings(page: Page, **fields: Any) -> None:
    """Fill in settings by their labels, `Top_k` for example."""
    for name, value in fields.items():
        label = name.replace("_", " ").replace("Top k", "Top-k").replace("Top p", "Top-p").replace("Min p", "Min-p")
        field = page.get_by_label(label, exact=True)
        if field.is_hidden():
            page.locator("#more summary").click()
        field.fill(str(value))


def generate(page: Page, prompt: str | None = None, **fields: Any) -> None:
    """Write a prompt, if there is one, fill in settings and press Generate or Continue."""
    if prompt is not None:
        edit(page, prompt)
    settings(page, **fields)
    page.locator("#generate").click()


def written(page: Page) -> str:
    """What the model wrote on the paper, so far."""
    return "".join(page.locator("#text ins").all_text_contents())


def whole(page: Page) -> str:
    """The text on the paper, as it is read."""
    return page.locator("#text").text_content() or ""


def finished(page: Page) -> str:
    """What the model wrote, once it has ended."""
    expect(page.locator("#copy")).to_be_visible()
    return written(page)


def tokens(page: Page) -> Any:
    """The elements of tokens in surprise ink."""
    return page.locator("#text [data-surprise]")


def ink(page: Page) -> None:
    """Switch the surprise ink on or off."""
    page.get_by_role("button", name="Surprise ink").click()
