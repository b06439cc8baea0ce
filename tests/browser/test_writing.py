"""Generate and Stop: streaming, seeds, validation and errors."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.browser.paper import LONGER_THAN, edit, finished, generate, settings, whole, written
from tests.eos_tokenizer import load_with_eos
from tests.tokenizers.texts import SENTENCES

from gptbox.tokenizers.bpe import BPETokenizer
from gptbox.tokenizers.byte import ByteTokenizer

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


@contextmanager
def streams(url: str, count: int) -> Iterator[Callable[[int], None]]:
    """`count` endless streams. Yields a function that closes stream `i`."""
    with ExitStack() as open_streams:
        client = open_streams.enter_context(httpx.Client())
        body = {"stream": True, "max_tokens": 10_000_000}
        responses = [
            open_streams.enter_context(client.stream("POST", f"{url}v1/completions", json=body)) for _ in range(count)
        ]
        yield lambda i: responses[i].close()


def test_defaults_generate_500_characters_after_the_prompt(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, "ROMEO:\n")
    text = finished(page)
    assert len(text) == 500
    assert page.locator("#text .reader").text_content() == "ROMEO:\n"
    looks = "element => [getComputedStyle(element).color, getComputedStyle(element).fontWeight]"
    assert page.locator("#text .reader").evaluate(looks) != page.locator("#text ins").first.evaluate(looks)
    facts = page.locator("#facts")
    expect(facts).to_contain_text("500 characters in")
    expect(facts).to_contain_text("per second · shakespeare, step 250 · temperature 0.8, top-k 200")
    expect(page.locator("#announcer")).to_have_text("Finished: 500 characters.")


def test_empty_prompt_generates(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, Length="40")
    assert len(finished(page)) == 40


def test_text_is_streamed(ready, open_page: Open, wait_for) -> None:
    page = open_page(ready.url)
    generate(page, Length="100000")
    lengths = []
    for _ in range(4):
        seen = lengths[-1] if lengths else 0
        wait_for(page, LONGER_THAN, seen)
        lengths.append(len(written(page)))
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    assert lengths == sorted(set(lengths))
    assert lengths[-1] < 100_000


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_stops_both_page_and_server(ready, open_page: Open, wait_for, how: str) -> None:
    page = open_page(ready.url)
    generate(page, Length="100000")
    wait_for(page, LONGER_THAN, 20)
    assert ready.busy() == 1
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    expect(page.get_by_role("button", name="Continue")).to_be_enabled()
    text = finished(page)
    ready.wait_until(lambda: ready.busy() == 0)
    assert 20 < len(text) < 100_000
    page.wait_for_timeout(300)
    assert written(page) == text
    expect(page.locator("#facts")).to_contain_text("Stopped: ")
    expect(page.locator("#error")).to_be_empty()


def test_same_seed_gives_the_same_text_and_another_seed_another(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    texts = []
    for seed in ("7", "7", "8"):
        generate(page, "ALAS", Length="100", Seed=seed)
        expect(page.locator("#facts")).to_contain_text(f"seed {seed}")
        texts.append(finished(page))
    assert texts[0] == texts[1] != texts[2]


def test_texts_without_a_seed_differ(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, "ALAS", Length="100")
    first = finished(page)
    generate(page, "ALAS")
    assert finished(page) != first


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("Temperature", "9", "Temperature must be a number from 0 to 2."),
        ("Temperature", "", "Temperature must be a number from 0 to 2."),
        ("Top-k", "1.5", "Top-k must be a whole number, 0 or more."),
        ("Length", "0", "Length must be a whole number from 1 to 100,000."),
        ("Length", "100001", "Length must be a whole number from 1 to 100,000."),
        ("Seed", "-1", "Seed must be a whole number, 0 or more, or empty"),
        ("Top-p", "1.1", "Top-p must be a number from 0 to 1."),
        ("Min-p", "-1", "Min-p must be a number from 0 to 1."),
        ("Repetition penalty", "0", "Repetition penalty must be a number from 0.01 to 10."),
        ("Presence penalty", "3", "Presence penalty must be a number from -2 to 2."),
        ("Frequency penalty", "-3", "Frequency penalty must be a number from -2 to 2."),
        ("Versions", "5", "Versions must be a whole number from 1 to 4."),
        ("Stop at", "x\n" * 33, "At most 32 stop texts are allowed."),
    ],
)
def test_invalid_value_is_explained_beside_the_button(
    ready, open_page: Open, label: str, value: str, message: str
) -> None:
    page = open_page(ready.url)
    field = page.get_by_label(label, exact=True)
    good = field.input_value()
    settings(page, **{label.replace(" ", "_"): value})
    page.locator("#more summary").click()  # an error opens it
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("#text")).to_be_hidden()
    expect(field).to_be_visible()
    field.fill(good)
    expect(page.get_by_role("alert")).to_be_empty()
    page.get_by_role("button", name="Generate").click()
    finished(page)


def test_letters_in_a_number_field_are_explained(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    page.locator("#more summary").click()
    page.get_by_label("Seed").focus()
    page.keyboard.type("e-")  # a number field accepts letters that occur in numbers
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Seed must be a whole number")


def test_unknown_characters_and_a_long_prompt_give_warnings(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    generate(page, "CAFÉ " * 20, Length="20")
    finished(page)
    warnings = page.get_by_role("list", name="Warnings about this text").get_by_role("listitem")
    expect(warnings).to_have_count(2)
    expect(warnings.first).to_contain_text("É")
    generate(page, "PLAIN")
    finished(page)
    expect(warnings).to_have_count(0)


def test_a_text_that_goes_on_has_no_warning_that_it_is_long(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    for _ in range(2):
        generate(page, Length="60")
        finished(page)
    assert len(whole(page)) == 120
    expect(page.get_by_role("list", name="Warnings about this text")).to_be_hidden()


def test_a_text_beyond_the_servers_limit_goes_on_from_its_end(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    long = "x" * 70_000 + "é" * 3
    with page.expect_request("**/v1/completions") as request:
        generate(page, long, Length="20")
    prompt = request.value.post_data_json["prompt"]
    assert long.endswith(prompt)
    assert 65_000 < len(prompt.encode()) <= 65_536
    assert len(finished(page)) == 20
    assert whole(page) == long + written(page)


def test_a_model_of_bytes_knows_every_character_and_its_fields_count_bytes(box, open_page: Open) -> None:
    box.publish(tokenizer=ByteTokenizer())
    page = open_page(box.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.locator("#length-hint")).to_have_text("Bytes to write")
    expect(page.locator("#top-k-hint")).to_have_text("Picks from the likeliest bytes only, 0 for all")
    generate(page, "CAF\u00c9 \U0001f40e", Length="60", Temperature="2")
    text = finished(page)
    assert 0 < len(text) <= 60
    assert "bytes:" not in text
    assert "\ufffd" not in text
    assert page.locator("#text .reader").text_content() == "CAF\u00c9 \U0001f40e"
    expect(page.get_by_role("list", name="Warnings about this text")).to_be_hidden()


def test_a_model_of_bpe_counts_tokens_and_its_texts_have_whole_characters(box, open_page: Open) -> None:
    tokenizer = BPETokenizer.train([SENTENCES["Chinese"] * 100])
    box.publish(tokenizer=tokenizer)
    page = open_page(box.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.locator("#length-hint")).to_have_text("Tokens to write")
    expect(page.locator("#top-k-hint")).to_have_text("Picks from the likeliest tokens only, 0 for all")
    expect(page.locator("#announcer")).not_to_have_text("Writing.")
    for seed in range(3):
        generate(page, "人人", Length="500", Temperature="2", Seed=str(seed))
        expect(page.locator("#facts")).to_contain_text(f"seed {seed}")
        text = finished(page)
        assert "\ufffd" not in text
        count = f"{len(text):,} character{'' if len(text) == 1 else 's'}"
        expect(page.locator("#facts")).to_contain_text(f"{count} in ")
        expect(page.locator("#announcer")).to_have_text(f"Finished: {count}.")


def test_a_length_that_ends_within_the_only_character_says_so(box, open_page: Open) -> None:
    box.publish(tokenizer=ByteTokenizer())
    page = open_page(box.url)
    facts = page.locator("#facts")
    too_short = "The length is too short for a character."
    for seed in range(50):  # until the only byte begins a longer character
        generate(page, "x", Length="1", Temperature="2", Seed=str(seed))
        expect(facts).to_have_text(re.compile(rf"^{too_short}$|^1 character in .* seed {seed}$"))
        if facts.text_content() == too_short:
            break
    else:
        pytest.fail("no text ended within its only character")
    expect(page.locator("#error")).to_be_empty()


@pytest.mark.acceptance
def test_a_text_that_the_model_ends_itself_says_so(
    ready, open_page: Open, wait_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(ready.url)
    generate(page, "TO BE", Length="60", Seed="7")
    text = finished(page)
    expect(page.locator("#facts")).to_contain_text("60 characters in")
    expect(page.locator("#facts")).not_to_contain_text("Ended by the model")
    eos = next(character for i, character in enumerate(text) if i > 20 and character not in text[:i])
    load_with_eos(monkeypatch, eos)
    ready.publish(500)
    expect(page.locator("#connection")).to_contain_text("step 500")
    generate(page, "TO BE")
    expect(page.locator("#facts")).to_contain_text(f"Ended by the model: {text.index(eos)} characters in")
    assert finished(page) == text.partition(eos)[0]
    load_with_eos(monkeypatch, text[0])
    ready.publish(750)
    expect(page.locator("#connection")).to_contain_text("step 750")
    generate(page, "TO BE")
    expect(page.locator("#facts")).to_have_text("The model ended the text at once.")
    expect(page.locator("#announcer")).to_have_text("Finished.")
    expect(page.locator("#error")).to_be_empty()


@pytest.mark.acceptance
def test_markup_is_shown_as_text(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    evil = "<IMG SRC=X ONERROR=ALERT(1)><B>"
    generate(page, evil, Length="20")
    finished(page)
    assert page.locator("#text .reader").text_content() == evil
    page.get_by_role("button", name="Surprise ink").click()
    expect(page.locator("#text [data-surprise]").first).to_be_visible()
    assert whole(page).startswith(evil)
    assert page.locator("#write img, #write b").count() == 0


@pytest.mark.acceptance
def test_copy_copies_prompt_and_text(ready, open_page: Open) -> None:
    page = open_page(ready.url, permissions=["clipboard-read", "clipboard-write"])
    generate(page, "TO BE", Length="50")
    text = finished(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "TO BE" + text


@pytest.mark.acceptance
def test_copy_works_without_the_clipboard_api(ready, open_page: Open) -> None:
    """As on plain http, which is how most boxes are reached. Whitespace must be preserved."""
    page = open_page(ready.url)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    generate(page, "TO  BE \n", Length="50")
    text = finished(page)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    edit(page, "")
    page.get_by_label("Prompt").press("Control+V")
    expect(page.get_by_label("Prompt")).to_have_value("TO  BE \n" + text)


@pytest.mark.acceptance
def test_scroll_position_is_kept_for_a_reader_who_scrolled_back(ready, open_page: Open, wait_for) -> None:
    page = open_page(ready.url)
    generate(page, Length="100000")
    output = page.locator("#output")
    wait_for(page, "() => document.getElementById('output').scrollTop > 300")  # scrolls along by itself
    output.evaluate("box => { box.scrollTop = 40; }")
    seen = len(written(page))
    wait_for(page, LONGER_THAN, seen + 200)
    assert output.evaluate("box => box.scrollTop") == 40
    page.keyboard.press("Escape")


@contextmanager
def busy_engine(box) -> Iterator[None]:
    """An engine with all slots in use and no queue."""
    box.service.scheduler.max_active = 32
    body = {"prompt": "A", "n": 16, "max_tokens": 100_000, "stream": True}
    with httpx.Client(timeout=30) as client:
        requests = [client.stream("POST", f"{box.url}v1/completions", json=body) for _ in range(2)]
        with requests[0] as first, requests[1] as second:
            assert first.status_code == second.status_code == 200
            box.wait_until(lambda: box.service.scheduler.active == 32)
            yield


@pytest.mark.acceptance
def test_full_queue_is_explained(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_queue=0)
    page = open_page(box.url, allowed="429")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    with busy_engine(box):
        generate(page, "TO BE")
        expect(page.get_by_role("alert")).to_have_text("The server is busy and its queue is full. Try again in 5 s.")
        expect(page.get_by_label("Prompt")).to_have_value("TO BE")
        expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    box.wait_until(lambda: box.busy() == 0)
    generate(page, Length="20")
    assert len(finished(page)) == 20
    expect(page.get_by_role("alert")).to_be_empty()


@pytest.mark.acceptance
def test_queue_position_is_shown(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_tokens=10_000_000)
    page = open_page(box.url)
    box.service.scheduler.max_active = 1
    with streams(box.url, 2) as leave:
        box.wait_until(lambda: box.service.scheduler.queued == 1)
        generate(page, Length="20")
        expect(page.locator("#facts")).to_have_text("Waiting in the queue: 1 text ahead of yours.")
        leave(0)
        expect(page.locator("#facts")).to_have_text("Waiting in the queue: you are next.")
        leave(1)
        assert len(finished(page)) == 20


@pytest.mark.acceptance
def test_api_key_is_requested_once(make_box, open_page: Open) -> None:
    box = make_box(model=True, api_key="open sesame")
    page = open_page(box.url, allowed="401")
    key = page.get_by_label("API key")
    expect(key).to_be_visible()
    generate(page, Length="20")
    expect(page.get_by_role("alert")).to_contain_text("requires an API key")
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
    generate(page, "A", Length="30")
    assert len(finished(page)) == 30


@pytest.mark.acceptance
def test_no_key_is_requested_if_none_is_needed(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.get_by_label("API key")).to_be_hidden()


@pytest.mark.acceptance
def test_server_limit_lowers_the_default_length(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_tokens=120)
    page = open_page(box.url)
    generate(page)
    assert len(finished(page)) == 120


@pytest.mark.acceptance
def test_server_that_stops_while_writing_is_explained(make_box, open_page: Open, wait_for) -> None:
    box = make_box(model=True, max_tokens=10_000_000)  # more than can be generated before it stops
    page = open_page(box.url, allowed="ERR_|Failed to load")
    generate(page, Length="10000000")
    wait_for(page, LONGER_THAN, 20)
    box.stop()
    expect(page.get_by_role("alert")).to_contain_text("The server is stopping")
    text = finished(page)
    assert len(text) > 20
    box.start()
    expect(page.locator("#connection")).to_contain_text("step 250")
    generate_on = page.get_by_role("button", name="Continue from here")
    expect(generate_on).to_be_enabled()
    settings(page, Length="40")
    generate_on.click()
    assert len(finished(page)) == len(text) + 40
    assert written(page).startswith(text)
    expect(page.get_by_role("alert")).to_be_empty()
