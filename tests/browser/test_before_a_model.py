"""The page before there is a trainer, a text or a model."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def test_page_without_a_trainer_says_it_has_not_started(box, open_page: Open) -> None:
    page = open_page(box.url)
    training = page.get_by_role("region", name="Watch it learn", exact=True)
    expect(training).to_contain_text("The trainer has not started yet")
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    expect(page.get_by_role("button", name="Generate")).to_have_accessible_description(
        re.compile("No model yet: the trainer has not started")
    )


@pytest.mark.parametrize(
    ("phase", "message", "reason", "heading"),
    [
        ("preparing", "Preparing the text of x.", "the text is being prepared", "Preparing the text"),
        ("training", "", "within half a minute", "The model is learning"),
        ("stopped", "", "stopped before the first one", "Training was stopped"),
        ("failed", "The text is too short.", "training failed before the first one", "Training failed"),
    ],
)
def test_page_without_a_model_explains_why_and_when_there_will_be_one(
    box, open_page: Open, phase: str, message: str, reason: str, heading: str
) -> None:
    box.status(phase, message=message)
    page = open_page(box.url)
    expect(page.locator("#phase")).to_have_text(heading)
    expect(page.locator("#phase-detail")).to_contain_text(message)
    expect(page.locator("#generate-hint")).to_contain_text(reason)
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#text")).to_be_hidden()


def test_first_snapshot_enables_generate_without_a_reload(box, open_page: Open) -> None:
    page = open_page(box.url)
    page.evaluate("window.sameDocument = true")
    page.get_by_label("Prompt").fill("MY OWN WORDS")
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()
    box.publish(250)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
    expect(page.locator("#connection")).to_contain_text("shakespeare, step 250")
    expect(page.locator("#announcer")).to_have_text("The model is ready. You can generate now.")
    expect(page.get_by_label("Prompt")).to_have_value("MY OWN WORDS")
    assert page.evaluate("window.sameDocument") is True


def test_new_best_snapshot_is_named_as_soon_as_it_is_used(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.locator("#connection")).to_contain_text("step 250")
    ready.publish(500, seed=1)
    expect(page.locator("#connection")).to_contain_text("step 500")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#facts")).to_contain_text("shakespeare, step 500")


def test_models_without_a_trainer_can_generate(ready, open_page: Open) -> None:
    (ready.run.path / "status.json").unlink()
    page = open_page(ready.url)
    expect(page.locator("#phase")).to_have_text("No training run")
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()


def test_lost_connection_is_shown_and_restored(box, open_page: Open) -> None:
    page = open_page(box.url, allowed="ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET")
    expect(page.locator("#connection")).to_have_text("No model yet")
    box.stop()
    expect(page.locator("#connection")).to_have_text("Connection lost. Reconnecting…")
    box.publish(250)
    box.start()
    expect(page.locator("#connection")).to_contain_text("step 250", timeout=30_000)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled()
