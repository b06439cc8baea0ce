"""The run picker: everything under "Watch it learn" shows the picked run."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect
from tests.browser import paper
from tests.browser.conftest import CONFIG

from gptbox.models.runs import RunFolder, Status

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
OTHER = "letters"


@pytest.fixture
def other(ready, write_model: Callable[..., object]) -> RunFolder:
    """An older run, finished, beside the box's own, which is in training."""
    return write_other(ready, write_model)


def write_other(box, write_model: Callable[..., object]) -> RunFolder:
    run = RunFolder(box.run.path.parent, OTHER)
    write_model(run.snapshot(70), CONFIG, seed=3, step=70)
    run.update_link("best", run.snapshot(70))
    run.update_link("latest", run.snapshot(70))
    for step, loss in ((10, 4.2), (70, 3.61)):
        losses = {"val_loss": None, "val_loss_estimate": loss}
        run.append("metrics", {"step": step, "elapsed_s": step / 2, "train_loss": loss, **losses})
        run.append("samples", {"step": step, "prompt": "\n", "seed": 1, "text": f"Letter {step}.", **losses})
    run.write_status(Status(run=OTHER, phase="finished", step=70, steps=70, elapsed_s=35.0, best_val_loss=3.6,
                            token_unit="token", characters_per_token=2.5, letters_per_token=2.5))  # fmt: skip
    box.learn(500)
    box.publish(500)
    return run


def picker(page: Page) -> Locator:
    return page.get_by_role("combobox", name="Run")


def sample(page: Page) -> Locator:
    return page.get_by_role("region", name="Sample from training")


def expect_other(page: Page) -> None:
    expect(page.get_by_role("heading", name="How letters learned")).to_be_visible()
    expect(sample(page)).to_have_text("Letter 70.")
    expect(page.locator("#phase")).to_have_text("Training is finished")
    expect(page.locator("#steps")).to_have_text("70 steps in 35 s")
    expect(page.locator("#loss-meaning")).to_contain_text("For each token of 2.5 characters")
    expect(page.get_by_role("img", name="Loss over")).to_have_attribute(
        "aria-label", "Loss over 70 steps; validation loss from 4.20 to 3.61."
    )


def test_a_single_run_has_no_picker(ready, open_page: Open) -> None:
    ready.learn(500)
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 500.")
    expect(picker(page)).to_be_hidden()


def test_picked_run_is_shown_everywhere_and_after_a_reload(ready, other: RunFolder, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 500.")
    expect(picker(page)).to_have_value("shakespeare")
    assert picker(page).locator("option").all_inner_texts() == ["shakespeare", OTHER]
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(sample(page)).to_have_text("Text of step 250.")
    picker(page).select_option(OTHER)
    expect_other(page)
    page.reload()
    expect_other(page)
    expect(picker(page)).to_have_value(OTHER)
    picker(page).select_option("shakespeare")
    expect(sample(page)).to_have_text("Text of step 500.")
    expect(page.locator("#phase")).to_have_text("The model is learning")
    expect(page.get_by_role("heading", name="How it learned", exact=True)).to_be_visible()


@pytest.mark.acceptance
def test_training_of_another_run_does_not_disturb_the_picked_one(ready, other: RunFolder, open_page: Open) -> None:
    page = open_page(ready.url)
    picker(page).select_option(OTHER)
    expect_other(page)
    ready.run.append("samples", {"step": 750, "val_loss": 1.5, "prompt": "\n", "seed": 1, "text": "\nNews."})
    ready.publish(750)
    expect(page.locator("#connection")).to_contain_text("step 750")
    page.wait_for_timeout(3000)
    expect_other(page)
    picker(page).select_option("shakespeare")
    expect(sample(page)).to_have_text("News.")


@pytest.mark.acceptance
def test_deleted_run_gives_way_to_the_newest(ready, other: RunFolder, open_page: Open) -> None:
    page = open_page(ready.url, allowed="404")
    picker(page).select_option(OTHER)
    expect_other(page)
    other.delete()
    page.reload()
    expect(sample(page)).to_have_text("Text of step 500.")
    expect(picker(page)).to_be_hidden()


@pytest.mark.acceptance
def test_run_may_be_called_as_a_property_of_every_object(ready, other: RunFolder, open_page: Open) -> None:
    other.path.rename(other.path.with_name("constructor"))
    page = open_page(ready.url)
    picker(page).select_option("constructor")
    expect(sample(page)).to_have_text("Letter 70.")


@pytest.mark.acceptance
def test_picker_appears_once_the_api_key_is_accepted(
    make_box, write_model: Callable[..., object], open_page: Open
) -> None:
    box = make_box(model=True, api_key="secret")
    write_other(box, write_model)
    page = open_page(box.url)
    expect(sample(page)).to_have_text("Text of step 500.")
    expect(picker(page)).to_be_hidden()
    page.get_by_label("API key").fill("secret")
    paper.generate(page, Length=20)
    expect(page.locator("#facts")).to_contain_text("20 characters in")
    box.status("training", step=501)
    expect(picker(page)).to_be_visible()
    picker(page).select_option(OTHER)
    expect_other(page)
