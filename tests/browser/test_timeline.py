"""The timeline: the loss curve, the slider that lies under it, the samples of the snapshots, and playing them."""

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser

VAL_LOSS_FIELDS = pytest.mark.parametrize("field", ["val_loss_estimate", "val_loss"])
"""Runs with estimates, and old runs without."""

Open = Callable[..., Page]


def loss_curve(page: Page) -> Locator:
    return page.get_by_role("img", name="Loss over")


def sample(page: Page) -> Locator:
    return page.get_by_role("region", name="Sample from training")


def centre(locator: Locator) -> tuple[float, float]:
    box = locator.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def thumb_x(page: Page) -> float:
    """Where the middle of the slider's thumb, 20 pixels wide, is on the screen."""
    place: float = page.get_by_role("slider").evaluate(
        """(slider) => {
          const { left, width } = slider.getBoundingClientRect();
          return left + 10 + (slider.value - slider.min) / (slider.max - slider.min) * (width - 20);
        }"""
    )
    return place


def log_scale(page: Page) -> Locator:
    return page.get_by_role("button", name="Stretch the beginning")


@VAL_LOSS_FIELDS
@pytest.mark.parametrize("logarithmic", [True, False])
def test_curve_has_axes_and_a_point_per_evaluation(ready, open_page: Open, field: str, logarithmic: bool) -> None:
    ready.learn(1000, field)
    page = open_page(ready.url)
    svg = loss_curve(page)
    expect(svg).to_be_visible()
    expect(log_scale(page)).to_have_attribute("aria-pressed", "true")
    if not logarithmic:
        log_scale(page).click()
        expect(log_scale(page)).to_have_attribute("aria-pressed", "false")
    expect(svg.locator(".val-point")).to_have_count(5)
    assert svg.locator(".train").get_attribute("d").count("L") == 100
    for label in ("training steps, the beginning stretched" if logarithmic else "training steps", "loss", "1,000"):
        expect(svg.get_by_text(label, exact=True)).to_be_visible()
    assert svg.get_attribute("aria-label") == "Loss over 1,000 steps; validation loss from 4.15 to 1.55."
    area = svg.bounding_box()
    last = svg.locator(".val-point").last.bounding_box()
    assert area["x"] < last["x"] < area["x"] + area["width"]
    assert area["y"] < last["y"] < area["y"] + area["height"]


def test_logarithmic_axis_gives_the_beginning_more_room_and_is_remembered(ready, open_page: Open) -> None:
    ready.learn(1000)
    page = open_page(ready.url)
    points = loss_curve(page).locator(".val-point")

    def shares() -> list[float]:
        x = [centre(points.nth(i))[0] for i in range(5)]
        return [(at - x[0]) / (x[-1] - x[0]) for at in x]

    expect(points).to_have_count(5)
    assert shares()[1] > 0.5
    log_scale(page).click()
    assert shares() == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.01)
    page.reload()
    expect(points).to_have_count(5)
    expect(log_scale(page)).to_have_attribute("aria-pressed", "false")
    assert shares()[1] == pytest.approx(0.25, abs=0.01)


def test_curve_grows_with_training(ready, open_page: Open) -> None:
    ready.learn(250)
    page = open_page(ready.url)
    expect(loss_curve(page).locator(".val-point")).to_have_count(2)
    (ready.run.path / "metrics.jsonl").unlink()
    ready.learn(750)
    ready.status("training", step=750)
    expect(loss_curve(page).locator(".val-point")).to_have_count(4)


