"""The playbill: a text as one page, in the share dialog, as a file and in print."""

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zxingcpp
from playwright.sync_api import Download, Page, expect
from tests.browser.modules import run_module
from tests.browser.test_sharing import HOSTILE, write

from gptbox.tokenizers.char import CharTokenizer

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

PIXELS = """async (source) => {
  const image = await createImageBitmap(await (await fetch(source)).blob());
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  return [image.height, image.width, [...data.filter((_, i) => i % 4 === 0)]];
}"""


def decode_qr(page: Page, picture: bytes) -> str:
    """What the QR code in a PNG says; `page`: one that decodes the PNG."""
    height, width, red = page.evaluate(PIXELS, "data:image/png;base64," + base64.b64encode(picture).decode())
    found = zxingcpp.read_barcodes(np.array(red, np.uint8).reshape(height, width))
    assert len(found) == 1, "no QR code was found"
    return str(found[0].text)


def open_dialog(page: Page) -> None:
    page.get_by_role("button", name="Share").click()
    expect(page.locator("#playbill-preview .playbill")).to_be_visible()


def download(page: Page, folder: Path) -> Path:
    """The playbill's file."""
    open_dialog(page)
    with page.expect_download() as started:
        page.locator("#playbill-download").click()
    file: Download = started.value
    file.save_as(folder / file.suggested_filename)
    return folder / file.suggested_filename


