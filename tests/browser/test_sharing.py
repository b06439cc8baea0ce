"""Permalinks: read and written, opened in a fresh browser, and in the address; and the share dialog."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from tests.browser.modules import run_module

pytestmark = pytest.mark.browser

Open = Callable[..., Page]

HOSTILE = (
    '<img src=x onerror="document.body.dataset.hacked=1"><script>document.body.dataset.hacked=2</script>'
    "&amp;#38; \u202e \U0001f600\u0301 %26 + #m=1&p=2"
)


def write(page: Page, prompt: str, length: int = 60, **settings: Any) -> str:
    """Have the model continue a prompt on a new paper, and return the whole text."""
    run_module(page, "paper.js", "({ setText }, text) => setText(text)", prompt)
    fields = {"max_tokens": length, "seed": None, **settings}
    run_module(page, "settings.js", "({ fill }, fields) => fill(fields)", fields)
    page.locator("#generate").click()
    return written(page)


def paper(page: Page) -> dict[str, Any]:
    """The text of the paper, and the state of what the model last wrote: {text, state, request, fingerprint}."""
    script = """async ({ store: { state: { manuscript } } }) => {
      const { current, textOf } = await import(new URL("manuscript.js", document.styleSheets[0].href));
      return { text: textOf(current(manuscript)), ...current(manuscript).writing };
    }"""
    found: dict[str, Any] = run_module(page, "store.js", script)
    return found


def written(page: Page) -> str:
    """The whole text on the paper once the model has written it."""
    for _ in range(600):
        found = paper(page)
        if found.get("state") in ("finished", "stopped", "failed"):
            assert found["state"] != "failed", page.locator("#error").text_content()
            return str(found["text"])
        page.wait_for_timeout(50)
    raise AssertionError(f"the model did not write: {found}")


def link_of(page: Page) -> str:
    """The link in the share dialog, which is closed again."""
    page.get_by_role("button", name="Share").click()
    link = page.get_by_label("Link", exact=True).input_value()
    page.keyboard.press("Escape")
    return link


def notes(page: Page) -> list[str]:
    return page.locator("#share-notes li").all_text_contents()


# Reading and writing.


def test_a_link_has_what_was_put_into_it(box, open_page: Open) -> None:
    page = open_page(box.url)
    fields = {
        "model": "shakespeare_char@step-000250", "prompt": HOSTILE + "\n\r\t'()*!~", "seed": 2**53 - 1,
        "temperature": 0.1, "top_k": 0, "max_tokens": 1, "top_p": 0.95, "min_p": 1e-7, "repetition_penalty": 1.3,
        "presence_penalty": -2, "frequency_penalty": 0.25, "ignore_eos": True, "stop": ["\n\n", "&f=x", "END"],
        "fingerprint": "gptbox-0.1.0-1a2b3c4d",
    }  # fmt: skip
    fragment, link = run_module(
        page,
        "permalink.js",
        "({ writeLink, readLink }, fields) => [writeLink(fields), readLink(`#${writeLink(fields)}`)]",
        fields,
    )
    assert link == {"fields": fields, "problems": []}
    # Nothing that programs take as the end of an address in a text.
    assert not set(fragment) & set("!'()*~<>\"` \n")
    assert fragment.startswith("m=shakespeare_char%40step-000250&p=%3Cimg%20src")


def test_a_link_leaves_neutral_values_out(box, open_page: Open) -> None:
    page = open_page(box.url)
    fields = {
        "model": "a@step-000001",
        "prompt": "A",
        "seed": 0,
        "top_p": 1,
        "min_p": 0,
        "stop": [],
        "n": 4,
        "logprobs": 5,
    }
    assert (
        run_module(page, "permalink.js", "({ writeLink }, fields) => writeLink(fields)", fields)
        == "m=a%40step-000001&p=A&s=0&t=0.8&k=200&n=500"
    )


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        ("t=2.1", "The temperature “2.1” cannot be used: it must be a number from 0 to 2."),
        ("t=", "The temperature “” cannot be used: it is empty."),
        ("t=0x1", "The temperature “0x1” cannot be used: it must be a number from 0 to 2."),
        ("t=1&t=2", "The temperature “1, 2” cannot be used: the link has several."),
        ("s=1.5", "The seed “1.5” cannot be used: it must be a whole number, 0 or more."),
        ("s=1e30", "The seed “1e30” cannot be used: it must be a whole number, 0 or more."),
        ("n=0", "The length “0” cannot be used: it must be a whole number, 1 or more."),
        ("ignore_eos=1", "The field ignore_eos “1” cannot be used: it must be true or false."),
        ("top_p=-1", "The top-p “-1” cannot be used: it must be a number from 0 to 1."),
        ("p=A%zz", "The prompt “A%zz” cannot be used: it is not percent-encoded UTF-8."),
        ("stop=", "The stop text “” cannot be used: it is empty."),
        ("p=A&new=1", "This page does not know the field “new”: the text may differ."),
        ("m=..%2Fx", "The model “..%2Fx” cannot be used: it must be a run, such as shakespeare_char, or a snapshot, "
         "such as shakespeare_char@step-000250."),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used_are_named(box, open_page: Open, fragment: str, problem: str) -> None:
    link = run_module(open_page(box.url), "permalink.js", "({ readLink }, text) => readLink(text)", f"#{fragment}")
    assert link["problems"] == [problem]


def test_other_fragments_are_no_links(box, open_page: Open) -> None:
    read = "({ readLink }, texts) => texts.map((text) => readLink(text))"
    assert run_module(open_page(box.url), "permalink.js", read, ["", "#", "#box", "#other=1", "#m"]) == [None] * 5


# Opening.


def test_link_opened_in_a_fresh_browser_gives_the_same_text(ready, open_page: Open) -> None:
    """Also of a text whose reader gave no seed, and after the server's model has changed."""
    page = open_page(ready.url)
    text = write(page, f"HELLO {HOSTILE}\n")
    link = link_of(page)
    ready.publish(500, seed=1)
    expect(page.locator("#connection")).to_contain_text("step 500")
    fresh = open_page(link)
    assert written(fresh) == text
    assert fresh.evaluate("document.body.dataset.hacked") is None
    expect(fresh.locator("#notice")).to_be_hidden()
    assert paper(fresh)["request"]["prompt"] == f"HELLO {HOSTILE}\n"


