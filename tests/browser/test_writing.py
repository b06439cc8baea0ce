"""Generate and Stop: the text as it comes, repeated, kept, refused."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

LONGER = "length => document.getElementById('text-written').textContent.length > length"


def written(page: Page) -> str:
    text = page.locator("#text-written").text_content()
    assert text is not None
    return text


def generate(page: Page, **fields: str) -> None:
    """Fill in fields by their labels, `First_words` for example, and press Generate."""
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ").replace("Top k", "Top-k"), exact=True).fill(value)
    page.get_by_role("button", name="Generate").click()


def finished(page: Page) -> str:
    expect(page.locator("#copy")).to_be_visible()
    return written(page)


@contextmanager
def streams(url: str, count: int) -> Iterator[Callable[[int], None]]:
    """So many endless texts, which can be left one by one."""
    with ExitStack() as open_streams:
        client = open_streams.enter_context(httpx.Client())
        body = {"stream": True, "max_tokens": 10_000_000}
        each = [
            open_streams.enter_context(client.stream("POST", f"{url}v1/completions", json=body)) for _ in range(count)
        ]
        yield lambda i: each[i].close()


def test_the_defaults_write_five_hundred_characters_after_the_prompt(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, First_words="ROMEO:\n")
    text = finished(page)
    assert len(text) == 500
    assert page.locator("#text-prompt").text_content() == "ROMEO:\n"
    looks = "element => [getComputedStyle(element).color, getComputedStyle(element).fontWeight]"
    assert page.locator("#text-prompt").evaluate(looks) != page.locator("#text-written").evaluate(looks)
    facts = page.locator("#facts")
    expect(facts).to_contain_text("500 characters in")
    expect(facts).to_contain_text("a second · shakespeare, step 250 · temperature 0.8, top-k 200")
    expect(page.locator("#announcer")).to_have_text("Finished: 500 characters.")


def test_an_empty_prompt_is_enough(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, Length="40")
    assert len(finished(page)) == 40


def test_the_text_grows_while_it_is_written(ready, open_page: Open, wait_for) -> None:
    page = open_page(ready.url)
    generate(page, Length="100000")
    lengths = []
    for _ in range(4):
        seen = lengths[-1] if lengths else 0
        wait_for(page, LONGER, seen)
        lengths.append(len(written(page)))
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    assert lengths == sorted(set(lengths))
    assert lengths[-1] < 100_000


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_stops_the_text_and_the_server(ready, open_page: Open, wait_for, how: str) -> None:
    page = open_page(ready.url)
    generate(page, Length="100000")
    wait_for(page, LONGER, 20)
    assert ready.busy() == 1
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    text = finished(page)
    ready.wait_until(lambda: ready.busy() == 0)
    assert 20 < len(text) < 100_000
    page.wait_for_timeout(300)
    assert written(page) == text
    expect(page.locator("#facts")).to_contain_text("Stopped: ")
    expect(page.locator("#error")).to_be_empty()


def test_the_same_seed_writes_the_same_text_and_another_seed_another(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    texts = []
    for seed in ("7", "7", "8"):
        generate(page, First_words="ALAS", Length="100", Seed=seed)
        expect(page.locator("#facts")).to_contain_text(f"seed {seed}")
        texts.append(finished(page))
    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_each_text_is_another(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, First_words="ALAS", Length="100")
    first = finished(page)
    generate(page)
    expect(page.locator("#earlier-list > li")).to_have_count(1)
    assert finished(page) != first


@pytest.mark.parametrize(
    ("label", "value", "explained"),
    [
        ("Temperature", "9", "Temperature is a number from 0 to 2."),
        ("Temperature", "", "Temperature is a number from 0 to 2."),
        ("Top-k", "1.5", "Top-k is a whole number, 0 or more."),
        ("Length", "0", "Length is a whole number from 1 to 100,000."),
        ("Length", "100001", "Length is a whole number from 1 to 100,000."),
        ("Seed", "-1", "Seed is a whole number, 0 or more, or empty"),
        ("First words", "x" * 65_537, "These first words are too long"),
    ],
)
def test_a_bad_value_is_explained_beside_the_button(
    ready, open_page: Open, label: str, value: str, explained: str
) -> None:
    page = open_page(ready.url)
    field = page.get_by_label(label, exact=True)
    good = field.input_value()
    field.fill(value)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text(explained)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("#text")).to_be_hidden()
    field.fill(good)
    expect(page.get_by_role("alert")).to_be_empty()
    page.get_by_role("button", name="Generate").click()
    finished(page)


def test_letters_in_a_number_field_are_explained(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    page.get_by_label("Seed").focus()
    page.keyboard.type("e-")  # a number field lets the letters of a number through
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Seed is a whole number")


def test_unknown_characters_and_a_long_prompt_are_reported(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, First_words="CAFÉ " * 20, Length="20")
    finished(page)
    notes = page.get_by_role("list", name="Notes on this text").get_by_role("listitem")
    expect(notes).to_have_count(2)
    expect(notes.first).to_contain_text("É")
    generate(page, First_words="PLAIN")
    expect(page.locator("#earlier-list > li")).to_have_count(1)
    finished(page)
    expect(notes).to_have_count(0)


def test_markup_stays_text(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    evil = "<IMG SRC=X ONERROR=ALERT(1)><B>"
    generate(page, First_words=evil, Length="20")
    finished(page)
    assert page.locator("#text-prompt").text_content() == evil
    generate(page)
    page.locator("#earlier-list summary").click()
    expect(page.locator("#earlier-list .text")).to_contain_text(evil)
    assert page.locator("#result img, #result b, #earlier img, #earlier b").count() == 0


def test_copy_takes_prompt_and_text(ready, open_page: Open) -> None:
    page = open_page(ready.url, permissions=["clipboard-read", "clipboard-write"])
    generate(page, First_words="TO BE", Length="50")
    text = finished(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "TO BE" + text


def test_copy_works_where_the_browser_hides_its_clipboard(ready, open_page: Open) -> None:
    """As on plain http, which is how most boxes are reached. Not a space of the text may be lost."""
    page = open_page(ready.url)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    generate(page, First_words="TO  BE \n", Length="50")
    text = finished(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    page.get_by_label("First words").fill("")
    page.get_by_label("First words").press("Control+V")
    expect(page.get_by_label("First words")).to_have_value("TO  BE \n" + text)


def test_earlier_texts_survive_a_reload_but_not_the_tab(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    for prompt in ("ONE", "TWO"):
        generate(page, First_words=prompt, Length="30", Seed="1")
        expect(page.locator("#text-prompt")).to_have_text(prompt)
        finished(page)
    expect(page.locator("#earlier-list summary")).to_have_count(1)
    page.reload()
    summaries = page.locator("#earlier-list summary")
    expect(summaries).to_have_count(2)
    expect(summaries.first).to_contain_text("TWO")
    page.get_by_label("Seed").fill("")
    summaries.last.click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_label("First words")).to_have_value("ONE")
    expect(page.get_by_label("Seed")).to_have_value("1")
    other = page.context.new_page()
    other.goto(ready.url)
    expect(other.get_by_role("button", name="Generate")).to_be_enabled()
    expect(other.locator("#earlier-list summary")).to_have_count(0)
    page.get_by_role("button", name="Forget all").click()
    page.reload()
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(summaries).to_have_count(0)


def test_a_reader_who_scrolled_back_is_left_there(ready, open_page: Open, wait_for) -> None:
    page = open_page(ready.url)
    generate(page, Length="100000")
    paper = page.locator("#paper")
    wait_for(page, "() => document.getElementById('paper').scrollTop > 300")  # the end is followed by itself
    paper.evaluate("box => { box.scrollTop = 40; }")
    seen = len(written(page))
    wait_for(page, LONGER, seen + 200)
    assert paper.evaluate("box => box.scrollTop") == 40
    page.keyboard.press("Escape")


@contextmanager
def busy_engine(box) -> Iterator[None]:
    """Every place taken, and nobody may wait."""
    box.service.scheduler.max_active = 32
    body = {"prompt": "A", "n": 16, "max_tokens": 100_000, "stream": True}
    with httpx.Client(timeout=30) as client:
        requests = [client.stream("POST", f"{box.url}v1/completions", json=body) for _ in range(2)]
        with requests[0] as first, requests[1] as second:
            assert first.status_code == second.status_code == 200
            box.wait_until(lambda: box.service.scheduler.active == 32)
            yield


def test_a_full_queue_is_said_in_plain_words(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_queue=0)
    page = open_page(box.url, allowed="429")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    with busy_engine(box):
        generate(page)
        expect(page.get_by_role("alert")).to_have_text(
            "Many people are writing just now and the queue is full. Try again in 5 s."
        )
    box.wait_until(lambda: box.busy() == 0)
    generate(page, Length="20")
    assert len(finished(page)) == 20
    expect(page.get_by_role("alert")).to_be_empty()


def test_who_waits_is_told_how_many_are_before(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_tokens=10_000_000)
    page = open_page(box.url)
    box.service.scheduler.max_active = 1
    with streams(box.url, 2) as leave:
        box.wait_until(lambda: box.service.scheduler.queued == 1)
        generate(page, Length="20")
        expect(page.locator("#facts")).to_have_text("Waiting for a free place; 1 text before yours.")
        leave(0)
        expect(page.locator("#facts")).to_have_text("Waiting for a free place; yours is the next.")
        leave(1)
        assert len(finished(page)) == 20


def test_an_api_key_is_asked_for_once(make_box, open_page: Open) -> None:
    box = make_box(model=True, api_key="open sesame")
    page = open_page(box.url, allowed="401")
    key = page.get_by_label("API key")
    expect(key).to_be_visible()
    generate(page, Length="20")
    expect(page.get_by_role("alert")).to_contain_text("asks for an API key")
    expect(key).to_be_focused()
    key.fill("wrong")
    key.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("did not accept this API key")
    key.fill("open sesame")
    key.press("Enter")
    assert len(finished(page)) == 20
    expect(key).to_be_hidden()
    page.reload()
    expect(page.locator("#connection")).to_contain_text("step 250")
    expect(key).to_be_hidden()
    generate(page, Length="30")
    assert len(finished(page)) == 30


def test_no_key_is_asked_for_where_none_is_needed(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.get_by_label("API key")).to_be_hidden()


def test_a_server_with_a_lower_limit_lowers_the_default_length(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_tokens=120)
    page = open_page(box.url)
    generate(page)
    assert len(finished(page)) == 120


def test_a_server_that_goes_away_while_writing_is_explained(make_box, open_page: Open, wait_for) -> None:
    box = make_box(model=True, max_tokens=10_000_000)  # more than can be written until it has stopped
    page = open_page(box.url, allowed="ERR_|Failed to load")
    generate(page, Length="10000000")
    wait_for(page, LONGER, 20)
    box.stop()
    expect(page.get_by_role("alert")).to_contain_text("The server is stopping")
    assert len(finished(page)) > 20