@pytest.mark.parametrize(("elapsed_s", "pause_ms"), [(20.0, 2000), (7200.0, 30_000)])
def test_history_is_fetched_seldom(ready, open_page: Open, elapsed_s: float, pause_ms: float) -> None:
    """At most every two seconds; in a long run, whose curve hardly changes in them, less often."""
    ready.learn(250)
    ready.status("training", step=250, elapsed_s=elapsed_s)
    page = open_page(ready.url)
    expect(loss_curve(page)).to_be_visible()
    for step in range(251, 264):
        ready.status("training", step=step)
        page.wait_for_timeout(400)
    times = page.evaluate(
        """() => performance.getEntriesByType("resource")
          .filter(({ name }) => name.includes("api/history")).map(({ startTime }) => startTime)"""
    )
    assert all(after - before > 0.98 * pause_ms for before, after in pairwise(times))
    assert len(times) >= (2 if pause_ms < 5000 else 1)


def test_new_snapshot_of_a_long_run_is_shown_at_once(ready, open_page: Open) -> None:
    ready.learn(250)
    ready.status("training", step=250, elapsed_s=7200.0)
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 250.")
    ready.run.append("samples", {"step": 500, "val_loss": 1.5, "prompt": "\n", "seed": 1, "text": "\nIt is new."})
    ready.publish(500)
    expect(sample(page)).to_have_text("It is new.", timeout=5000)


@VAL_LOSS_FIELDS
def test_pointing_at_the_curve_shows_its_figures(ready, open_page: Open, field: str) -> None:
    ready.learn(1000, field)
    page = open_page(ready.url)
    expect(loss_curve(page)).to_be_visible()
    page.mouse.move(*centre(loss_curve(page).locator(".val-point").last))
    expect(page.locator(".tooltip")).to_have_text("step 1,000 · 2 min · training 1.50 · validation 1.55")
    page.mouse.move(5, 5)
    expect(page.locator(".tooltip")).to_be_hidden()


@VAL_LOSS_FIELDS
def test_losses_are_also_available_as_a_table(ready, open_page: Open, field: str) -> None:
    ready.learn(500, field)
    page = open_page(ready.url)
    expect(loss_curve(page)).to_be_visible()
    page.get_by_text("The losses as a table").focus()
    page.keyboard.press("Enter")
    rows = page.get_by_role("region", name="Loss table").get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("Step")
    assert rows.last.get_by_role("cell").all_inner_texts() == ["500", "50 s", "1.52", "1.57", "50,000"]


@pytest.mark.acceptance
@VAL_LOSS_FIELDS
def test_keys_move_from_snapshot_to_snapshot(ready, open_page: Open, field: str) -> None:
    ready.learn(1000, field)
    page = open_page(ready.url)
    slider = page.get_by_role("slider", name="Snapshot, from first to newest")
    expect(sample(page)).to_have_text("Text of step 1000.")
    slider.focus()
    for key, step in (("ArrowLeft", 750), ("ArrowDown", 500), ("ArrowRight", 750), ("Home", 0), ("PageUp", 1000)):
        page.keyboard.press(key)
        expect(sample(page)).to_have_text(f"Text of step {step}.")
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "Step 0: loss 4.15, 1 of 5")
    expect(page.locator("#loss-meaning")).to_contain_text("A loss of 4.15 reads as a jumble of characters")
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "Step 250, after 25 s: loss 1.76, 2 of 5")
    expect(page.locator("#loss-meaning")).to_contain_text("A loss of 1.76 reads as word shapes")


@pytest.mark.acceptance
@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("width", [375, 1280])
def test_thumb_lies_under_the_mark(ready, open_page: Open, logarithmic: bool, width: int) -> None:
    ready.learn(1000)
    page = open_page(ready.url, viewport={"width": width, "height": 900})
    expect(sample(page)).to_have_text("Text of step 1000.")
    if not logarithmic:
        log_scale(page).click()
    page.get_by_role("slider").focus()
    for index in (4, 3, 2, 1, 0):
        x = centre(loss_curve(page).locator(".val-point").nth(index))[0]
        assert thumb_x(page) == pytest.approx(x, abs=1)
        assert centre(loss_curve(page).locator(".chosen"))[0] == pytest.approx(x, abs=1)
        page.keyboard.press("ArrowLeft")