def test_link_works_below_a_path(make_box, open_page: Open) -> None:
    page = open_page(make_box(path="/some/box", model=True).url)
    text = write(page, "HELLO")
    link = link_of(page)
    assert "/some/box/#m=" in link
    assert written(open_page(link)) == text


def test_link_of_a_later_version_of_several_gives_that_version(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    write(page, "HELLO", seed=7, n=2)
    texts = run_module(
        page,
        "store.js",
        """async ({ store: { state: { manuscript } } }) => {
          const { textOf } = await import(new URL("manuscript.js", document.styleSheets[0].href));
          return Object.values(manuscript.versions).filter(({ writing }) => writing).map((version) => textOf(version));
        }""",
    )
    assert len(set(texts)) == 2
    page.evaluate(
        """async () => {
          const { store } = await import(new URL("store.js", document.styleSheets[0].href));
          const { choose } = await import(new URL("paper.js", document.styleSheets[0].href));
          choose(store.state.manuscript.lastId);
        }"""
    )
    assert "&s=8&" in page.url
    assert written(open_page(link_of(page))) == texts[1]


@pytest.mark.acceptance
def test_link_of_a_text_that_was_edited_has_what_the_model_last_wrote(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    first = write(page, "HELLO", seed=7)
    page.get_by_role("button", name="Continue").click()
    second = written(page)
    assert second.startswith(first)
    assert len(second) > len(first)
    run_module(page, "paper.js", "({ setText }, text) => setText(text)", f"{second} THE END")
    page.get_by_role("button", name="Share").click()
    assert any("Your changes since the model last wrote" in note for note in notes(page))
    link = page.get_by_label("Link", exact=True).input_value()
    fresh = open_page(link)
    assert written(fresh) == second
    assert paper(fresh)["request"]["prompt"] == first


@pytest.mark.acceptance
def test_link_of_a_stopped_text_ends_where_it_was_stopped(make_box, open_page: Open, wait_for) -> None:
    box = make_box(model=True, max_tokens=10_000_000)
    page = open_page(box.url)
    page.get_by_label("Length").fill("1000000")
    page.locator("#generate").click()
    wait_for(page, "() => document.getElementById('text').textContent.length > 20")
    page.get_by_role("button", name="Stop").click()
    text = written(page)
    assert written(open_page(link_of(page))) == text


@pytest.mark.acceptance
def test_link_waits_for_the_model(box, open_page: Open) -> None:
    page = open_page(f"{box.url}#p=HELLO&s=3&n=30")
    expect(page.locator("#connection")).to_contain_text("No model yet")
    expect(page.get_by_label("Prompt")).to_have_value("HELLO")
    box.publish()
    assert len(written(page)) == 35
    assert paper(page)["request"]["seed"] == 3


@pytest.mark.acceptance
def test_link_waits_for_the_key(make_box, open_page: Open) -> None:
    box = make_box(model=True, api_key="open sesame")
    # Without the key, the page cannot ask either which characters the model knows.
    page = open_page(f"{box.url}#m=shakespeare%40step-000250&p=HELLO&s=3&n=30", allowed="401")
    expect(page.locator("#notice")).to_contain_text("once you have entered")
    page.get_by_label("API key").fill("open sesame")
    page.locator("#generate").click()
    text = written(page)
    assert len(text) == 35
    link = link_of(page)
    page.goto("about:blank")
    page.goto(link)  # the tab still has the key
    assert written(page) == text


@pytest.mark.acceptance
def test_other_fingerprint_is_said(ready, open_page: Open) -> None:
    page = open_page(f"{ready.url}#p=HELLO&s=3&n=30&f=gptbox-0.0.9-00000000")
    assert len(written(page)) == 35
    expect(page.locator("#notice")).to_contain_text("The text may differ")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.acceptance
def test_thinned_out_snapshot_is_named_and_the_nearest_offered(ready, open_page: Open) -> None:
    ready.publish(500, seed=1)
    page = open_page(f"{ready.url}#m=shakespeare%40step-000260&p=HELLO&s=3&n=30")
    expect(page.locator("#notice")).to_contain_text("shakespeare, step 260, was thinned out")
    expect(page.get_by_label("Prompt")).to_have_value("HELLO")
    assert "state" not in paper(page)
    page.get_by_role("button", name="Write with step 250").click()
    text = written(page)
    assert text == written(open_page(f"{ready.url}#m=shakespeare%40step-000250&p=HELLO&s=3&n=30"))


@pytest.mark.acceptance
def test_run_that_is_gone_is_said(ready, open_page: Open) -> None:
    page = open_page(f"{ready.url}#m=other%40step-000260&p=HELLO&s=3&n=30")
    expect(page.locator("#notice")).to_contain_text("The run other is not on this server")
    expect(page.get_by_label("Prompt")).to_have_value("HELLO")
    page.get_by_role("button", name="Write with the model in use").click()
    assert len(written(page)) == 35


@pytest.mark.acceptance
def test_bad_values_and_a_model_that_is_gone_are_both_said(ready, open_page: Open) -> None:
    page = open_page(f"{ready.url}#m=other%40step-000260&p=HELLO&s=3&n=30&t=9")
    expect(page.locator("#notice")).to_contain_text("The run other is not on this server")
    expect(page.locator("#notice")).to_contain_text("The temperature “9” cannot be used")


@pytest.mark.acceptance
def test_bad_values_are_named_and_nothing_is_lost(ready, open_page: Open) -> None:
    page = open_page(f"{ready.url}#p=HELLO%20{quote('<b>')}&s=3&n=30&t=9")
    expect(page.locator("#notice")).to_contain_text("The temperature “9” cannot be used")
    expect(page.get_by_label("Prompt")).to_have_value("HELLO <b>")
    expect(page.get_by_label("Seed")).to_have_value("3")
    assert "state" not in paper(page)
    page.locator("#generate").click()
    assert len(written(page)) == 39


@pytest.mark.acceptance
def test_length_above_the_limit_is_said(make_box, open_page: Open) -> None:
    box = make_box(model=True, max_tokens=20)
    page = open_page(f"{box.url}#p=HELLO&s=3&n=30&f=gptbox-0.0.9-00000000")
    assert len(written(page)) == 25
    expect(page.locator("#notice")).to_contain_text("limit of 20")
    expect(page.locator("#notice")).to_contain_text("The text may differ")


# The address.


@pytest.mark.acceptance
def test_back_and_forward_go_between_texts(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    first = write(page, "ONE", seed=1)
    one = page.url
    assert "#m=shakespeare%40step-000250&p=ONE&s=1" in one
    second = write(page, "TWO", seed=2)
    two = page.url
    assert "&p=TWO&s=2" in two

    def go(direction: str, url: str, text: str) -> None:
        page.evaluate(f"history.{direction}()")
        expect(page).to_have_url(url)
        page.wait_for_timeout(100)
        assert paper(page)["text"] == text

    go("back", ready.url, "TWO")  # before the model wrote
    go("back", one, first)
    go("back", ready.url, "ONE")
    go("forward", one, first)
    go("forward", ready.url, "TWO")
    go("forward", two, second)
    page.reload()
    assert written(page) == second
    assert page.url == two
    go("back", ready.url, "TWO")
    go("back", one, first)


@pytest.mark.acceptance
def test_address_follows_undo_and_redo(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    text = write(page, "ONE", seed=1)
    one = page.url
    page.get_by_role("button", name="Undo").click()
    expect(page).to_have_url(re.compile("^[^#]*$"))
    page.get_by_role("button", name="Redo").click()
    expect(page).to_have_url(one)
    page.get_by_role("button", name="Continue").click()
    assert written(page).startswith(text)
    assert page.url != one


@pytest.mark.acceptance
def test_address_typed_over_is_opened(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    text = write(page, "ONE", seed=1)
    page.evaluate("location.hash = '#p=TWO&s=5&n=30'")
    page.wait_for_timeout(200)
    assert written(page).startswith("TWO")
    page.go_back()
    page.wait_for_timeout(200)
    assert paper(page)["text"] == text


@pytest.mark.acceptance
def test_nothing_of_a_link_reaches_the_server_but_the_request(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(f"{ready.url}#p=SECRET&s=3&n=30")
    page.reload()
    assert written(page).startswith("SECRET")
    assert urls
    # Playwright shows an address with its fragment, which is not sent.
    assert [url for url in urls if "SECRET" in url.split("#")[0]] == []


# The dialog.


@pytest.mark.acceptance
def test_share_dialog_has_the_link(ready, open_page: Open) -> None:
    page = open_page(ready.url, permissions=["clipboard-read", "clipboard-write"])
    write(page, "HELLO", seed=7)
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press("s")
    dialog = page.get_by_role("dialog", name="Share")
    expect(dialog).to_be_visible()
    expect(page.get_by_label("Link", exact=True)).to_have_value(page.url)
    assert "This address works on this computer only" in notes(page)[0]
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


@pytest.mark.acceptance
def test_the_devices_own_share_sheet_is_offered_where_there_is_one(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    page.get_by_role("button", name="Share").click()
    expect(page.locator("#share-native")).to_be_hidden()
    script = "navigator.share = async (data) => { document.body.dataset.shared = data.url; };"
    page = open_page(ready.url, script=script)
    write(page, "HELLO", seed=7)
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("body")).to_have_attribute("data-shared", page.url)


@pytest.mark.acceptance
def test_long_prompts_make_long_links_that_work(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    prompt = "".join(chr(32 + i * 7 % 90) for i in range(4000))
    text = write(page, prompt, seed=7)
    page.get_by_role("button", name="Share").click()
    assert any("some mail and chat programs cut long ones" in note for note in notes(page))
    link = page.get_by_label("Link", exact=True).input_value()
    assert len(link) > 4000
    assert written(open_page(link)) == text


@pytest.mark.acceptance
def test_paper_without_a_text_of_the_models_is_shared_as_it_is(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    page.get_by_role("button", name="Share").click()
    assert any("The model has not written yet" in note for note in notes(page))
    expect(page.locator("#share-playbill")).to_be_hidden()
    assert re.search(r"[#&]s=\d+&", page.get_by_label("Link", exact=True).input_value())


@pytest.mark.acceptance
def test_notes_say_what_a_receiver_has_to_know(make_box, open_page: Open) -> None:
    box = make_box(model=True, api_key="open sesame")
    page = open_page(box.url)
    page.get_by_label("API key").fill("open sesame")
    write(page, "HELLO", seed=7)
    page.get_by_role("button", name="Share").click()
    found = " ".join(notes(page))
    assert "This server has an API key" in found
    assert "The model is still learning" in found