class Elements(HTMLParser):
    """The elements of a document, each with its attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def learned(ready) -> Any:
    """A server whose run has a loss, minutes and parameters at step 250."""
    ready.learn(500)
    ready.status("training", step=250, parameters=803_000, dataset_source=HOSTILE)
    return ready


def test_playbill_says_what_wrote_the_text(learned, open_page: Open) -> None:
    page = open_page(learned.url)
    text = write(page, "HELLO, world", seed=7)
    open_dialog(page)
    bill = page.locator("#playbill-preview .playbill")
    assert bill.locator(".playbill-text").text_content() == text
    assert bill.locator("strong").text_content() == "HELLO, world"
    expect(bill.locator(".playbill-title")).to_have_text("shakespeare")
    expect(bill.locator(".playbill-byline")).to_have_text("a model of 0.80 million parameters, after 25 s of learning")
    facts = dict(zip(bill.locator("dt").all_text_contents(), bill.locator("dd").all_text_contents(), strict=True))
    assert facts == {"Loss": "1.76", "Learning": "25 s", "Step": "250", "Text": f"{len(text)} characters"}
    expect(bill.locator("footer")).to_contain_text("seed 7")
    expect(bill.locator("footer")).to_contain_text(re.compile(r"\d{1,2} [A-Z][a-z]+ 20\d\d"))


def test_playbills_qr_code_is_the_link(learned, open_page: Open, tmp_path: Path) -> None:
    page = open_page(learned.url)
    write(page, "HELLO, \u00e9", seed=7)
    link = page.url
    file = download(page, tmp_path)
    bill = open_page(file.as_uri(), viewport={"width": 900, "height": 1300})
    picture = bill.locator(".playbill-qr").screenshot()
    assert decode_qr(open_page("about:blank"), picture) == link
    assert bill.locator(".playbill a").get_attribute("href") == link


def test_playbill_is_one_file_without_scripts(learned, open_page: Open, tmp_path: Path) -> None:
    page = open_page(learned.url)
    text = write(page, HOSTILE, seed=7)
    file = download(page, tmp_path)
    assert re.fullmatch(r"playbill-shakespeare-step-000250-seed-7\.html", file.name)
    source = file.read_text(encoding="utf-8")
    document = Elements(source)
    tags = {tag for tag, _ in document.found}
    assert tags <= {
        "html", "head", "meta", "title", "style", "body", "article", "div", "header", "footer", "p", "strong", "dl",
        "dt", "dd", "a", "svg", "path",
    }  # fmt: skip
    names = {name for _, attributes in document.found for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "srcset", "style")]
    assert [attributes["href"] for tag, attributes in document.found if tag == "a"] == [page.url]
    assert "url(" not in source
    assert "@import" not in source
    assert HOSTILE in document.text

    requests: list[str] = []
    bill = open_page("about:blank")
    bill.on("request", lambda request: requests.append(request.url))
    bill.goto(file.as_uri())
    assert requests == [file.as_uri()]
    assert bill.title() == "A playbill of shakespeare"
    assert bill.locator(".playbill-text").text_content() == text
    # It looks as in the dialog.
    looks = "element => { const s = getComputedStyle(element); return [s.color, s.fontFamily, s.textTransform]; }"
    for part in (".playbill", ".playbill-title", ".playbill-text", ".playbill dt"):
        assert bill.locator(part).first.evaluate(looks) == page.locator(part).first.evaluate(looks)


@pytest.mark.acceptance
@pytest.mark.parametrize("length", [40, 400, 900, 3000])
def test_playbill_is_one_printed_page(learned, open_page: Open, tmp_path: Path, length: int) -> None:
    page = open_page(learned.url)
    write(page, "A\n" * 5, length, seed=7)
    file = download(page, tmp_path)
    bill = open_page(file.as_uri())
    for size in ("A4", "Letter"):
        for printed in (bill, page):
            pdf = printed.pdf(format=size, print_background=True)
            assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1, size


@pytest.mark.acceptance
def test_long_texts_are_cut_with_a_sign(learned, open_page: Open) -> None:
    page = open_page(learned.url)
    prompt = "".join(f"line {i} of the prompt\n" for i in range(60))
    text = write(page, prompt, 3000, seed=7)
    open_dialog(page)
    bill = page.locator("#playbill-preview .playbill")
    shown = bill.locator(".playbill-text").text_content() or ""
    assert shown.startswith("[…] line ")
    assert shown.endswith(" […]")
    assert shown[len("[…] ") : -len(" […]")] in text
    assert "line 59 of the prompt\n" in shown
    expect(bill.locator("footer")).to_contain_text("[…] stands for what does not fit this page.")
    expect(bill.locator("footer")).to_contain_text(f"{len(text):,} characters")


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("short", 0, [0, 5]),
        ("x" * 20_000, 0, [0, 51 * 42]),
        ("\u6f22" * 20_000, 0, [0, 51 * 21]),
        ("word " * 3000, 0, [0, 2139]),
        ("line\n" * 100, 0, [0, 254]),
        ("line\n" * 100, 500, [255, 500]),
        ("line\n" * 100, 250, [190, 444]),
        ("", 0, [0, 0]),
    ],
)
def test_page_takes_what_fits_it(box, open_page: Open, text: str, start: int, expected: list[int]) -> None:
    found = run_module(
        open_page(box.url), "playbill.js", "({ excerpt }, [text, start]) => excerpt(text, start)", [text, start]
    )
    assert found == expected


@pytest.mark.acceptance
def test_text_is_never_cut_within_a_character(box, open_page: Open) -> None:
    """Marks, flags and families of emoji stay whole."""
    page = open_page(box.url)
    for character in ("e\u0301", "\U0001f600", "\U0001f1eb\U0001f1f7", "\U0001f468\u200d\U0001f469\u200d\U0001f467"):
        text = "a" + character * 3000
        [begin, end] = run_module(page, "playbill.js", "({ excerpt }, text) => excerpt(text, 0)", text)
        kept = text.encode("utf-16-le")[2 * begin : 2 * end].decode("utf-16-le")
        assert kept[1:] == character * (len(kept[1:]) // len(character))
        assert len(kept) > 1000


@pytest.mark.acceptance
def test_scripts_from_right_to_left_begin_at_the_right(make_box, open_page: Open, tmp_path: Path) -> None:
    box = make_box()
    letters = "\n \u0627\u0628\u062a\u062b\u062c\u062d\u062e\u062f\u0630\u0631\u0632\u0633\u0634\u0635\u0636"
    box.publish(tokenizer=CharTokenizer(sorted(letters)))
    page = open_page(box.url)
    expect(page.locator("#generate")).to_be_enabled()
    write(page, "\u0627\u0628\u062a\nabc\n", seed=7)
    bill = open_page(download(page, tmp_path).as_uri())
    lines = bill.locator(".playbill-text").evaluate(
        """(text) => {
          const box = text.getBoundingClientRect();
          const strong = text.querySelector("strong").firstChild;
          const range = document.createRange();
          return [0, 4].map((start) => {
            range.setStart(strong, start);
            range.setEnd(strong, start + 1);
            const { left, right } = range.getBoundingClientRect();
            return [left - box.left, box.right - right];
          });
        }"""
    )
    (arabic_left, arabic_right), (latin_left, latin_right) = lines
    assert arabic_right < 2 < arabic_left
    assert latin_left < 2 < latin_right


@pytest.mark.acceptance
def test_printing_the_page_prints_the_playbill(learned, open_page: Open, tmp_path: Path) -> None:
    page = open_page(learned.url, script="window.print = () => { document.body.dataset.printed = ''; };")
    page.emulate_media(media="print")
    expect(page.locator("#write")).to_be_visible()  # no text, no playbill
    page.emulate_media(media="screen")
    text = write(page, "HELLO", seed=7)
    page.keyboard.press("Control+p")
    expect(page.locator("body")).to_have_attribute("data-printed", "")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    expect(page.locator("#playbill-print .playbill-text")).to_be_visible()
    assert page.locator("#playbill-print .playbill-text").text_content() == text
    expect(page.locator("#playbill-print .playbill-qr")).to_be_visible()
    for part in ("header", "main", "body > footer"):
        expect(page.locator(f":not(.playbill *):is({part})").first).to_be_hidden()


@pytest.mark.acceptance
def test_sharing_works_with_the_keyboard_alone(learned, open_page: Open) -> None:
    page = open_page(learned.url, permissions=["clipboard-read", "clipboard-write"])
    write(page, "HELLO", seed=7)
    button = page.get_by_role("button", name="Share")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#playbill-preview .playbill-qr")).to_be_visible()
    order = []
    for _ in range(6):
        order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if order[-1] == "share-copy":
            page.keyboard.press("Enter")
            expect(page.locator("#share-copy")).to_have_text("Copied")
            assert page.evaluate("navigator.clipboard.readText()") == page.url
        if order[-1] == "playbill-download":
            with page.expect_download():
                page.keyboard.press("Enter")
        page.keyboard.press("Tab")
    assert order == ["Close", "share-link", "share-copy", "playbill-download", "playbill-print-button", "Read it live"]
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()


@pytest.mark.acceptance
def test_playbill_goes_without_a_qr_code_where_there_can_be_none(learned, open_page: Open) -> None:
    page = open_page(learned.url)
    write(page, "".join(chr(33 + i * 7 % 90) for i in range(1000)), seed=7)
    for _ in range(2):
        open_dialog(page)
        expect(page.locator("#share-notes")).to_contain_text("too long for a QR code")
        expect(page.locator("#playbill-preview .playbill-qr")).to_have_count(0)
        page.keyboard.press("Escape")
    # The next text has its own playbill.
    text = write(page, "HELLO", seed=7)
    open_dialog(page)
    expect(page.locator("#playbill-preview .playbill-qr")).to_be_visible()
    expect(page.locator("#playbill-preview .playbill-text")).to_have_text(text)
    expect(page.locator("#share-notes")).not_to_contain_text("QR code")