@pytest.mark.acceptance
def test_dragging_along_the_curve_or_the_slider_shows_the_samples(ready, open_page: Open) -> None:
    ready.learn(1000)
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 1000.")
    points = loss_curve(page).locator(".val-point")
    x = [centre(points.nth(i))[0] for i in range(5)]
    for y in (centre(points.nth(1))[1], centre(page.get_by_role("slider"))[1]):
        page.mouse.move(x[4], y)
        page.mouse.down()
        for index in (1, 0, 2):
            page.mouse.move(x[index] + 3, y, steps=3)
            expect(sample(page)).to_have_text(f"Text of step {index * 250}.")
            assert thumb_x(page) == pytest.approx(x[index], abs=1)
        page.mouse.up()
        page.mouse.move(x[4], y, steps=2)  # no more dragging
        expect(sample(page)).to_have_text("Text of step 500.")


@pytest.mark.acceptance
def test_small_change_of_the_slider_goes_to_the_next_snapshot(ready, open_page: Open) -> None:
    """Screen readers on phones move a slider by some per cent and send no keys."""
    ready.learn(1000)
    page = open_page(ready.url)
    slider = page.get_by_role("slider")
    expect(sample(page)).to_have_text("Text of step 1000.")
    change = """(slider, by) => {
      slider.value = Number(slider.value) + by;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }"""
    for by, step in ((-20, 750), (-20, 500), (20, 750)):
        slider.evaluate(change, by)
        expect(sample(page)).to_have_text(f"Text of step {step}.")


@pytest.mark.acceptance
def test_samples_outlive_their_snapshots(ready, open_page: Open) -> None:
    for step in range(0, 4000, 100):
        losses = {"val_loss": None, "val_loss_estimate": 2.0}
        ready.run.append("metrics", {"step": step, "train_loss": 2.0, **losses})
        ready.run.append("samples", {"step": step, "prompt": "\n", "seed": 1, "text": f"Text {step}.", **losses})
    page = open_page(ready.url)
    expect(page.locator("#sample-facts")).to_have_text("Step 3,900: loss 2.00 40 of 40")
    expect(loss_curve(page).locator(".val-point")).to_have_count(40)
    page.get_by_role("slider").focus()
    for _ in range(11):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#sample-facts")).to_have_text("Step 2,800: loss 2.00 29 of 40")


@pytest.mark.acceptance
@pytest.mark.parametrize("at_newest", [True, False])
def test_timeline_follows_the_newest_snapshot_unless_moved_back(ready, open_page: Open, at_newest: bool) -> None:
    ready.learn(500)
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 500.")
    if not at_newest:
        page.get_by_role("slider").focus()
        page.keyboard.press("ArrowLeft")
        expect(sample(page)).to_have_text("Text of step 250.")
    ready.run.append("samples", {"step": 750, "val_loss": 1.5, "prompt": "A:", "seed": 1, "text": " and more"})
    ready.status("training", step=750)
    expect(page.locator("#sample-position")).to_contain_text("of 4")
    expect(sample(page)).to_have_text("A: and more" if at_newest else "Text of step 250.")


@pytest.mark.acceptance
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_newest_mark_glides_in_unless_motion_is_reduced(ready, open_page: Open, wait_for, motion: str) -> None:
    ready.learn(500)
    page = open_page(ready.url, reduced_motion=motion)
    expect(loss_curve(page).locator(".val-point")).to_have_count(3)
    page.evaluate(
        """() => {
          window.places = [];
          const record = () => {
            const points = document.querySelectorAll("#loss-chart .val-point");
            if (points.length === 4) places.push(Math.round(points[2].getAttribute("cx")));
            requestAnimationFrame(record);
          };
          record();
        }"""
    )
    (ready.run.path / "metrics.jsonl").unlink()
    (ready.run.path / "samples.jsonl").unlink()
    ready.learn(750)
    ready.status("training", step=750)
    wait_for(page, "() => places.length > 100")
    places = page.evaluate("places")
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == 1 if motion == "reduce" else len(set(places)) > 5


@pytest.mark.acceptance
def test_timeline_plays_from_the_first_snapshot_to_the_newest(ready, open_page: Open) -> None:
    ready.learn(1000)
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 1000.")
    page.evaluate(
        """() => {
          const text = document.getElementById("sample-completion");
          window.shown = [];
          new MutationObserver(() => text.textContent && shown.push([text.textContent, performance.now()]))
            .observe(text, { childList: true, characterData: true, subtree: true });
        }"""
    )
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#announcer")).to_have_text("Step 1,000, after 2 min: loss 1.55, the newest.")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    texts, times = zip(*page.evaluate("shown"), strict=True)
    assert texts == tuple(f"Text of step {step}." for step in (0, 250, 500, 750, 1000))
    assert times[-1] - times[0] > 4 * 400, "a few a second"
    expect(sample(page).locator(".before")).to_have_count(0)
    ready.run.append("samples", {"step": 1250, "val_loss": 1.5, "prompt": "\n", "seed": 1, "text": "\nIt follows."})
    ready.status("training", step=1250)
    expect(sample(page)).to_have_text("It follows.")


@pytest.mark.acceptance
def test_playing_is_paused_by_the_button_and_by_hand(ready, open_page: Open) -> None:
    ready.learn(1000)
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 1000.")
    play, pause = page.get_by_role("button", name="Play"), page.get_by_role("button", name="Pause")
    text = sample(page).locator(".text").first
    play.click()
    pause.click()
    paused = text.text_content()
    page.wait_for_timeout(1200)
    assert text.text_content() == paused != "Text of step 1000."
    play.click()
    expect(pause).to_be_visible()
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(play).to_be_visible()
    page.wait_for_timeout(1200)
    assert text.text_content() == "Text of step 0."


@pytest.mark.acceptance
def test_with_reduced_motion_the_button_goes_step_by_step(ready, open_page: Open) -> None:
    ready.learn(500)
    page = open_page(ready.url, reduced_motion="reduce")
    expect(sample(page)).to_have_text("Text of step 500.")
    for name, step in (("Back to the first", 0), ("Next snapshot", 250), ("Next snapshot", 500), ("Back to the", 0)):
        page.get_by_role("button", name=name).click()
        expect(sample(page)).to_have_text(f"Text of step {step}.")
    page.wait_for_timeout(1200)
    assert sample(page).text_content().strip() == "Text of step 0."
    assert page.evaluate("document.getAnimations().length") == 0


def learn_by_heart(run, last: int = 1000, best: int = 500) -> None:
    """Rows of a run whose validation loss rises after `best`, while its training loss falls on."""
    for step in range(0, last + 1, 125):
        val_loss = 2 - 0.001 * min(step, best) + 0.0004 * max(0, step - best)
        row = {"step": step, "elapsed_s": step / 10, "train_loss": 2 - 0.0015 * step, "val_loss_estimate": val_loss}
        run.append("metrics", row)
        run.append("samples", {"step": step, "val_loss_estimate": val_loss, "prompt": "", "text": f"Text {step}."})


@pytest.mark.acceptance
def test_overfitting_is_explained_and_marked_when_it_begins(ready, open_page: Open) -> None:
    learn_by_heart(ready.run, last=500)
    page = open_page(ready.url, reduced_motion="reduce")
    points = loss_curve(page).locator(".val-point")
    expect(points).to_have_count(5)
    expect(page.locator("#overfitting")).to_be_empty()
    expect(loss_curve(page).locator(".overfit")).to_have_count(0)
    for name in ("metrics", "samples"):
        (ready.run.path / f"{name}.jsonl").unlink()
    learn_by_heart(ready.run)
    ready.status("training", step=1000, best_snapshot=None)
    expect(page.locator("#overfitting")).to_contain_text("It overfits from step 500 on: the loss on unseen text rises")
    expect(page.locator("#loss-meaning")).to_have_text(re.compile("its loss of 1.70 is worse than it was at step 500"))
    expect(page.locator("#announcer")).to_contain_text("It overfits from step 500 on")
    expect(loss_curve(page).get_by_text("overfitting", exact=True)).to_be_visible()
    marked = loss_curve(page).locator(".overfit").bounding_box()
    assert marked["x"] == pytest.approx(centre(points.nth(4))[0], abs=2)
    assert marked["width"] > 10


@pytest.mark.acceptance
def test_best_snapshot_is_marked(ready, open_page: Open) -> None:
    ready.publish(500)
    ready.learn(1000)
    ready.publish(1000)
    ready.run.update_link("best", ready.run.snapshot(500))
    page = open_page(ready.url)
    best = loss_curve(page).locator(".best")
    expect(best).to_have_count(1)
    assert centre(best)[0] == pytest.approx(centre(loss_curve(page).locator(".val-point").nth(2))[0], abs=1)
    expect(page.locator("#sample-position")).to_have_text("5 of 5")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#sample-position")).to_have_text("3 of 5, the best")


@pytest.mark.acceptance
def test_timeline_is_the_same_after_a_reload_in_mid_training(ready, open_page: Open) -> None:
    ready.learn(750)
    page = open_page(ready.url)
    expect(sample(page)).to_have_text("Text of step 750.")
    page.reload()
    expect(sample(page)).to_have_text("Text of step 750.")
    expect(loss_curve(page).locator(".val-point")).to_have_count(4)
    ready.run.append("samples", {"step": 1000, "val_loss": 1.5, "prompt": "\n", "seed": 1, "text": "\nIt goes on."})
    ready.status("training", step=1000)
    expect(sample(page)).to_have_text("It goes on.")


@pytest.mark.acceptance
def test_run_without_samples_has_a_curve_alone(ready, open_page: Open) -> None:
    for step in range(3):
        ready.run.append("metrics", {"step": step, "train_loss": 3.0 - step, "val_loss": None})
    page = open_page(ready.url)
    expect(loss_curve(page)).to_be_visible()
    for name in ("#sample", "#learned", "#rewriting", "#pinned"):
        expect(page.locator(name)).to_be_hidden()


@pytest.mark.acceptance
def test_what_the_model_learned_since_the_mark_before(ready, open_page: Open) -> None:
    row = {"val_loss": None, "val_loss_estimate": 2.0, "prompt": "\n", "seed": 1, "text": "A text."}
    confusion = {"expected": "a", "predicted": "e", "share": 0.0312}
    learned = [
        {"real_words": 0.2, "accuracy": 0.3, "confusion": confusion, "line": "Thou art <b>not</b> so."},
        {"real_words": 0.744, "accuracy": 0.52, "confusion": {**confusion, "expected": " "}, "line": None},
        {"real_words": None, "accuracy": 0.52, "confusion": None, "line": "A fresh line."},
    ]
    for i, item in enumerate(learned):
        ready.run.append("samples", {"step": 100 * i, **row, "learned": item})
    ready.run.append("samples", {"step": 300, **row})  # of an older version
    page = open_page(ready.url)
    expect(page.locator("#sample-position")).to_contain_text("4 of 4")
    section = page.get_by_role("region", name=re.compile("What it (learned|knows)"))
    expect(section).to_be_hidden()
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(section).to_contain_text("What it learned since step 100")
    expect(page.locator("#learned-figures")).to_have_text("Next letter right52 %")
    expect(page.locator("#learned-line")).to_have_text("A fresh line.")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#learned-figures")).to_contain_text("Real words74 %, before 20 %")
    expect(page.locator("#learned-figures")).to_contain_text("Next letter right52 %, before 30 %")
    expect(page.locator("#learned-figures")).to_contain_text("It still writes “e” where (space) stands, in 3.1")
    expect(page.locator("#learned-line")).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    expect(section).to_contain_text("What it knows by now")
    expect(page.locator("#learned-line")).to_have_text("Thou art <b>not</b> so.")
